"""Events that come after their time was booked (DESIGN.md, rule 9).

A late start or iteration can only claim what closed steps booked to idle or to
unattributed; a late stop gives back what its window got after it. Either way nobody
else's figures change.
"""

from collections import defaultdict
from collections.abc import Sequence

from greend.energy.bookings import Bookings
from greend.energy.claims import Claim, Tally
from greend.energy.closed_step import ClosedStep
from greend.energy.history import History, Taken, put_back

# Nobody knows what of a step's unattributed energy a late window used: half of it, give or
# take (1 σ).
UNKNOWN_PART = 0.5


class LateEvents:
    """What late windows took of closed steps, until they are final."""

    def __init__(self, history: History, bookings: Bookings) -> None:
        self._history = history
        self._bookings = bookings
        self._taken: defaultdict[str, list[Taken]] = defaultdict(list)

    def forget(self, claim: Claim) -> None:
        """A claim is final."""
        self._taken.pop(claim.window_id, None)

    def start(self, claim: Claim, start_ns: int, stop_ns: int) -> None:
        """Takes from closed steps what they booked to nobody."""
        if start_ns >= stop_ns:
            return
        for taken in self._history.take(start_ns, stop_ns, idle=True):
            self._taken[claim.window_id].append(taken)
            self._move(claim, taken, 1.0)

    def iterate(self, parts: Sequence[tuple[Claim, float]], start_ns: int, stop_ns: int) -> None:
        """Takes for the members of an iteration, by parts that sum to 1, no idle time."""
        for taken in self._history.take(start_ns, stop_ns, idle=False):
            for claim, part in parts:
                _add(claim, 0.0, part * taken.rest_mj)
            self._bookings.move(taken.step, windows_mj=taken.rest_mj, idle_mj=0.0)

    def stop(self, claim: Claim, stop_ns: int) -> None:
        """Undoes what a late start claimed after its stop, which came later still."""
        kept: list[Taken] = []
        reached_ns = stop_ns
        for taken in self._taken.pop(claim.window_id, []):
            if taken.step.end_ns <= stop_ns:
                kept.append(taken)
                continue
            self._move(claim, taken, -1.0)
            put_back(taken)
            reached_ns = min(reached_ns, taken.start_ns)
        self._taken[claim.window_id] = kept
        self.start(claim, reached_ns, stop_ns)

    def give_back(self, claim: Claim, stop_ns: int, closed_ns: int) -> None:
        """Returns what an open window got in closed steps after its stop.

        It has to be brought up before, as it never gives more than it has got; where
        it was alone, its floor was idle time. What it got in iterations stays.
        """
        after_ns = max(stop_ns, claim.joined_ns)
        idle_mj, active_mj = claim.whole.idle_mj, claim.whole.active_mj
        for step in reversed(list(self._history.overlapping(after_ns, closed_ns))):
            to_idle_mj = to_nobody_mj = 0.0
            for piece in step.pieces:
                begin_ns = max(piece.begin_ns, after_ns)
                if begin_ns >= piece.end_ns:
                    continue
                claimed = claim.weight_ns(begin_ns, piece.end_ns)
                rest = 0.0 if claim.iteration_driven else piece.rest
                floor_mj = min(claimed * piece.floor, idle_mj)
                rest_mj = min(claimed * rest, active_mj)
                idle_mj -= floor_mj
                active_mj -= rest_mj
                _add(claim, -floor_mj, -rest_mj)
                to_nobody_mj += rest_mj
                if piece.open_count == 1 and claimed:
                    to_idle_mj += floor_mj
                    step.idle_times.append((begin_ns, piece.end_ns))
                else:
                    to_nobody_mj += floor_mj
            _see(claim, step, step.end_ns - max(after_ns, step.start_ns), -1.0)
            step.unattributed_mj += to_nobody_mj
            self._bookings.move(step, windows_mj=-(to_idle_mj + to_nobody_mj), idle_mj=to_idle_mj)

    def _move(self, claim: Claim, taken: Taken, sign: float) -> None:
        _add(claim, sign * taken.idle_mj, sign * taken.rest_mj)
        _see(claim, taken.step, taken.overlap_ns, sign)
        # Its own work counts whole, as in a step that is shaped in time.
        own_mj = taken.idle_mj + taken.rest_mj
        claim.device_mj += sign * max(own_mj - taken.step.device * taken.overlap_ns, 0.0)
        claim.facts |= taken.step.facts
        self._bookings.move(taken.step, windows_mj=sign * own_mj, idle_mj=-sign * taken.idle_mj)


def _add(claim: Claim, idle_mj: float, active_mj: float) -> None:
    """Adds to what a claim has got; what it loses is the last phases' first."""
    variance = (UNKNOWN_PART * active_mj) ** 2
    for tally in claim.tallies:
        tally.idle_mj += idle_mj
        tally.active_mj += active_mj
        tally.variance += variance
    _carry([phase.tally for phase in claim.phases])


def _carry(tallies: Sequence[Tally]) -> None:
    """Takes from the phase before what one does not have."""
    for before, tally in zip(tallies[-2::-1], tallies[:0:-1], strict=True):
        lacking_mj, tally.idle_mj = min(tally.idle_mj, 0.0), max(tally.idle_mj, 0.0)
        before.idle_mj += lacking_mj
        lacking_mj, tally.active_mj = min(tally.active_mj, 0.0), max(tally.active_mj, 0.0)
        before.active_mj += lacking_mj


def _see(claim: Claim, step: ClosedStep, time_ns: int, sign: float) -> None:
    claim.device_mj += sign * step.device * time_ns
    if step.sm_clock_mhz is not None:
        claim.clock_mhz_ns += sign * step.sm_clock_mhz * time_ns
        claim.clock_ns += sign * time_ns
