"""Where the steps of an energy counter lie in time.

A poll says only that the counter advanced somewhere since the poll before. The
counter steps regularly though (FACTS.md: about every 100 ms), so each poll
narrows where all of its steps can lie: the possible phases and periods are kept
as intervals and cut down by every observation. Polls at a fixed fraction of the
period would see the same phases again and again and narrow nothing; the sampler
therefore varies its intervals.
"""

from dataclasses import dataclass

from greend.model import NS_PER_MS

# Steps of 10 to 106 ms are known; margins on both sides.
SHORTEST_PERIOD_NS = 8 * NS_PER_MS
LONGEST_PERIOD_NS = 220 * NS_PER_MS
# A step may be this far from its place in the regular grid.
JITTER_NS = 1_200_000
# Per step, how much the grid itself may wander.
WANDER_NS = 5_000


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
    def half(self) -> float:
        """How far from the middle anything within it can be."""
        return (self.high - self.low) / 2

    def meet(self, other: "Interval") -> "Interval | None":
        """What both allow, or None."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low, high) if low <= high else None


class EdgeLocator:
    """Learns period and phase of one counter from its observed advances."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.period = Interval(SHORTEST_PERIOD_NS, LONGEST_PERIOD_NS)
        # Where the last step lies in the grid, and a step long ago with the
        # number of steps since: the longer the base, the sharper the period.
        self._last: Interval | None = None
        self._anchor: Interval | None = None
        self._steps_since_anchor = 0

    def unchanged(self, duration_ns: float) -> None:
        """The counter did not advance for this long, by polls at both ends."""
        low = duration_ns - 2 * JITTER_NS
        if low > self.period.low:
            narrower = self.period.meet(Interval(low, LONGEST_PERIOD_NS))
            if narrower is None:
                self._forget()
            else:
                self.period = narrower

    def advanced(self, seen: Interval) -> None:
        """The newest step lies in `seen` (last poll without it, first poll with it)."""
        grid = Interval(seen.low - JITTER_NS, seen.high + JITTER_NS)
        if self._last is None or self._anchor is None:
            self._restart(grid)
            return
        steps = self._steps_between(self._last, grid)
        if steps is None:
            self._restart(grid)
            return
        predicted = Interval(
            self._last.low + steps * (self.period.low - WANDER_NS),
            self._last.high + steps * (self.period.high + WANDER_NS),
        )
        met = predicted.meet(grid)
        if met is None:
            self._forget()
            self._restart(grid)
            return
        self._last = met
        self._steps_since_anchor += steps
        self._narrow_period(met)

    def locate(self, seen: Interval) -> Interval:
        """Where within `seen` an observed step lies, by all that is known by now."""
        if self._last is None:
            return seen
        steps = round((self._last.middle - seen.middle) / self.period.middle)
        # Periods that disagree by half a step over that distance say nothing.
        if abs(steps) * (self.period.high - self.period.low) > self.period.low / 2:
            return seen
        back = sorted((steps * self.period.low, steps * self.period.high))
        place = Interval(
            self._last.low - back[1] - JITTER_NS, self._last.high - back[0] + JITTER_NS
        )
        return place.meet(seen) or seen

    def _restart(self, grid: Interval) -> None:
        self._last = self._anchor = grid
        self._steps_since_anchor = 0

    def _steps_between(self, last: Interval, grid: Interval) -> int | None:
        """The number of steps between two, if only one number is possible."""
        fewest = max(1, -int(-(grid.low - last.high) // self.period.high))
        most = int((grid.high - last.low) // self.period.low)
        return fewest if fewest >= most else None

    def _narrow_period(self, last: Interval) -> None:
        assert self._anchor is not None
        steps = self._steps_since_anchor
        measured = Interval(
            (last.low - self._anchor.high) / steps - WANDER_NS,
            (last.high - self._anchor.low) / steps + WANDER_NS,
        )
        narrower = self.period.meet(measured)
        if narrower is None:
            self._forget()
            self._restart(last)
        else:
            self.period = narrower
