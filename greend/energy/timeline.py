"""A device's measured energy by step, from samples as they come."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from greend.energy.edges import EdgeLocator, Interval, Place
from greend.model import NS_PER_MS, NS_PER_S, Sample, Source

SILENCE_NS = 5 * NS_PER_S
USUAL_PERIOD_NS = 100 * NS_PER_MS
# More than any board draws: what exceeds it is no measurement.
ABSURD_POWER_MW = 5_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """The energy between two advances of a device's counter.

    `energy_mj` is None when it is not known (yet): a silent or reset sensor.
    `placed` is False when it is not known, or when in the step it was used is not.
    `recovered`: it bridges a restart of the daemon. `unknown_ns` is time whose energy will
    never be known. `start_error_ns` and `end_error_ns` are how far its ends may lie from
    where they were found, `noise_mj` how far integrated power may be from what was used
    (1 σ).
    `utilization_percent` is the highest seen in the step, `sm_clock_mhz` the mean.
    """

    start_ns: int
    end_ns: int
    energy_mj: int | None
    source: Source = Source.ENERGY_COUNTER
    placed: bool = True
    reset: bool = False
    recovered: bool = False
    unknown_ns: int = 0
    utilization_percent: int | None = None
    sm_clock_mhz: float | None = None
    power_limit_mw: int | None = None
    start_error_ns: float = 0.0
    end_error_ns: float = 0.0
    noise_mj: float = 0.0

    @property
    def duration_ns(self) -> int:
        """Its length."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class TimelinePlace:
    """Until when steps were closed, how far that may be off (1 σ), what the counter said then.

    `silent`: nothing is known of the time just before.
    """

    closed_until_ns: int
    closed_error_ns: float
    energy_mj: int
    silent: bool


@dataclass(slots=True)
class _Edge:
    """An advance of the counter: up to here this much energy was used."""

    seen: Interval
    energy_mj: int
    reset: bool = False
    unknown: bool = False
    recovered: bool = False
    utilization_percent: int | None = None
    clock_sum_mhz: int = 0
    clock_count: int = 0
    power_limit_mw: int | None = None
    noise_mj: float = 0.0


