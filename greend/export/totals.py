"""What only grows: counters and histograms. Pure; they belong to the event loop."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


class HeldCounter:
    """A sum that is never told to have become less.

    A late window takes joules back from idle or unattributed energy, but a counter that
    falls says that its program started again, and `rate()` would count all of it anew. So
    a fall is held back: the counter stands until later growth has made up for it.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._told = 0.0

    def add(self, delta: float) -> None:
        """Takes a change, which may be negative."""
        self._sum += delta

    def read(self) -> float:
        """The sum, or what it was told to be before if that is more."""
        self._told = max(self._told, self._sum)
        return self._told


@dataclass(frozen=True, slots=True)
class HistogramTotals:
    """Observations by bucket: `cumulative[i]` are at most `bounds[i]`, the last entry is all."""

    bounds: tuple[float, ...]
    cumulative: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """All observations."""
        return self.cumulative[-1]


class Histogram:
    """Counts observations in fixed buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Takes one value; rounding below nothing is nothing."""
        value = max(value, 0.0)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> HistogramTotals:
        """What was observed so far."""
        return HistogramTotals(self._bounds, tuple(accumulate(self._counts)), self._sum)
