"""One device's account: every measured joule is booked once."""

import heapq
from collections import Counter
from dataclasses import dataclass

from greend.energy.closed_step import ClosedStep, Piece, coarse
from greend.energy.floor import FloorEstimator
from greend.energy.history import History, Taken, put_back
from greend.energy.shaping import shape
from greend.energy.sharing import WEIGHT_UNIT, Claim, Sharing
from greend.energy.timeline import Step, Timeline
from greend.model import AMOUNTS, NS_PER_S, Booking, Flag, Sample, Share, Source

# An event is (instant, kind, window). At one instant starts come before stops, as
# a window may have no length; then the id decides, so the order never depends on
# how events arrived.
_Event = tuple[int, int, str]
_START, _STOP, _END = 0, 1, 2
REBASE_NS = 3600 * NS_PER_S
_CHANGE = {_START: 1, _STOP: -1}


@dataclass(frozen=True, slots=True)
class Settled:
    """A window's share of the device that is final now."""

    window_id: str
    share: Share


class DeviceLedger:
    """Books a device's energy to its windows, to idle, to unattributed work or to a gap.

    `start` and `stop` take events in any order, early or late; `add` takes
    samples in order of time; `close` books the steps that are over. Times are
    CLOCK_MONOTONIC ns.
    """

    def __init__(
        self,
        device: str,
        begin_ns: int,
        *,
        has_counter: bool,
        remembered_floor_mw: dict[bool, float] | None = None,
    ) -> None:
        self.device = device
        self.timeline = Timeline(begin_ns, has_counter=has_counter)
        self.floor = FloorEstimator(remembered_floor_mw)
        self._history = History()
        self._sharing = Sharing()
        self._events: list[_Event] = []
        self._claims: dict[str, Claim] = {}
        # Open children by parent.
        self._children: Counter[str] = Counter()
        self._late: dict[str, list[Taken]] = {}
        self._bookings: dict[int, dict[str, float]] = {}
        # Nobody knows what was before the first step, nor just where it began.
        self._after_window = True
        self._rebased_ns = begin_ns

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

    def start(self, window_id: str, start_ns: int, weight: float, parent_id: str = "") -> None:
        """A window claims energy from `start_ns` on; its parent claims none meanwhile."""
        claim = Claim(window_id, parent_id, round(weight / WEIGHT_UNIT), start_ns)
        self._claims[window_id] = claim
        closed_ns = self.timeline.closed_until_ns
        if closed_ns is not None and start_ns < closed_ns:
            claim.facts.add(Flag.LATE)
            claim.joined_ns = closed_ns
            self._claim_late(claim, start_ns, closed_ns)
        heapq.heappush(self._events, (start_ns, _START, window_id))

    def stop(self, window_id: str, stop_ns: int) -> None:
        """A window claims nothing from `stop_ns` on."""
        claim = self._claims[window_id]
        closed_ns = self.timeline.closed_until_ns
        if closed_ns is not None and stop_ns < closed_ns:
            claim.facts.add(Flag.LATE)
            if self._sharing.is_open(window_id):
                self._give_back(claim, stop_ns, closed_ns)
            self._shorten_late(claim, stop_ns)
        heapq.heappush(self._events, (stop_ns, _STOP, window_id))

    def share(self, window_id: str) -> Share | None:
        """What a window that is not final has got so far; None if it claims nothing here."""
        claim = self._claims.get(window_id)
        return None if claim is None else self._sharing.peek(claim)

    # Steps

    def add(self, sample: Sample) -> None:
        """Takes a sample of the device."""
        self.timeline.add(sample)

    def close(self, now_ns: int, lateness_ns: int, wall_offset_ns: int) -> list[Settled]:
        """Books the steps that are over at `now_ns`; returns what became final.

        `wall_offset_ns` turns instants into Unix time, for the minute of a booking.
        """
        settled: list[Claim] = []
        for step in self.timeline.close(now_ns, lateness_ns):
            minute_s = (step.start_ns + wall_offset_ns) // NS_PER_S // 60 * 60
            settled += self._book(step, minute_s)
        for claim in settled:
            del self._claims[claim.window_id]
            self._late.pop(claim.window_id, None)
        return [Settled(claim.window_id, claim.share()) for claim in settled]

    def take_bookings(self) -> list[Booking]:
        """What was booked since the last call, by minute."""
        bookings, self._bookings = self._bookings, {}
        return [Booking(self.device, minute_s, **amounts) for minute_s, amounts in bookings.items()]

    def _book(self, step: Step, minute_s: int) -> list[Claim]:
        sharing, events = self._sharing, self._events_before(step.end_ns)
        energy_mj = step.energy_mj if step.placed and step.energy_mj is not None else None
        occupied_ns = sharing.occupied_ns(
            step.start_ns, step.end_ns, [(at_ns, _CHANGE[kind]) for at_ns, kind, _ in events]
        )
        floor_mw = self.floor.floor_mw()
        background_mw = self.floor.background_mw(step.start_ns)
        shaped = shape(step, energy_mj or 0, occupied_ns, floor_mw, background_mw)
        facts = self._facts(step, placed=energy_mj is not None, background=shaped.background > 0)
        sharing.begin_step(facts)

        windows_mj = idle_mj = 0.0
        idle_times: list[tuple[int, int]] = []
        pieces: list[Piece] = []
        touched = sharing.open_count > 0 or bool(events)
        settled: list[Claim] = []
        cursor_ns = step.start_ns

        def advance(until_ns: int) -> None:
            nonlocal windows_mj, idle_mj, cursor_ns
            if until_ns <= cursor_ns:
                return
            to_windows_mj, to_idle_mj, piece = sharing.advance(
                cursor_ns, until_ns, shaped, step.sm_clock_mhz
            )
            windows_mj += to_windows_mj
            idle_mj += to_idle_mj
            pieces.append(piece)
            if not sharing.open_count:
                idle_times.append((cursor_ns, until_ns))
            cursor_ns = until_ns

        for at_ns, kind, window_id in [*events, (step.end_ns, _END, "")]:
            # Events of one instant act together: only the passing of time settles.
            if at_ns > cursor_ns or kind == _END:
                fallen_ns = sharing.fallen_before(at_ns)
                if fallen_ns is not None:
                    advance(fallen_ns)
                    settled += sharing.settle_falling()
                advance(at_ns)
            if kind == _START:
                self._join(self._claims[window_id], cursor_ns)
            elif kind == _STOP:
                settled += self._leave(self._claims[window_id], at_ns, cursor_ns)

        sharing.end_step()
        measured_mj = float(step.energy_mj or 0)
        self._add_booking(
            minute_s,
            measured_mj=measured_mj,
            windows_mj=windows_mj,
            idle_mj=idle_mj,
            unattributed_mj=shaped.unattributed * step.duration_ns,
            gap_mj=measured_mj if energy_mj is None else 0.0,
            unknown_ns=step.unknown_ns,
        )
        self._learn_floor(step, energy_mj, occupied=occupied_ns > 0 or touched)
        self._history.append(
            ClosedStep(
                start_ns=step.start_ns,
                end_ns=step.end_ns,
                minute_unix_s=minute_s,
                floor=shaped.floor,
                device=(energy_mj or 0) / step.duration_ns,
                unattributed_mj=shaped.unattributed * step.duration_ns,
                power_limit_mw=step.power_limit_mw,
                sm_clock_mhz=step.sm_clock_mhz,
                idle_times=idle_times,
                pieces=coarse(pieces),
                facts=facts,
            )
        )
        unused = not sharing.open_count and not sharing.falling
        if unused or (step.end_ns - self._rebased_ns > REBASE_NS and not sharing.falling):
            sharing.rebase()
            self._rebased_ns = step.end_ns
        return settled

    def _join(self, claim: Claim, at_ns: int) -> None:
        self._sharing.start(claim)
        if self._children[claim.window_id]:
            self._pause(claim.window_id, at_ns)
        if claim.parent_id:
            self._children[claim.parent_id] += 1
            if self._children[claim.parent_id] == 1 and self._sharing.is_open(claim.parent_id):
                self._pause(claim.parent_id, at_ns)

    def _pause(self, window_id: str, at_ns: int) -> None:
        self._sharing.pause(window_id)
        self._claims[window_id].pauses.append((at_ns, None))

    def _leave(self, claim: Claim, at_ns: int, cursor_ns: int) -> list[Claim]:
        settled = self._sharing.stop(claim.window_id, at_ns)
        if claim.parent_id:
            self._children[claim.parent_id] -= 1
            if not self._children[claim.parent_id]:
                del self._children[claim.parent_id]
                if self._sharing.is_open(claim.parent_id):
                    self._sharing.resume(claim.parent_id)
                    pauses = self._claims[claim.parent_id].pauses
                    pauses[-1] = (pauses[-1][0], cursor_ns)
        return settled

    def _events_before(self, end_ns: int) -> list[_Event]:
        events: list[_Event] = []
        while self._events and self._events[0][0] < end_ns:
            events.append(heapq.heappop(self._events))
        return events

    def _facts(self, step: Step, *, placed: bool, background: bool) -> frozenset[Flag | Source]:
        facts: set[Flag | Source] = set()
        if step.reset:
            facts.add(Flag.COUNTER_RESET)
        if not placed:
            facts.add(Flag.GAP)
            return frozenset(facts)
        facts.add(step.source)
        if self.floor.floor_mw() is None:
            facts.add(Flag.FLOOR_UNKNOWN)
        if background:
            facts.add(Flag.SHARED_WITH_UNTRACKED)
        return frozenset(facts)

    def _learn_floor(self, step: Step, energy_mj: int | None, *, occupied: bool) -> None:
        # Steps are not located exactly: the one after a window may hold some of its work.
        if energy_mj is not None and not occupied and not self._after_window:
            power_mw = energy_mj * NS_PER_S / step.duration_ns
            self.floor.add_unoccupied(step.end_ns, power_mw, step.utilization_percent)
        self._after_window = occupied

    def _add_booking(self, minute_s: int, **amounts: float) -> None:
        booking = self._bookings.get(minute_s)
        if booking is None:
            booking = self._bookings[minute_s] = dict.fromkeys(AMOUNTS, 0.0)
        for name, amount in amounts.items():
            booking[name] += amount

    # Late events

    def _claim_late(self, claim: Claim, start_ns: int, stop_ns: int) -> None:
        """Takes from closed steps what they booked to nobody."""
        if start_ns >= stop_ns:
            return
        self.floor.retract(start_ns, stop_ns)
        for taken in self._history.take(start_ns, stop_ns):
            self._late.setdefault(claim.window_id, []).append(taken)
            self._move_late(claim, taken, +1)

    def _shorten_late(self, claim: Claim, stop_ns: int) -> None:
        """Undoes what a late start claimed after its stop, which came later still."""
        kept: list[Taken] = []
        reached_ns = stop_ns
        for taken in self._late.pop(claim.window_id, []):
            if taken.step.end_ns <= stop_ns:
                kept.append(taken)
                continue
            self._move_late(claim, taken, -1)
            put_back(taken)
            reached_ns = min(reached_ns, taken.start_ns)
        self._late[claim.window_id] = kept
        self._claim_late(claim, reached_ns, stop_ns)

    def _move_late(self, claim: Claim, taken: Taken, sign: int) -> None:
        step = taken.step
        claim.idle_mj += sign * taken.idle_mj
        claim.active_mj += sign * taken.rest_mj
        # Its own work counts whole, as in a step that is shaped in time.
        own_mj = taken.idle_mj + taken.rest_mj
        claim.device_mj += sign * max(step.device * taken.overlap_ns, own_mj)
        claim.facts |= step.facts
        if step.sm_clock_mhz is not None:
            claim.clock_mhz_ns += sign * step.sm_clock_mhz * taken.overlap_ns
            claim.clock_ns += sign * taken.overlap_ns
        self._add_booking(
            step.minute_unix_s,
            windows_mj=sign * (taken.idle_mj + taken.rest_mj),
            idle_mj=-sign * taken.idle_mj,
            unattributed_mj=-sign * taken.rest_mj,
        )

    def _give_back(self, claim: Claim, stop_ns: int, closed_ns: int) -> None:
        """Returns what an open window got in closed steps after its stop.

        Never more than it has; where it was alone, its floor was idle time.
        """
        after_ns = max(stop_ns, claim.joined_ns)
        so_far = self._sharing.peek(claim)
        idle_mj, active_mj = so_far.idle_mj, so_far.active_mj
        for step in reversed(list(self._history.overlapping(after_ns, closed_ns))):
            to_idle_mj = to_nobody_mj = 0.0
            for piece in step.pieces:
                begin_ns = max(piece.begin_ns, after_ns)
                own_ns = _open_ns(claim, begin_ns, piece.end_ns)
                floor_mj = min(own_ns * claim.weight * piece.floor, idle_mj)
                rest_mj = min(own_ns * claim.weight * piece.rest, active_mj)
                idle_mj -= floor_mj
                active_mj -= rest_mj
                claim.idle_mj -= floor_mj
                claim.active_mj -= rest_mj
                to_nobody_mj += rest_mj
                if piece.open_count == 1 and own_ns:
                    to_idle_mj += floor_mj
                    step.idle_times.append((begin_ns, piece.end_ns))
                else:
                    to_nobody_mj += floor_mj
            overlap_ns = step.end_ns - max(after_ns, step.start_ns)
            claim.device_mj -= step.device * overlap_ns
            if step.sm_clock_mhz is not None:
                claim.clock_mhz_ns -= step.sm_clock_mhz * overlap_ns
                claim.clock_ns -= overlap_ns
            step.unattributed_mj += to_nobody_mj
            self._add_booking(
                step.minute_unix_s,
                windows_mj=-(to_idle_mj + to_nobody_mj),
                idle_mj=to_idle_mj,
                unattributed_mj=to_nobody_mj,
            )


def _open_ns(claim: Claim, begin_ns: int, end_ns: int) -> int:
    """For how long of an interval a window claimed something."""
    length_ns = max(end_ns - begin_ns, 0)
    for since_ns, until_ns in claim.pauses:
        until_ns = end_ns if until_ns is None else until_ns
        length_ns -= max(min(end_ns, until_ns) - max(begin_ns, since_ns), 0)
    return max(length_ns, 0)