class Timeline:
    """Makes steps out of samples: by the counter, or else by integrating power.

    Samples come in order of time. A step is given out once, by `close`, when its
    end has been seen and the lateness allowance is over.
    """

    def __init__(self, begin_ns: int, *, has_counter: bool) -> None:
        self._source = Source.ENERGY_COUNTER if has_counter else Source.POWER
        self._locator = EdgeLocator()
        self._edges: deque[_Edge] = deque()
        self._last: Sample | None = None
        self._changed_ns = begin_ns
        self._silent = False
        self._integrated_pj = 0
        self._pending = _Edge(Interval(0, 0), 0)
        self.begin_ns = begin_ns
        # The end of the last step given out, and how far it may be from there.
        self.closed_until_ns: int | None = None
        self._closed_error_ns = 0.0
        # The mean power of the last step that could be placed, in mJ/ns.
        self._mean: float | None = None
        # No step is closed: what happened in the next one may still be told.
        self.held = False

    @property
    def place(self) -> TimelinePlace | None:
        """Where it is, to go on from there later; None before the first step."""
        if self.closed_until_ns is None or not self._edges:
            return None
        edge = self._edges[0]
        return TimelinePlace(
            self.closed_until_ns, self._closed_error_ns, edge.energy_mj, self._silent
        )

    def go_on(self, place: TimelinePlace) -> None:
        """Goes on where another timeline of the device was. Before the first sample.

        The step that bridges the time between stays open while `held`.
        """
        self.begin_ns = self.closed_until_ns = place.closed_until_ns
        self._closed_error_ns, self._silent = place.closed_error_ns, place.silent
        at_ns = place.closed_until_ns
        self._edges.append(_Edge(Interval(at_ns, at_ns), place.energy_mj))
        self._pending.recovered = True
        self.held = True

    @property
    def sharp(self) -> bool:
        """Whether steps are located as well as they can be; if not, more samples help."""
        return self._source is Source.POWER or self._locator.sharp

    def add(self, sample: Sample) -> None:
        """Takes a sample; one without energy (or power) says only how busy the device was."""
        self._note_activity(sample)
        energy_mj = self._total_mj(sample)
        if energy_mj is None:
            return
        now = sample.monotonic_ns
        if self._last is None:
            self._begin(now, energy_mj)
        elif self._source is Source.POWER:
            # Power that nobody read for so long is not known by the readings around it.
            silent = now - self._last.monotonic_ns >= SILENCE_NS
            self._append(Interval(now, now), energy_mj, unknown=silent)
        else:
            # The readings were taken at some time within their calls.
            low = self._last.monotonic_ns - self._last.call_ns / 2
            high = now + sample.call_ns / 2
            seen = Interval(max(low, high - self._locator.longest_period_ns), high)
            if energy_mj == self._edges[-1].energy_mj:
                self._locator.unchanged(now - sample.call_ns / 2 - self._changed_ns)
            else:
                self._advance(seen, energy_mj)
        self._last = sample

    def _advance(self, seen: Interval, energy_mj: int) -> None:
        """The counter shows something else than before."""
        before = self._edges[-1]
        # A counter that stood still may catch up.
        since_ns = seen.high - before.seen.high + NS_PER_S
        sane = 0 < energy_mj - before.energy_mj <= since_ns * ABSURD_POWER_MW / NS_PER_S
        if sane and not self._pending.recovered:
            self._locator.advanced(seen)
        self._append(seen, energy_mj, reset=not sane)

    def close(self, now_ns: int, lateness_ns: int) -> Iterator[Step]:
        """Steps whose end the sensor has passed and whose allowance is over."""
        if self.held:
            return
        while len(self._edges) >= 2:
            edge = self._edges[1]
            if edge.seen.high + lateness_ns > now_ns:
                return
            yield self._close_edge(edge)
        yield from self._close_silence(now_ns, lateness_ns)

    def _close_edge(self, edge: _Edge) -> Step:
        before = self._edges.popleft()
        start_ns = self.closed_until_ns
        if start_ns is None:
            start = self._locator.locate(before.seen)[0]
            start_ns, self._closed_error_ns = round(start.at_ns), start.sigma_ns
        end = self._place(edge.seen, start_ns, edge.energy_mj - before.energy_mj)
        end_ns = max(round(end.at_ns), start_ns + 1)
        start_error_ns, self._closed_error_ns = self._closed_error_ns, end.sigma_ns
        self.closed_until_ns = end_ns
        silent, self._silent = self._silent, False
        unknown = edge.reset or edge.unknown
        if not silent and not unknown:
            self._mean = (edge.energy_mj - before.energy_mj) / (end_ns - start_ns)
        return Step(
            start_ns=start_ns,
            end_ns=end_ns,
            energy_mj=None if unknown else edge.energy_mj - before.energy_mj,
            source=self._source,
            placed=not silent and not unknown,
            reset=edge.reset,
            recovered=edge.recovered,
            unknown_ns=end_ns - round(before.seen.middle) if unknown else 0,
            utilization_percent=edge.utilization_percent,
            sm_clock_mhz=edge.clock_sum_mhz / edge.clock_count if edge.clock_count else None,
            power_limit_mw=edge.power_limit_mw,
            start_error_ns=start_error_ns,
            end_error_ns=end.sigma_ns,
            noise_mj=edge.noise_mj,
        )

    def _place(self, seen: Interval, start_ns: int, energy_mj: int) -> Place:
        """Where a step ends. Of several places, where its power is most like the last one's:
        they are a whole step apart, and only seldom polls are so uncertain, as of a device at
        rest."""
        places = self._locator.locate(seen)
        if len(places) == 1 or self._mean is None:
            return places[0]
        mean = self._mean
        return min(
            (place for place in places if place.at_ns > start_ns),
            key=lambda place: abs(energy_mj / (place.at_ns - start_ns) - mean),
            default=places[0],
        )

    def _close_silence(self, now_ns: int, lateness_ns: int) -> Iterator[Step]:
        """Nothing waits for ever: what a silent sensor counted meanwhile comes as a gap later."""
        if now_ns - self._changed_ns < SILENCE_NS:
            return
        start_ns = self._changed_ns if self.closed_until_ns is None else self.closed_until_ns
        end_ns = now_ns - lateness_ns
        if end_ns > start_ns:
            self.closed_until_ns, self._closed_error_ns = end_ns, 0.0
            self._silent = True
            yield Step(start_ns, end_ns, None, self._source, placed=False)

    def _begin(self, now_ns: int, energy_mj: int) -> None:
        # What the counter shows at first it has shown since its last step.
        early_ns = USUAL_PERIOD_NS if self._source is Source.ENERGY_COUNTER else 0
        seen = Interval(now_ns - early_ns, now_ns)
        if not self._edges:
            self._append(seen, energy_mj)
        elif self._source is Source.POWER:
            # Nobody knows what was drawn while nobody read.
            self._append(seen, energy_mj, unknown=True)
        elif energy_mj != self._edges[-1].energy_mj:
            self._advance(seen, energy_mj)

    def _append(
        self, seen: Interval, energy_mj: int, *, reset: bool = False, unknown: bool = False
    ) -> None:
        edge, self._pending = self._pending, _Edge(Interval(0, 0), 0)
        edge.seen, edge.energy_mj, edge.reset, edge.unknown = seen, energy_mj, reset, unknown
        self._edges.append(edge)
        self._changed_ns = round(seen.high)

    def _note_activity(self, sample: Sample) -> None:
        edge = self._pending
        if sample.gpu_utilization_percent is not None:
            edge.utilization_percent = max(
                edge.utilization_percent or 0, sample.gpu_utilization_percent
            )
        if sample.sm_clock_mhz is not None:
            edge.clock_sum_mhz += sample.sm_clock_mhz
            edge.clock_count += 1
        if sample.power_limit_mw is not None:
            edge.power_limit_mw = sample.power_limit_mw

    def _total_mj(self, sample: Sample) -> int | None:
        if self._source is Source.ENERGY_COUNTER:
            return sample.energy_mj
        if sample.power_mw is None:
            return None
        if self._last is not None:
            assert self._last.power_mw is not None
            elapsed_ns = sample.monotonic_ns - self._last.monotonic_ns
            if elapsed_ns >= SILENCE_NS:
                return self._integrated_pj // 1_000_000_000
            # What was drawn between two readings lies, evenly likely, between them.
            change_mw = abs(sample.power_mw - self._last.power_mw)
            self._pending.noise_mj = change_mw * elapsed_ns / 1e9 / sqrt(12)
            # Trapezoid; in mW x ns = pJ, so nothing is rounded away from step to step.
            self._integrated_pj += (sample.power_mw + self._last.power_mw) * elapsed_ns // 2
        return self._integrated_pj // 1_000_000_000
