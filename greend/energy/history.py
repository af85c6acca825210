"""Closed steps, kept for events that come late (DESIGN.md, rule 9).

A late start can only claim what closed steps booked to idle or unattributed; a
late stop gives back what its window got after it. Either way nobody else's
figures change.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from greend.energy.shaping import LIMIT_MARGIN, mw_to_rate
from greend.model import NS_PER_S, Flag, Source

KEPT_NS = 600 * NS_PER_S
MOST_PIECES = 64


class Piece(NamedTuple):
    """A part of a step in which nobody started or stopped.

    `floor` and `rest` are what one unit of weight got, in mJ/ns.
    """

    begin_ns: int
    end_ns: int
    floor: float
    rest: float
    open_count: int


def coarse(pieces: list[Piece]) -> list[Piece]:
    """At most MOST_PIECES, neighbours merged: thousands of windows may end in one step."""
    while len(pieces) > MOST_PIECES:
        pieces = [_merged(pieces[at : at + 2]) for at in range(0, len(pieces), 2)]
    return pieces


def _merged(pieces: list[Piece]) -> Piece:
    length_ns = pieces[-1].end_ns - pieces[0].begin_ns
    return Piece(
        pieces[0].begin_ns,
        pieces[-1].end_ns,
        sum(piece.floor * (piece.end_ns - piece.begin_ns) for piece in pieces) / length_ns,
        sum(piece.rest * (piece.end_ns - piece.begin_ns) for piece in pieces) / length_ns,
        max(piece.open_count for piece in pieces),
    )


@dataclass(slots=True)
class ClosedStep:
    """What a booked step still has for late windows.

    `idle_times` are the times of which the floor was booked to idle;
    `unattributed_mj` is what nobody had. `pieces` are the times between its events.
    """

    start_ns: int
    end_ns: int
    minute_unix_s: int
    floor: float
    device: float
    unattributed_mj: float
    power_limit_mw: int | None
    sm_clock_mhz: float | None
    idle_times: list[tuple[int, int]]
    pieces: list["Piece"]
    facts: frozenset[Flag | Source]


@dataclass(slots=True)
class Taken:
    """What a late window took of one closed step."""

    step: ClosedStep
    start_ns: int
    times: list[tuple[int, int]] = field(default_factory=list)
    overlap_ns: int = 0
    idle_mj: float = 0.0
    rest_mj: float = 0.0


class History:
    """The closed steps of the last ten minutes."""

    def __init__(self) -> None:
        self._steps: deque[ClosedStep] = deque()

    def append(self, step: ClosedStep) -> None:
        """Keeps a step, and forgets those that are too old."""
        self._steps.append(step)
        while self._steps[0].end_ns < step.end_ns - KEPT_NS:
            self._steps.popleft()

    @property
    def begin_ns(self) -> int | None:
        """The earliest instant that a late event can reach."""
        return self._steps[0].start_ns if self._steps else None

    def overlapping(self, start_ns: int, stop_ns: int) -> Iterator[ClosedStep]:
        """The steps that share time with an interval, in order."""
        first = bisect_right(self._steps, start_ns, key=lambda step: step.end_ns)
        for place in range(first, len(self._steps)):
            if self._steps[place].start_ns >= stop_ns:
                return
            yield self._steps[place]

    def take(self, start_ns: int, stop_ns: int) -> list[Taken]:
        """Takes for a late window what is left in an interval."""
        return [
            _take_of(step, max(start_ns, step.start_ns), min(stop_ns, step.end_ns))
            for step in self.overlapping(start_ns, stop_ns)
        ]


def _take_of(step: ClosedStep, start_ns: int, stop_ns: int) -> Taken:
    taken = Taken(step, start_ns, overlap_ns=stop_ns - start_ns)
    left: list[tuple[int, int]] = []
    for begin_ns, end_ns in step.idle_times:
        low_ns, high_ns = max(begin_ns, start_ns), min(end_ns, stop_ns)
        if low_ns >= high_ns:
            left.append((begin_ns, end_ns))
            continue
        taken.times.append((low_ns, high_ns))
        left += [piece for piece in ((begin_ns, low_ns), (high_ns, end_ns)) if piece[0] < piece[1]]
    step.idle_times = left
    taken.idle_mj = step.floor * sum(high_ns - low_ns for low_ns, high_ns in taken.times)
    taken.rest_mj = step.unattributed_mj
    if step.power_limit_mw is not None:
        highest = mw_to_rate(step.power_limit_mw) * LIMIT_MARGIN - step.floor
        taken.rest_mj = min(taken.rest_mj, max(highest, 0.0) * taken.overlap_ns)
    step.unattributed_mj -= taken.rest_mj
    return taken


def put_back(taken: Taken) -> None:
    """Undoes a `take` of one step."""
    taken.step.idle_times += taken.times
    taken.step.unattributed_mj += taken.rest_mj
