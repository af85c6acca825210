"""Weighted processor sharing of one device (DESIGN.md, rule 5).

What a piece of time gives to one unit of weight is added to two running sums, of
the floor and of the rest. A window remembers the sums at its start; its energy is
its weight times what they grew by. A start or stop costs the same however many
windows are open.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from greend.energy.closed_step import FACTS, Piece
from greend.energy.shaping import Shape
from greend.energy.summation import CompensatedSum
from greend.model import NS_PER_MS, Flag, Share, Source

# For how long a device's power falls off after the work on it ended.
FALL_TIME_NS = 5 * NS_PER_MS
# Weights are counted in whole units of this, so that their sum never drifts.
WEIGHT_UNIT = 1e-12


@dataclass(slots=True)
class Claim:
    """A window's claim on one device and what it has got, in mJ; weight in WEIGHT_UNIT."""

    window_id: str
    parent_id: str
    weight: int
    # Since when it takes part in the steps as they are closed.
    joined_ns: int
    idle_mj: float = 0.0
    active_mj: float = 0.0
    device_mj: float = 0.0
    clock_mhz_ns: float = 0.0
    clock_ns: float = 0.0
    facts: set[Flag | Source] = field(default_factory=set)
    # When it claimed nothing, as a child was open: (since, until or None).
    pauses: list[tuple[int, int | None]] = field(default_factory=list)

    def share(self) -> Share:
        """The claim as a value."""
        sources = {fact for fact in self.facts if isinstance(fact, Source)}
        flags = {fact for fact in self.facts if isinstance(fact, Flag)}
        if Source.POWER in sources:
            flags.add(Flag.POWER_INTEGRATED)
        source = Source.MIXED if len(sources) > 1 else next(iter(sources), None)
        return Share(
            idle_mj=self.idle_mj,
            active_mj=self.active_mj,
            device_mj=self.device_mj,
            floor_known=Flag.FLOOR_UNKNOWN not in flags,
            clock_mhz_ns=self.clock_mhz_ns,
            clock_ns=self.clock_ns,
            source=source,
            flags=frozenset(flags),
        )


_State = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Mark:
    """The running sums at the instant of a start."""

    floor: _State
    rest: _State
    device: _State
    clock: _State
    clock_time: _State
    facts: tuple[int, ...]


