"""Where the steps of an energy counter lie in time.

A poll says only that the counter advanced somewhere since the poll before. The counter
steps regularly though (FACTS.md: about every 100 ms), so what many polls say together is
far sharper than each. First the possible periods are kept as an interval, cut down by
every observation; as soon as they tell steps from each other, a filter follows phase and
period (a Kalman filter that takes intervals for measurements). Polls at a fixed fraction
of the period would see the same phases again and again; the sampler therefore varies its
intervals.
"""

from dataclasses import dataclass
from math import erf, exp, floor, pi, sqrt

from greend.model import NS_PER_MS

# Steps of 10 to 106 ms are known; margins on both sides.
SHORTEST_PERIOD_NS = 8 * NS_PER_MS
LONGEST_PERIOD_NS = 220 * NS_PER_MS
# A step may be this far from its place in the regular grid; 1 σ of that.
JITTER_NS = 1_200_000
JITTER_SIGMA_NS = 600_000.0
# Per step, how much the grid itself may wander (1 σ).
WANDER_NS = 3_000.0
# The period is known well enough to follow the grid when it is known to this fraction.
KNOWN_PERIOD = 0.05
# Steps cannot be counted when the phase is uncertain by so many periods (1 σ).
LOST = 0.125
# An interval so long (in periods) says nothing of the phase.
USELESS = 0.9
# Sharper than this polls make it only slowly.
SHARP_NS = 2_000_000.0
# A step that is so unlikely is another grid's; so many make one.
UNLIKELY, MOST_UNLIKELY = 1e-4, 3


@dataclass(frozen=True, slots=True)
class Interval:
    """Instants (or lengths) from `low` to `high`, in ns."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The best guess within the interval."""
        return (self.low + self.high) / 2

    @property
    def sigma(self) -> float:
        """The standard deviation, if anything within it is as likely."""
        return (self.high - self.low) / sqrt(12)

    def meet(self, other: "Interval") -> "Interval | None":
        """What both allow, or None."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low, high) if low <= high else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is, and how far it may be from there (1 σ), in ns."""

    at_ns: float
    sigma_ns: float


class EdgeLocator:
    """Learns period and phase of one counter from its observed advances."""

    def __init__(self) -> None:
        self._finder = _PeriodFinder()
        self._grid: _Grid | None = None
        self._unlikely = 0

    @property
    def longest_period_ns(self) -> float:
        """The counter advances at least this often."""
        return self._finder.period.high if self._grid is None else self._grid.longest_ns

    @property
    def sharp(self) -> bool:
        """Whether the next step is known about as well as steps lie in their grid."""
        return self._grid is not None and self._grid.sigma_ns < SHARP_NS

    def unchanged(self, duration_ns: float) -> None:
        """The counter did not advance for this long, by polls at both ends."""
        if self._grid is None:
            self._finder.unchanged(duration_ns)
        elif duration_ns > self._grid.longest_ns:
            self._doubt()

    def advanced(self, seen: Interval) -> None:
        """The newest step lies in `seen` (last poll without it, first poll with it)."""
        if self._grid is not None:
            if self._grid.advance(seen):
                self._unlikely = 0
            else:
                self._doubt()
            return
        self._finder.advanced(seen)
        period = self._finder.period
        if period.high - period.low < KNOWN_PERIOD * period.middle:
            self._grid = _Grid(seen, period)

    def locate(self, seen: Interval) -> list[Place]:
        """Where within `seen` an observed step lies, by all that is known by now.

        More than one place where it may be this step of the grid or that.
        """
        places = [] if self._grid is None else self._grid.locate(seen)
        return places or [Place(seen.middle, seen.sigma)]

    def _doubt(self) -> None:
        self._unlikely += 1
        if self._unlikely >= MOST_UNLIKELY:
            self.__init__()  # type: ignore[misc]


