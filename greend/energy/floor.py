"""The floor (power with nobody working) and the background (work nobody measures)."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from greend.model import NS_PER_S

# The floor drifts by watts in minutes: about a minute's steps are its estimate.
RECENT_FLOOR_NS = 60 * NS_PER_S
# Processes come and go, and their work comes in bursts: the background is the mean over so
# much unoccupied time, seen so lately.
RECENT_BACKGROUND_NS = 30 * NS_PER_S
BACKGROUND_NS = 2 * NS_PER_S
# What exceeds the floor by less is noise.
LEAST_BACKGROUND = 0.03
# Fewer say nothing: steps are not located exactly at first, and utilization lags
# behind the power.
FEWEST_FLOOR_STEPS = 3
FEWEST_BACKGROUND_STEPS = 3
# How fast a floor may drift away from what was seen, and how far (3 W in 2 minutes).
DRIFT_MW_S = 25.0
FARTHEST_DRIFT = 0.1
# The standard error of a median is so many times that of the mean.
MEDIAN_FACTOR = 1.25


@dataclass(frozen=True, slots=True)
class Estimate:
    """A power in mW: `error` is a 95 % bound on it, `scatter` how much one step deviates (1 σ)."""

    value: float
    error: float
    scatter: float


class _RecentMedian:
    """The median of what was seen lately; kept sorted, as it is asked for at every step."""

    def __init__(
        self,
        recent_ns: int,
        fewest: int,
        remembered: float | None = None,
        fixed: float | None = None,
    ) -> None:
        self._recent_ns = recent_ns
        self._fewest = fewest
        # Decided, whatever is seen.
        self._fixed = fixed
        self._seen: deque[tuple[int, float]] = deque()
        self._sorted: list[float] = []
        # Until enough was seen.
        self._before = remembered

    def add(self, now_ns: int, value: float) -> None:
        self._seen.append((now_ns, value))
        insort(self._sorted, value)
        while self._seen[0][0] < now_ns - self._recent_ns:
            _, old = self._seen.popleft()
            if len(self._sorted) == self._fewest:
                self._before = self._median
            del self._sorted[bisect_left(self._sorted, old)]

    def remove(self, start_ns: int, end_ns: int) -> None:
        kept = [item for item in self._seen if not start_ns < item[0] <= end_ns]
        if len(kept) < len(self._seen):
            self._seen = deque(kept)
            self._sorted = sorted(value for _, value in kept)
            if kept:
                self._before = self._median

    @property
    def value(self) -> float | None:
        if self._fixed is not None:
            return self._fixed
        return self._median if len(self._sorted) >= self._fewest else self._before

    def estimate(self, now_ns: int) -> Estimate | None:
        """The median and how far to trust it; what is only remembered, a tenth."""
        value = self.value
        if value is None:
            return None
        count = len(self._sorted)
        farthest = FARTHEST_DRIFT * abs(value)
        if count < self._fewest:
            return Estimate(value, 0.0 if self._fixed is not None else farthest, farthest)
        # Half of what lies between the 16th and the 84th percentile: 1 σ, whatever lies outside.
        scatter = (self._sorted[-1 - count // 6] - self._sorted[count // 6]) / 2
        if self._fixed is not None:
            return Estimate(value, 0.0, scatter)
        age_s = (now_ns - (self._seen[0][0] + self._seen[-1][0]) / 2) / NS_PER_S
        drift = min(DRIFT_MW_S * age_s, farthest)
        return Estimate(value, 2 * MEDIAN_FACTOR * scatter / sqrt(count) + drift, scatter)

    @property
    def _median(self) -> float:
        ordered, half = self._sorted, len(self._sorted) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


class _RecentMean:
    """The mean, by time, of what was seen in the last `length_ns` of time that counts."""

    def __init__(self, length_ns: int, fewest: int) -> None:
        self._length_ns = length_ns
        self._fewest = fewest
        # Ends, lengths, values.
        self._seen: deque[tuple[int, int, float]] = deque()
        self._total_ns = 0

    def add(self, end_ns: int, length_ns: int, value: float) -> None:
        self._seen.append((end_ns, length_ns, value))
        self._total_ns += length_ns
        while len(self._seen) > self._fewest and (
            self._total_ns - self._seen[0][1] >= self._length_ns
        ):
            self._total_ns -= self._seen.popleft()[1]

    def remove(self, start_ns: int, end_ns: int) -> None:
        self._seen = deque(item for item in self._seen if not start_ns < item[0] <= end_ns)
        self._total_ns = sum(length_ns for _, length_ns, _ in self._seen)

    def estimate(self, now_ns: int, recent_ns: int) -> Estimate | None:
        if len(self._seen) < self._fewest or self._seen[-1][0] < now_ns - recent_ns:
            return None
        mean = sum(length * value for _, length, value in self._seen) / self._total_ns
        squares = sum(length * (value - mean) ** 2 for _, length, value in self._seen)
        scatter = sqrt(squares / self._total_ns)
        return Estimate(mean, 2 * scatter / sqrt(len(self._seen)), scatter)


NO_BACKGROUND = Estimate(0.0, 0.0, 0.0)


class FloorEstimator:
    """Learns from steps in which no window was open.

    One floor is kept without and one with a live compute context, as the context
    alone draws tens of watts. `remembered_mw` are the last run's, by context state;
    those in `set_mw` are not learnt.
    """

    def __init__(self, remembered_mw: Mapping[bool, float], set_mw: Mapping[bool, float]) -> None:
        self._floors = {
            state: _RecentMedian(
                RECENT_FLOOR_NS, FEWEST_FLOOR_STEPS, remembered_mw.get(state), set_mw.get(state)
            )
            for state in (False, True)
        }
        self._background = _RecentMean(BACKGROUND_NS, FEWEST_BACKGROUND_STEPS)
        self.context_alive = False

    def add_unoccupied(
        self, now_ns: int, length_ns: int, power_mw: float, utilization_percent: int | None
    ) -> None:
        """Takes the mean power of a step that no window touched.

        Without utilization, what exceeds a floor that is known counts as
        background only if it exceeds it clearly; else the floor would never
        follow its own drift.
        """
        floor = self._floors[self.context_alive]
        busy = utilization_percent is not None and utilization_percent > 0
        if utilization_percent is None and floor.value is not None:
            busy = power_mw > 1.25 * floor.value
        if not busy:
            floor.add(now_ns, power_mw)
            self._background.add(now_ns, length_ns, 0.0)
        elif floor.value is not None:
            self._background.add(now_ns, length_ns, power_mw - floor.value)

    def retract(self, start_ns: int, end_ns: int) -> None:
        """A window that was told late covers this time: it was not unoccupied."""
        self._background.remove(start_ns, end_ns)
        for floor in self._floors.values():
            floor.remove(start_ns, end_ns)

    def floor_mw(self, *, context_alive: bool | None = None) -> float | None:
        """The floor in the given context state (the present one if not given)."""
        state = self.context_alive if context_alive is None else context_alive
        return self._floors[state].value

    def floor(self, now_ns: int) -> Estimate | None:
        """The floor in the present context state."""
        return self._floors[self.context_alive].estimate(now_ns)

    def background(self, now_ns: int) -> Estimate:
        """Power above the floor lately drawn while no window was open; 0 if that is long ago."""
        seen = self._background.estimate(now_ns, RECENT_BACKGROUND_NS)
        floor = self._floors[self.context_alive].value
        if seen is None or floor is None:
            return NO_BACKGROUND
        if seen.value < max(seen.error, LEAST_BACKGROUND * floor):
            # Noise, or bursts that hardly began: none is taken off, and some may be there.
            return Estimate(0.0, max(seen.value, 0.0) + seen.error, seen.scatter)
        return seen