class Sharing:
    """Who is open, and the running sums."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Claim, _Mark]] = {}
        self._open_weight = 0
        # Open, but a child's time is not theirs.
        self._paused: dict[str, tuple[Claim, _Mark]] = {}
        # Ended; the rest is theirs until `_fallen_ns` if nobody is open meanwhile.
        self._falling: list[tuple[Claim, _Mark]] = []
        self._falling_weight = 0
        self._fallen_ns = 0
        self._fall_begun: _State = (0.0, 0.0)
        self._floor = CompensatedSum()
        self._rest = CompensatedSum()
        self._device = CompensatedSum()
        self._clock = CompensatedSum()
        self._clock_time = CompensatedSum()
        self._fact_counts = [0] * len(FACTS)
        self._step_facts: frozenset[Flag | Source] = frozenset()

    @property
    def open_count(self) -> int:
        """Windows open now, the paused among them."""
        return len(self._open) + len(self._paused)

    def is_open(self, window_id: str) -> bool:
        """Whether a window has joined and not left."""
        return window_id in self._open or window_id in self._paused

    @property
    def falling(self) -> bool:
        """Whether work falls off after its windows ended."""
        return bool(self._falling)

    def occupied_ns(self, start_ns: int, end_ns: int, events: Iterable[tuple[int, int]]) -> int:
        """How much of a step is occupied, given its events as (instant, +1 or -1) in order."""
        count, fallen_ns, cursor_ns, occupied_ns = self.open_count, self._fallen_ns, start_ns, 0
        for instant_ns, change in [*events, (end_ns, 0)]:
            at_ns = max(instant_ns, start_ns)
            until_ns = at_ns if count else min(at_ns, fallen_ns)
            occupied_ns += max(until_ns - cursor_ns, 0)
            cursor_ns = at_ns
            count += change
            if change < 0 and count == 0:
                fallen_ns = instant_ns + FALL_TIME_NS
        return occupied_ns

    def begin_step(self, facts: frozenset[Flag | Source]) -> None:
        """From here on pieces belong to a step of which these facts are true."""
        self._step_facts = facts

    def end_step(self) -> None:
        """Who is open now has seen the step."""
        for place, fact in enumerate(FACTS):
            self._fact_counts[place] += fact in self._step_facts

    def advance(
        self, begin_ns: int, end_ns: int, shape: Shape, sm_clock_mhz: float | None
    ) -> tuple[float, float, Piece]:
        """Shares out a piece in which nobody starts or stops.

        Returns what windows and what idle got, in mJ, and what a unit of weight got.
        """
        length_ns = end_ns - begin_ns
        piece = Piece(begin_ns, end_ns, 0.0, 0.0, self.open_count)
        floor_mj, rest_mj = shape.floor * length_ns, shape.rest * length_ns
        device_mj = floor_mj + shape.unattributed * length_ns
        windows_mj, idle_mj = 0.0, floor_mj
        if self._open:
            self._floor.add(floor_mj / self._open_weight)
            self._rest.add(rest_mj / self._open_weight)
            piece = piece._replace(
                floor=shape.floor / self._open_weight, rest=shape.rest / self._open_weight
            )
            windows_mj, idle_mj = floor_mj + rest_mj, 0.0
            device_mj += rest_mj
        elif self._falling:
            self._rest.add(rest_mj / self._falling_weight)
            windows_mj = rest_mj
            device_mj += rest_mj
        self._device.add(device_mj)
        if sm_clock_mhz is not None:
            self._clock.add(sm_clock_mhz * length_ns)
            self._clock_time.add(length_ns)
        return windows_mj, idle_mj, piece

    def fallen_before(self, instant_ns: int) -> int | None:
        """When falling work was over, if that is before `instant_ns`.

        The next to start ends it at once.
        """
        if not self._falling:
            return None
        if self._open:
            return 0
        return self._fallen_ns if self._fallen_ns <= instant_ns else None

    def start(self, claim: Claim) -> None:
        """A window joins."""
        self._open[claim.window_id] = claim, self._mark()
        self._open_weight += claim.weight

    def pause(self, window_id: str) -> None:
        """A window claims nothing while its child is open."""
        claim, mark = self._open.pop(window_id)
        self._open_weight -= claim.weight
        claim.idle_mj += claim.weight * self._floor.since(mark.floor)
        claim.active_mj += claim.weight * self._rest.since(mark.rest)
        self._paused[window_id] = claim, mark

    def resume(self, window_id: str) -> None:
        """The last of its children has ended."""
        claim, mark = self._paused.pop(window_id)
        self._open_weight += claim.weight
        self._open[window_id] = claim, self._shares_from_now(mark)

    def stop(self, window_id: str, instant_ns: int) -> list[Claim]:
        """A window leaves; its work falls off if it was among the last.

        Returns the claim if it is settled at once.
        """
        if window_id in self._paused:
            claim, mark = self._paused.pop(window_id)
            self._count(claim, self._shares_from_now(mark))
            return [claim]
        claim, mark = self._open.pop(window_id)
        self._open_weight -= claim.weight
        self._count(claim, mark)
        self._falling.append((claim, mark))
        self._falling_weight += claim.weight
        self._fallen_ns = instant_ns + FALL_TIME_NS
        self._fall_begun = self._rest.state
        return []

    def settle_falling(self) -> list[Claim]:
        """Falling work is over; returns the claims that are settled by that."""
        settled = [claim for claim, _ in self._falling]
        fallen_mj = self._falling_weight * self._rest.since(self._fall_begun)
        for claim, mark in self._falling:
            claim.device_mj += fallen_mj
            claim.active_mj += claim.weight * self._rest.since(mark.rest)
            claim.facts |= self._step_facts
        self._falling.clear()
        self._falling_weight = 0
        return settled

    def peek(self, claim: Claim) -> Share:
        """What a claim has got so far; the claim itself stays as it is."""
        so_far = Claim(**{name: getattr(claim, name) for name in Claim.__slots__})
        so_far.facts = set(claim.facts)
        if claim.window_id in self._open:
            _, mark = self._open[claim.window_id]
            self._count(so_far, mark)
            so_far.active_mj += claim.weight * self._rest.since(mark.rest)
        elif claim.window_id in self._paused:
            _, mark = self._paused[claim.window_id]
            self._count(so_far, self._shares_from_now(mark))
        return so_far.share()

    def rebase(self) -> None:
        """Starts the sums anew: what they hold is given to the windows that it belongs to.

        Nobody may be falling.
        """
        assert not self._falling
        for claim, mark in self._open.values():
            self._count(claim, mark)
            claim.active_mj += claim.weight * self._rest.since(mark.rest)
        for claim, mark in self._paused.values():
            self._count(claim, self._shares_from_now(mark))
        for running in (self._floor, self._rest, self._device, self._clock, self._clock_time):
            running.clear()
        mark = self._mark()
        for windows in (self._open, self._paused):
            for window_id, (claim, _) in windows.items():
                windows[window_id] = claim, mark

    def _mark(self) -> _Mark:
        return _Mark(
            self._floor.state,
            self._rest.state,
            self._device.state,
            self._clock.state,
            self._clock_time.state,
            tuple(self._fact_counts),
        )

    def _shares_from_now(self, mark: _Mark) -> _Mark:
        return replace(mark, floor=self._floor.state, rest=self._rest.state)

    def _count(self, claim: Claim, mark: _Mark) -> None:
        """Adds to a claim what the sums grew by, but for the rest."""
        claim.idle_mj += claim.weight * self._floor.since(mark.floor)
        claim.device_mj += self._device.since(mark.device)
        claim.clock_mhz_ns += self._clock.since(mark.clock)
        claim.clock_ns += self._clock_time.since(mark.clock_time)
        claim.facts |= self._step_facts
        claim.facts.update(
            fact
            for fact, then, now in zip(FACTS, mark.facts, self._fact_counts, strict=True)
            if now > then
        )
