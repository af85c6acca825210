"""One device's account: every measured joule is booked once."""

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any

import msgspec

from greend.energy.bookings import Bookings
from greend.energy.claims import WEIGHT_UNIT, Claim, Iteration, Phase
from greend.energy.closed_step import KEPT_NS, ClosedStep, Piece, coarse
from greend.energy.floor import FloorEstimator
from greend.energy.history import History
from greend.energy.late import LateEvents
from greend.energy.placement import Placement, unplaced
from greend.energy.power_model import Kind, PowerModel, kind_of
from greend.energy.saved import SavedClaim, SavedLedger, save
from greend.energy.shaping import Shape, shape
from greend.energy.sharing import Sharing, Stretch
from greend.energy.timeline import Step, Timeline
from greend.model import NS_PER_S, Booking, Flag, Sample, Share, Source

# An event is (instant, kind, whose, what). At one instant they act in the order of their
# kinds (a window, or an iteration, may be over as soon as it begins another), then of ids:
# the order never depends on how events arrived.
_Event = tuple[int, int, Any, Any]
_START, _ITERATION_END, _PHASE, _WEIGHT, _ITERATION_BEGIN, _STOP, _STEP_END = range(7)
_AT = itemgetter(0)
REBASE_NS = 3600 * NS_PER_S
# So much of a device's time may be closed between a late start and its stop.
LATE_STOP_NS = 2 * NS_PER_S


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A window's share of the device that is final now."""

    window_id: str
    share: Share


