"""Weighted processor sharing of one device (DESIGN.md, rules 5 and 6).

What a step gives to one unit of weight is added to two running sums, of the floor and of
the rest. Windows claim the floor while they are open; the rest is claimed by claimants:
a window, or an iteration for its members. Each remembers the sums when it began; what it
got is its weight times what they grew by. A start or stop costs the same however many
windows are open, an iteration as much as it has members.
"""

from collections import Counter
from collections.abc import Collection

import msgspec

from greend.energy.claims import Claim, Claimant, Iteration, Phase
from greend.energy.placing import StepErrors
from greend.energy.power_model import Kind
from greend.energy.running import Rates
from greend.energy.saved import SavedSums
from greend.energy.settling import Settling, add_floor
from greend.model import NS_PER_MS, Flag, Share, Source

# For how long a device's power falls off after the work on it ended.
FALL_TIME_NS = 5 * NS_PER_MS


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """A part of a step in which nobody started or stopped; weights in WEIGHT_UNIT.

    `rest_weight` is 0 where work only falls off, or nobody claims the rest.
    """

    begin_ns: int
    end_ns: int
    floor_weight: int
    rest_weight: int
    open_count: int
    kind: Kind


class Sharing:
    """Who is open, and the running sums."""

    def __init__(self) -> None:
        self._open: dict[str, Claim] = {}
        self._floor_weight = 0
        # Open, but a child's time is not theirs.
        self._paused: dict[str, Claim] = {}
        self._running: list[Iteration] = []
        self._rest_weight = 0
        self._claimants = 0
        # Ended; the rest is theirs until `_fallen_ns` if nobody claims it meanwhile.
        self._falling: list[Claimant] = []
        self._falling_weight = 0
        self._fallen_ns = 0
        self._settling = Settling()
        # Of the step that goes on.
        self._now_ns = 0
        self.stretches: list[Stretch] = []
        self.occupied_at_begin = False
        self._settled: list[Claim] = []
        # To whom something happened since this was taken last.
        self._touched: dict[Claim, None] = {}

    @property
    def open_count(self) -> int:
        """Windows open now, the paused among them."""
        return len(self._open) + len(self._paused)

    def is_open(self, window_id: str) -> bool:
        """Whether a window has joined and not left."""
        return window_id in self._open or window_id in self._paused

    @property
    def unused(self) -> bool:
        """Whether nobody is open and nothing falls off."""
        return not (self._open or self._paused or self._falling or self._running)

    @property
    def occupied(self) -> bool:
        """Whether work goes on, or falls off."""
        return bool(self._rest_weight or self._falling)

    @property
    def occupied_ns(self) -> int:
        """How much of the step was occupied so far."""
        return self._settling.sums.occupied_ns

    @property
    def times_ns(self) -> Counter[Kind]:
        """The same by what was done."""
        return self._settling.sums.times_ns

    @property
    def falling(self) -> bool:
        """Whether work falls off after its windows ended."""
        return bool(self._falling)

    # Time

    def begin_step(self, start_ns: int) -> None:
        """A step begins where the last one ended."""
        self._now_ns = start_ns
        self.stretches = []
        self.occupied_at_begin = self.occupied

    def advance(self, until_ns: int) -> None:
        """Time passes: what happens from now on happens at `until_ns`, or where it is already."""
        if until_ns <= self._now_ns:
            return
        # The next to claim something ends what falls off at once.
        if self._rest_weight:
            self._end_fall()
        elif self._falling and self._fallen_ns <= until_ns:
            self._pass(self._fallen_ns)
            self._end_fall()
        self._pass(until_ns)

    def _pass(self, until_ns: int) -> None:
        length_ns = until_ns - self._now_ns
        if length_ns <= 0:
            return
        rest_weight = self._rest_weight or self._falling_weight
        kind = self._kind()
        self._settling.sums.advance(length_ns, self._floor_weight, rest_weight, kind)
        if rest_weight:
            self._settling.placing.add_piece(length_ns, rest_weight, self._claimants or 1)
        self.stretches.append(
            Stretch(
                self._now_ns,
                until_ns,
                self._floor_weight,
                self._rest_weight,
                self.open_count,
                kind,
            )
        )
        self._now_ns = until_ns

    def _kind(self) -> Kind:
        """What is done now: of overlapping iterations, the one that began first."""
        if self._rest_weight:
            return self._running[0].kind if self._running else None
        return self._falling[-1].kind if self._falling else None

    def end_step(
        self, rates: Rates, errors: StepErrors, facts: frozenset[Flag | Source]
    ) -> list[Claim]:
        """Shares the step out; returns the claims that are settled by that."""
        self._settling.end_step(rates, errors, facts)
        settled, self._settled = self._settled, []
        return settled

    # Windows

    def start(self, claim: Claim) -> None:
        """A window joins."""
        self.touch(claim)
        claim.begun, claim.fact_counts = self._settling.sums.here(), self._settling.fact_counts
        self._claim(claim)
        self._recompose(claim)

    def pause(self, window_id: str) -> None:
        """A window claims nothing while its child is open."""
        claim = self._open[window_id]
        self.touch(claim)
        self._unclaim(claim)
        self._paused[window_id] = claim
        self._drop(claim)
        self._recompose(claim)

    def resume(self, window_id: str) -> None:
        """The last of its children has ended."""
        claim = self._paused.pop(window_id)
        self.touch(claim)
        self._claim(claim)
        self._recompose(claim)

    def reweigh(self, claim: Claim, weight: int) -> None:
        """A window claims by another weight from now on."""
        self.touch(claim)
        if claim.window_id not in self._open:
            claim.weight = weight
            return
        self._unclaim(claim)
        self._drop(claim)
        claim.weight = weight
        self._claim(claim)
        self._recompose(claim)

    def begin_phase(self, claim: Claim, phase: Phase) -> None:
        """What a window gets from now on belongs to this phase."""
        self.touch(claim)
        if claim.floor_since is not None:
            self._settling.floor(claim)
            claim.floor_since = self._settling.sums.here()
        self._settling.phase(claim, phase, self._rest_weight)

    def stop(self, claim: Claim, at_ns: int) -> None:
        """A window leaves; its work falls off if it was the last."""
        self.touch(claim)
        if self._paused.pop(claim.window_id, None) is None:
            self._unclaim(claim)
            own = claim.own
            if own is not None:
                self._leave(own, at_ns)
            self._recompose(claim)
        self._settling.stop(claim)
        if not claim.claimants:
            self._settled.append(claim)

    # Iterations

    def begin_iteration(self, iteration: Iteration, claims: "list[Claim]") -> None:
        """An iteration begins; its members claim the rest only in iterations from now on."""
        for claim in claims:
            claim.iteration_driven = True
            self.touch(claim)
            if claim.stopped is None:  # else its work only falls off
                self._drop(claim)
        self._running.append(iteration)
        self._compose(iteration)

    def end_iteration(self, iteration: Iteration) -> None:
        """An iteration ends."""
        self._running.remove(iteration)
        if iteration.claimant is not None:
            self._leave(iteration.claimant, iteration.stop_ns)

    # Between steps

    @property
    def sums(self) -> SavedSums:
        """The running sums, to be kept."""
        return self._settling.saved_sums

    def touch(self, claim: Claim) -> None:
        """Something happened to a claim that steps do not tell."""
        self._touched[claim] = None

    def take_touched(self) -> list[Claim]:
        """The claims to which something happened since the last call."""
        touched, self._touched = self._touched, {}
        return list(touched)

    def so_far(self, claim: Claim) -> Claim:
        """A claim with what it has got so far; the claim itself stays as it is."""
        return self._settling.so_far(claim)

    def peek(self, claim: Claim) -> Share:
        """What a claim has got so far; the claim itself stays as it is."""
        return self._settling.so_far(claim).share()

    def bring_up(self, claims: Collection[Claim]) -> list[Claimant]:
        """Gives to claims, and to all who share with them, what they got so far.

        Returns through whom they claim.
        """
        now = self._settling.sums.now
        claimants = list(dict.fromkeys(item for claim in claims for item in claim.claimants))
        for claimant in claimants:
            self._settling.give(claimant)
        for claim in claims:
            if claim.floor_since is not None:
                add_floor(claim, claim.weight, claim.floor_since, now)
                claim.floor_since = now
        return claimants

    def rebase(self) -> None:
        """Starts the sums anew: what they hold is given to whom it belongs.

        Nobody may be falling.
        """
        assert not self._falling
        claims = [*self._open.values(), *self._paused.values()]
        claimants = self.bring_up(claims)
        for claim in claims:
            claim.seen(self._settling.sums.now, self._settling.fact_counts)
        self._settling = Settling()
        now = self._settling.sums.now
        for claim in claims:
            claim.begun, claim.fact_counts = now, self._settling.fact_counts
            claim.floor_since = None if claim.floor_since is None else claim.begun
        for claimant in claimants:
            claimant.begun, claimant.variance_since = now, 0.0
        self._touched.update(dict.fromkeys(claims))

    # Inside

    def _claim(self, claim: Claim) -> None:
        claim.floor_since = self._settling.sums.here()
        claim.weighs(self._now_ns, claim.weight)
        self._open[claim.window_id] = claim
        self._floor_weight += claim.weight
        if not claim.iteration_driven:
            claim.own = self._join(claim.weight, {claim: 1.0})

    def _unclaim(self, claim: Claim) -> None:
        self._settling.floor(claim)
        claim.floor_since = None
        claim.weighs(self._now_ns, 0)
        del self._open[claim.window_id]
        self._floor_weight -= claim.weight

    def _drop(self, claim: Claim) -> None:
        """A window claims the rest by itself no longer, though its work goes on."""
        if claim.own is not None:
            self._retire(claim.own)
            self._finish(claim.own)

    def _recompose(self, claim: Claim) -> None:
        """A window came or went, or has another weight: its iterations are shared anew."""
        for iteration in self._running:
            if claim.window_id in iteration.costs:
                if iteration.claimant is not None:
                    self._retire(iteration.claimant)
                    self._finish(iteration.claimant)
                self._compose(iteration)

    def _compose(self, iteration: Iteration) -> None:
        open_ = self._open
        members = [(open_[key], cost) for key, cost in iteration.costs.items() if key in open_]
        cost_sum = sum(cost for _, cost in members)
        iteration.claimant = None
        if cost_sum > 0:
            weight = sum(claim.weight for claim, _ in members)
            parts = {claim: cost / cost_sum for claim, cost in members if cost > 0}
            iteration.claimant = self._join(weight, parts, iteration.kind)

    def _join(self, weight: int, members: dict[Claim, float], kind: Kind = None) -> Claimant:
        claimant = Claimant(weight, members, self._settling.sums.here(), kind)
        for claim in members:
            claim.claimants.append(claimant)
            self.touch(claim)
        self._rest_weight += weight
        self._claimants += 1
        self._settling.begin(claimant)
        return claimant

    def _retire(self, claimant: Claimant) -> None:
        self._rest_weight -= claimant.weight
        self._claimants -= 1

    def _leave(self, claimant: Claimant, at_ns: int) -> None:
        # Also where others go on: who leaves at the same instant falls off together.
        self._retire(claimant)
        self._falling.append(claimant)
        self._falling_weight += claimant.weight
        # What is told late may have fallen off long ago.
        self._fallen_ns = max(self._fallen_ns, at_ns + FALL_TIME_NS)

    def _end_fall(self) -> None:
        falling, self._falling = self._falling, []
        self._falling_weight = 0
        for claimant in falling:
            self._finish(claimant)

    def _finish(self, claimant: Claimant) -> None:
        """A claimant gets nothing more."""
        self._settling.end(claimant)
        for claim in claimant.members:
            claim.claimants.remove(claimant)
            self.touch(claim)
            if claim.own is claimant:
                claim.own = None
            if claim.stopped is not None and not claim.claimants:
                self._settling.fallen(claim)
                self._settled.append(claim)