class _Grid:
    """Follows the phase and period of regular steps that are seen in intervals."""

    def __init__(self, seen: Interval, period: Interval) -> None:
        self._phase = seen.middle
        self._period = period.middle
        # Covariance of phase and period.
        self._pp = seen.sigma**2
        self._pt = 0.0
        self._tt = period.sigma**2

    @property
    def sigma_ns(self) -> float:
        return sqrt(self._pp)

    @property
    def longest_ns(self) -> float:
        return self._period + 4 * sqrt(self._tt) + 2 * JITTER_NS

    def advance(self, seen: Interval) -> bool:
        """Takes the newest step; False if it is not of this grid."""
        steps = max(self._steps_to(seen), 1)
        phase = self._phase + steps * self._period
        pp = self._pp + 2 * steps * self._pt + steps**2 * self._tt + steps * WANDER_NS**2
        pt = self._pt + steps * self._tt
        if pp > (LOST * self._period) ** 2:
            # Nobody knows how many steps it were: the phase is learnt anew, the period holds.
            phase, pp, pt = seen.middle, seen.sigma**2, 0.0
        elif not self._wide(seen):
            variance = pp + JITTER_SIGMA_NS**2
            within = _within(phase, variance, seen)
            if within is None:
                return False
            gain, period_gain = pp / variance, pt / variance
            moved = within.at_ns - phase
            learnt = variance - within.sigma_ns**2
            phase += gain * moved
            self._period += period_gain * moved
            pp -= gain**2 * learnt
            pt -= gain * period_gain * learnt
            self._tt -= period_gain**2 * learnt
        self._phase, self._pp, self._pt = phase, pp, pt
        return True

    def _wide(self, seen: Interval) -> bool:
        return seen.high - seen.low >= USELESS * self._period

    def _steps_to(self, seen: Interval) -> int:
        """How many steps after the last one taken (or before) the one in `seen` is."""
        if self._wide(seen):  # of several, the counter shows the last
            return floor((seen.high - self._phase) / self._period)
        return round((seen.middle - self._phase) / self._period)

    def locate(self, seen: Interval) -> list[Place]:
        """Where within `seen` a step may lie; nowhere if it is not of this grid."""
        steps = self._steps_to(seen)
        # Of several the counter shows the last, which may have come just in time, or not.
        places = [
            self._place(steps + more, seen) for more in (range(2) if self._wide(seen) else [0])
        ]
        return [place for place in places if place is not None]

    def _place(self, steps: int, seen: Interval) -> Place | None:
        phase = self._phase + steps * self._period
        variance = self._pp + 2 * steps * self._pt + steps**2 * self._tt
        return _within(phase, variance + JITTER_SIGMA_NS**2, seen)


def _within(middle: float, variance: float, seen: Interval) -> Place | None:
    """Mean and deviation of a normal distribution cut to an interval; None if hardly possible."""
    sigma = sqrt(variance)
    low, high = (seen.low - middle) / sigma, (seen.high - middle) / sigma
    likely = (erf(high / sqrt(2)) - erf(low / sqrt(2))) / 2
    if likely < UNLIKELY:
        return None
    at_low, at_high = exp(-low * low / 2) / sqrt(2 * pi), exp(-high * high / 2) / sqrt(2 * pi)
    mean = (at_low - at_high) / likely
    spread = 1 + (low * at_low - high * at_high) / likely - mean * mean
    return Place(middle + sigma * mean, sigma * sqrt(max(spread, 0.0)))


class _PeriodFinder:
    """Finds the period: first nothing is known of it."""

    def __init__(self) -> None:
        self.period = Interval(SHORTEST_PERIOD_NS, LONGEST_PERIOD_NS)
        # Where the last step lies in the grid, and a step long ago with the
        # number of steps since: the longer the base, the sharper the period.
        self._last: Interval | None = None
        self._anchor: Interval | None = None
        self._steps_since_anchor = 0

    def unchanged(self, duration_ns: float) -> None:
        low = duration_ns - 2 * JITTER_NS
        if low > self.period.low:
            self._narrow(Interval(low, LONGEST_PERIOD_NS))

    def advanced(self, seen: Interval) -> None:
        grid = Interval(seen.low - JITTER_NS, seen.high + JITTER_NS)
        steps = None if self._last is None else self._steps_between(self._last, grid)
        if self._last is None or self._anchor is None or steps is None:
            self._restart(grid)
            return
        predicted = Interval(
            self._last.low + steps * self.period.low, self._last.high + steps * self.period.high
        )
        met = predicted.meet(grid)
        if met is None:
            self.__init__()  # type: ignore[misc]
            self._restart(grid)
            return
        self._last = met
        self._steps_since_anchor += steps
        count = self._steps_since_anchor
        measured = Interval(
            (met.low - self._anchor.high) / count, (met.high - self._anchor.low) / count
        )
        if not self._narrow(measured):
            self._restart(met)

    def _narrow(self, by: Interval) -> bool:
        narrower = self.period.meet(by)
        if narrower is None:
            self.__init__()  # type: ignore[misc]
            return False
        self.period = narrower
        return True

    def _restart(self, grid: Interval) -> None:
        self._last = self._anchor = grid
        self._steps_since_anchor = 0

    def _steps_between(self, last: Interval, grid: Interval) -> int | None:
        """The number of steps between two, if only one number is possible."""
        fewest = max(1, -int(-(grid.low - last.high) // self.period.high))
        most = int((grid.high - last.low) // self.period.low)
        return fewest if fewest >= most else None
