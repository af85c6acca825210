"""Closed steps, kept for events that come late (late.py)."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from greend.energy.closed_step import KEPT_NS, ClosedStep, pack, span, unpack
from greend.energy.shaping import LIMIT_MARGIN, mw_to_rate


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
    """The closed steps of the last ten minutes, packed but for those that were touched since."""

    def __init__(self) -> None:
        self._steps: deque[bytes | ClosedStep] = deque()

    def append(self, step: ClosedStep) -> None:
        """Keeps a step, and forgets those that are too old."""
        self._steps.append(pack(step) or step)
        while _span(self._steps[0])[1] < step.end_ns - KEPT_NS:
            self._steps.popleft()

    @property
    def begin_ns(self) -> int | None:
        """The earliest instant that a late event can reach."""
        return _span(self._steps[0])[0] if self._steps else None

    def overlapping(self, start_ns: int, stop_ns: int) -> Iterator[ClosedStep]:
        """The steps that share time with an interval, in order."""
        first = bisect_right(self._steps, start_ns, key=lambda step: _span(step)[1])
        for place in range(first, len(self._steps)):
            step = self._steps[place]
            if _span(step)[0] >= stop_ns:
                return
            if isinstance(step, bytes):
                step = self._steps[place] = unpack(step)
            yield step

    def take(self, start_ns: int, stop_ns: int, *, idle: bool) -> list[Taken]:
        """Takes for a late event what is left in an interval, with or without idle time."""
        return [
            _take_of(step, max(start_ns, step.start_ns), min(stop_ns, step.end_ns), idle=idle)
            for step in self.overlapping(start_ns, stop_ns)
        ]


def _take_of(step: ClosedStep, start_ns: int, stop_ns: int, *, idle: bool) -> Taken:
    taken = Taken(step, start_ns, overlap_ns=stop_ns - start_ns)
    if idle:
        _take_idle(taken, stop_ns)
    taken.rest_mj = step.unattributed_mj
    if step.power_limit_mw is not None:
        highest = mw_to_rate(step.power_limit_mw) * LIMIT_MARGIN - step.floor
        taken.rest_mj = min(taken.rest_mj, max(highest, 0.0) * taken.overlap_ns)
    step.unattributed_mj -= taken.rest_mj
    return taken


def _take_idle(taken: Taken, stop_ns: int) -> None:
    left: list[tuple[int, int]] = []
    for begin_ns, end_ns in taken.step.idle_times:
        low_ns, high_ns = max(begin_ns, taken.start_ns), min(end_ns, stop_ns)
        if low_ns >= high_ns:
            left.append((begin_ns, end_ns))
            continue
        taken.times.append((low_ns, high_ns))
        left += [piece for piece in ((begin_ns, low_ns), (high_ns, end_ns)) if piece[0] < piece[1]]
    taken.step.idle_times = left
    taken.idle_mj = taken.step.floor * sum(high_ns - low_ns for low_ns, high_ns in taken.times)


def put_back(taken: Taken) -> None:
    """Undoes a `take` of one step."""
    taken.step.idle_times += taken.times
    taken.step.unattributed_mj += taken.rest_mj


def _span(step: bytes | ClosedStep) -> tuple[int, int]:
    return span(step) if isinstance(step, bytes) else (step.start_ns, step.end_ns)