class DeviceLedger:
    """Books a device's energy to its windows, to idle, to unattributed work or to a gap.

    Events come in any order, early or late; samples, by `add`, in order of time; `close`
    books the steps that are over. Times are CLOCK_MONOTONIC ns.
    """

    def __init__(
        self,
        device: str,
        begin_ns: int,
        *,
        has_counter: bool,
        remembered_floor_mw: Mapping[bool, float] | None = None,
        set_floor_mw: Mapping[bool, float] | None = None,
    ) -> None:
        self.device = device
        self.timeline = Timeline(begin_ns, has_counter=has_counter)
        self.floor = FloorEstimator(remembered_floor_mw or {}, set_floor_mw or {})
        self._model = PowerModel()
        self._sharing = Sharing()
        self._history = History()
        self._bookings = Bookings(device)
        self._late = LateEvents(self._history, self._bookings)
        self._events: list[_Event] = []
        # Until when steps were closed when windows were told late, in that order. What they claim
        # of these waits for their stops: most are over, and who claimed all until now, to give
        # it back, would cost the more the later all are.
        self._late_starts: dict[str, int] = {}
        self._iterations = itertools.count()
        self._claims: dict[str, Claim] = {}
        # Open children by parent.
        self._children: Counter[str] = Counter()
        # Nobody knows what was before the first step, nor just where it began.
        self._after_window = True
        self._rebased_ns = begin_ns
        # The device's mean power in the last step that could be placed, in mJ/ns.
        self._last_mean = 0.0

    # From run to run

    def save(self) -> SavedLedger | None:
        """Where it is, between two steps; None before the first."""
        place = self.timeline.place
        return None if place is None else SavedLedger(place, self._last_mean, self._sharing.sums)

    def take_touched(self, wanted: Callable[[str], bool]) -> list[tuple[str, SavedClaim]]:
        """The claims, by window, to which something happened since the last call, but for
        those of windows that are not wanted any more."""
        sharing, sums = self._sharing, self._sharing.sums
        return [
            (claim.window_id, save(claim, sharing.so_far(claim), sums))
            if claim.window_id in self._claims
            else (claim.window_id, save(claim, claim, None))
            for claim in sharing.take_touched()
            if wanted(claim.window_id)
        ]

    def go_on(self, saved: SavedLedger) -> None:
        """Goes on where another ledger of the device was. Before anything else."""
        self.timeline.go_on(saved.place)
        self._last_mean = saved.last_mean

    def go_on_with(self, claim: Claim) -> None:
        """Goes on with a claim, that had got so much when steps were closed."""
        claim.joined_ns = self.begin_ns
        self._claims[claim.window_id] = claim
        self._sharing.touch(claim)  # it is to be kept with this ledger's sums
        self._push(claim.joined_ns, _START, claim.window_id)

    # Events

    @property
    def busy(self) -> bool:
        """Whether a window is open or not yet final."""
        return bool(self._claims)

    @property
    def begin_ns(self) -> int:
        """The earliest instant at which a window can start."""
        begin_ns = self._history.begin_ns
        return self.timeline.begin_ns if begin_ns is None else begin_ns

    @property
    def closed_until_ns(self) -> int:
        """Until when steps are closed."""
        closed_ns = self.timeline.closed_until_ns
        return self.timeline.begin_ns if closed_ns is None else closed_ns

    def start(
        self,
        window_id: str,
        start_ns: int,
        weight: float,
        parent_id: str = "",
        *,
        iteration_driven: bool = False,
    ) -> None:
        """A window claims energy from `start_ns` on; its parent claims none meanwhile."""
        units = round(weight / WEIGHT_UNIT)
        claim = Claim(window_id, parent_id, units, start_ns, iteration_driven)
        claim.joined_ns = start_ns
        self._claims[window_id] = claim
        closed_ns = self._closed_after(start_ns, claim)
        if closed_ns is not None:
            claim.joined_ns = closed_ns
            self._late_starts[window_id] = closed_ns
        self._push(start_ns, _START, window_id)

    def stop(self, window_id: str, stop_ns: int) -> None:
        """A window claims nothing from `stop_ns` on."""
        claim = self._claims[window_id]
        self._claim_closed(window_id, stop_ns)
        closed_ns = self._closed_after(stop_ns, claim)
        if closed_ns is not None:
            if self._sharing.is_open(window_id):
                self._sharing.bring_up([claim])
                self._late.give_back(claim, stop_ns, closed_ns)
            self._late.stop(claim, stop_ns)
        self._push(stop_ns, _STOP, window_id)

    def reweigh(self, window_id: str, at_ns: int, weight: float) -> None:
        """A window claims by another weight from `at_ns` on; late, from the first open step."""
        self._closed_after(at_ns, self._claims[window_id])
        self._push(at_ns, _WEIGHT, window_id, round(weight / WEIGHT_UNIT))

    def phase(self, window_id: str, at_ns: int, name: str) -> None:
        """A phase of a window begins at `at_ns`; the one before ends.

        Late, what closed steps gave to the window stays with the phase before.
        """
        self._closed_after(at_ns, self._claims[window_id])
        self._push(at_ns, _PHASE, window_id, name)

    def iterate(self, start_ns: int, stop_ns: int, costs: Mapping[str, float]) -> None:
        """A batch execution: its members' weights are shared out by cost while it runs.

        `stop_ns` is after `start_ns`, the sum of costs finite. Who has no claim here is left
        out.
        """
        costs = {key: cost for key, cost in costs.items() if key in self._claims}
        if not any(costs.values()):
            return
        closed_ns = self.timeline.closed_until_ns
        if closed_ns is not None and start_ns < closed_ns:
            for window_id in costs:
                self._claim_closed(window_id)
            self._iterate_late(start_ns, min(stop_ns, closed_ns), costs)
        iteration = Iteration(start_ns, stop_ns, costs, kind_of(costs))
        number = next(self._iterations)
        self._push(start_ns, _ITERATION_BEGIN, number, iteration)
        self._push(stop_ns, _ITERATION_END, number, iteration)

    def _iterate_late(self, start_ns: int, stop_ns: int, costs: Mapping[str, float]) -> None:
        """The part of an iteration that lies in closed steps."""
        members = {self._claims[key]: cost for key, cost in costs.items()}
        for claim in members:
            claim.facts.add(Flag.LATE)
            self._sharing.touch(claim)
        # Nobody claims what was before their start.
        begun = {claim: cost for claim, cost in members.items() if claim.start_ns < stop_ns}
        cost_sum = sum(begun.values())
        if cost_sum:
            self._sharing.bring_up(begun)
            parts = [(claim, cost / cost_sum) for claim, cost in begun.items()]
            first_ns = min(claim.start_ns for claim in begun)
            self._late.iterate(parts, max(start_ns, first_ns), stop_ns)

    def share(self, window_id: str) -> Share | None:
        """What a window that is not final has got so far; None if it claims nothing here."""
        self._claim_closed(window_id)
        claim = self._claims.get(window_id)
        return None if claim is None else self._sharing.peek(claim)

    def _claim_closed(self, window_id: str, stop_ns: int | None = None) -> None:
        """A late start claims closed steps, as far as it is known to have been open."""
        closed_ns = self._late_starts.pop(window_id, None)
        if closed_ns is not None:
            claim = self._claims[window_id]
            until_ns = closed_ns if stop_ns is None else min(stop_ns, closed_ns)
            self.floor.retract(claim.start_ns, until_ns)
            self._late.start(claim, claim.start_ns, until_ns)

    def _closed_after(self, at_ns: int, claim: Claim) -> int | None:
        """Until when steps are closed, if an event comes too late for them."""
        closed_ns = self.timeline.closed_until_ns
        if closed_ns is None or at_ns >= closed_ns:
            return None
        claim.facts.add(Flag.LATE)
        self._sharing.touch(claim)
        return closed_ns

    def _push(self, at_ns: int, kind: int, key: str | int, what: object = None) -> None:
        self._events.append((at_ns, kind, key, what))

    # Steps

    def add(self, sample: Sample) -> None:
        """Takes a sample of the device."""
        self.timeline.add(sample)

    def close(self, now_ns: int, lateness_ns: int, wall_offset_ns: int) -> list[Settled]:
        """Books the steps that are over at `now_ns`; returns what became final.

        `wall_offset_ns` turns instants into Unix time, for the minute of a booking.
        """
        for window_id, closed_ns in list(self._late_starts.items()):
            if closed_ns > self.closed_until_ns - LATE_STOP_NS:
                break
            self._claim_closed(window_id)
        settled: list[Claim] = []
        for step in self.timeline.close(now_ns, lateness_ns):
            minute_s = (step.start_ns + wall_offset_ns) // NS_PER_S // 60 * 60
            settled += self._book(step, minute_s)
        for claim in settled:
            del self._claims[claim.window_id]
            self._late.forget(claim)
        return [Settled(claim.window_id, claim.share()) for claim in settled]

    def take_bookings(self) -> list[Booking]:
        """What was booked since the last call, by minute."""
        return self._bookings.take()

    def _book(self, step: Step, minute_s: int) -> list[Claim]:
        sharing = self._sharing
        events = self._take_events(step.end_ns)
        if sharing.unused and not events:
            self._book_idle(step, minute_s)
            return []
        sharing.begin_step(step.start_ns)
        for at_ns, kind, key, what in events:
            sharing.advance(at_ns)
            self._act(at_ns, kind, key, what)
        sharing.advance(step.end_ns)

        placed, occupied_ns = step.placed, sharing.occupied_ns
        floor, background = self.floor.floor(step.end_ns), self.floor.background(step.start_ns)
        shaped = shape(
            step,
            _energy_mj(step),
            occupied_ns,
            None if floor is None else floor.value,
            background.value,
        )
        times_ns = dict(sharing.times_ns)
        placement = Placement(
            step, shaped, floor, background, occupied_ns, by_iterations=None not in times_ns
        )
        factors = self._model.factors(times_ns, shaped.rest, shaped.highest)
        settled = sharing.end_step(
            placement.rates(factors) if placed else unplaced(self._last_mean),
            placement.errors(
                self._model, at_begin=sharing.occupied_at_begin, at_end=sharing.occupied
            ),
            facts := self._facts(step, background=shaped.background > 0),
        )
        stretches = sharing.stretches
        open_ns = sum(one.end_ns - one.begin_ns for one in stretches if one.floor_weight)
        self._keep(
            step,
            minute_s,
            shaped,
            facts,
            windows_mj=shaped.floor * open_ns + shaped.rest * occupied_ns,
            idle_times=[(one.begin_ns, one.end_ns) for one in stretches if not one.open_count],
            pieces=coarse([_piece(one, shaped, factors) for one in stretches]),
        )
        if placed and times_ns:
            self._model.learn(times_ns, shaped.rest, placement.occupied, placement.waiting)
        self._last_mean = _energy_mj(step) / step.duration_ns if placed else self._last_mean
        self._after_window = True
        if not sharing.falling and (
            not sharing.open_count or step.end_ns - self._rebased_ns > REBASE_NS
        ):
            sharing.rebase()
            self._rebased_ns = step.end_ns
        return settled

    def _take_events(self, end_ns: int) -> list[_Event]:
        """What happened before `end_ns`, in order."""
        self._events.sort()
        count = bisect_left(self._events, end_ns, key=_AT)
        events, self._events = self._events[:count], self._events[count:]
        return events

    def _book_idle(self, step: Step, minute_s: int) -> None:
        """A step that no window touches; most are."""
        if step.recovered and step.duration_ns > KEPT_NS:
            # Nobody can tell any more when in that time it was used.
            step = replace(step, placed=False)
        energy_mj = _energy_mj(step)
        background = self.floor.background(step.start_ns)
        shaped = shape(step, energy_mj, 0, self.floor.floor_mw(), background.value)
        facts = self._facts(step, background=shaped.background > 0)
        idle_times = [(step.start_ns, step.end_ns)]
        self._keep(step, minute_s, shaped, facts, windows_mj=0.0, idle_times=idle_times, pieces=[])
        # Steps are not located exactly: the one after a window may hold some of its work.
        if step.placed:
            self._last_mean = energy_mj / step.duration_ns
            if not self._after_window:
                power_mw = energy_mj * NS_PER_S / step.duration_ns
                self.floor.add_unoccupied(
                    step.end_ns, step.duration_ns, power_mw, step.utilization_percent
                )
        self._after_window = False

    def _keep(
        self,
        step: Step,
        minute_s: int,
        shaped: Shape,
        facts: frozenset[Flag | Source],
        *,
        windows_mj: float,
        idle_times: list[tuple[int, int]],
        pieces: list[Piece],
    ) -> None:
        """Books a step, and keeps it for late events."""
        energy_mj, measured_mj = _energy_mj(step), float(step.energy_mj or 0)
        idle_ns = sum(end_ns - begin_ns for begin_ns, end_ns in idle_times)
        unattributed_mj = shaped.unattributed * step.duration_ns
        self._bookings.add(
            minute_s,
            measured_mj=measured_mj,
            windows_mj=windows_mj,
            idle_mj=shaped.floor * idle_ns,
            unattributed_mj=unattributed_mj,
            gap_mj=0.0 if step.placed else measured_mj,
            unknown_ns=step.unknown_ns,
        )
        self._history.append(
            ClosedStep(
                start_ns=step.start_ns,
                end_ns=step.end_ns,
                minute_unix_s=minute_s,
                floor=shaped.floor,
                device=energy_mj / step.duration_ns,
                unattributed_mj=unattributed_mj,
                power_limit_mw=step.power_limit_mw,
                sm_clock_mhz=step.sm_clock_mhz if step.placed else None,
                idle_times=idle_times,
                pieces=pieces,
                facts=facts,
            )
        )

    def _act(self, at_ns: int, kind: int, key: Any, what: Any) -> None:
        sharing = self._sharing
        if kind == _ITERATION_BEGIN:
            members = [self._claims[name] for name in what.costs if name in self._claims]
            sharing.begin_iteration(what, members)
        elif kind == _ITERATION_END:
            sharing.end_iteration(what)
        elif kind == _START:
            self._join(self._claims[key])
        elif not sharing.is_open(key):
            pass  # told of a time before the start or after the stop
        elif kind == _STOP:
            self._leave(self._claims[key], at_ns)
        elif kind == _WEIGHT:
            sharing.reweigh(self._claims[key], what)
        elif kind == _PHASE:
            claim = self._claims[key]
            # Told after the one that followed it, it is over.
            if not claim.phases or claim.phases[-1].start_ns <= at_ns:
                sharing.begin_phase(claim, Phase(what, at_ns))

    def _join(self, claim: Claim) -> None:
        self._sharing.start(claim)
        if self._children[claim.window_id]:
            self._sharing.pause(claim.window_id)
        if claim.parent_id:
            self._children[claim.parent_id] += 1
            if self._children[claim.parent_id] == 1 and self._sharing.is_open(claim.parent_id):
                self._sharing.pause(claim.parent_id)

    def _leave(self, claim: Claim, at_ns: int) -> None:
        self._sharing.stop(claim, at_ns)
        if claim.parent_id:
            self._children[claim.parent_id] -= 1
            if not self._children[claim.parent_id]:
                del self._children[claim.parent_id]
                if self._sharing.is_open(claim.parent_id):
                    self._sharing.resume(claim.parent_id)

    # What a step tells

    def _facts(self, step: Step, *, background: bool) -> frozenset[Flag | Source]:
        facts: set[Flag | Source] = set()
        if step.reset:
            facts.add(Flag.COUNTER_RESET)
        if step.recovered:
            facts.add(Flag.RECOVERED)
        if not step.placed:
            facts.add(Flag.GAP)
            return frozenset(facts)
        facts.add(step.source)
        if self.floor.floor_mw() is None:
            facts.add(Flag.FLOOR_UNKNOWN)
        if background:
            facts.add(Flag.SHARED_WITH_UNTRACKED)
        return frozenset(facts)


def _energy_mj(step: Step) -> float:
    """What of its energy can be placed within it."""
    return float(step.energy_mj or 0) if step.placed else 0.0


def _piece(stretch: Stretch, shaped: Shape, factors: Mapping[Kind, float]) -> Piece:
    rest = shaped.rest * factors.get(stretch.kind, 1.0)
    return Piece(
        stretch.begin_ns,
        stretch.end_ns,
        shaped.floor / stretch.floor_weight if stretch.floor_weight else 0.0,
        rest / stretch.rest_weight if stretch.rest_weight else 0.0,
        stretch.open_count,
    )
