"""A device with a known truth, and a ledger that reads it as the daemon would."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from greend.energy.ledger import DeviceLedger
from greend.model import NS_PER_MS, NS_PER_S, Booking, Sample, Share

LATENESS_NS = 250 * NS_PER_MS
FLOOR_W = 60.0
BUSY_W = 300.0


@dataclass(frozen=True)
class Span:
    """A window: told at `told_ns` what happened at `start_ns` and `stop_ns`."""

    name: str
    start_ns: int
    stop_ns: int
    weight: float = 1.0
    start_told_ns: int | None = None
    stop_told_ns: int | None = None
    parent: str = ""
    iteration_driven: bool = False


# At an instant, something is told to the ledger.
Told = tuple[int, Callable[[DeviceLedger], object]]


@dataclass
class Device:
    """Draws FLOOR_W, and BUSY_W while somebody works."""

    work: Sequence[tuple[int, int]]
    floor_w: float = FLOOR_W
    busy_w: float = BUSY_W
    period_ns: int = 100 * NS_PER_MS
    phase_ns: int = 0
    utilization: bool = True
    counter: bool = True
    _merged: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for begin, end in sorted(self.work):
            if self._merged and begin <= self._merged[-1][1]:
                self._merged[-1] = (self._merged[-1][0], max(end, self._merged[-1][1]))
            else:
                self._merged.append((begin, end))

    def energy_mj(self, until_ns: int) -> float:
        busy_ns = sum(min(end, until_ns) - begin for begin, end in self._merged if begin < until_ns)
        return (self.floor_w * until_ns + (self.busy_w - self.floor_w) * busy_ns) / 1e6

    def _works(self, now_ns: int) -> bool:
        return any(begin <= now_ns < end for begin, end in self._merged)

    def sample(self, now_ns: int) -> Sample:
        edge = (now_ns - self.phase_ns) // self.period_ns * self.period_ns + self.phase_ns
        busy = any(
            begin - self.period_ns <= now_ns <= end + self.period_ns for begin, end in self._merged
        )
        return Sample(
            "GPU-0",
            now_ns,
            energy_mj=int(self.energy_mj(edge)) if self.counter else None,
            power_mw=round(1000 * (self.busy_w if self._works(now_ns) else self.floor_w)),
            sm_clock_mhz=1410,
            gpu_utilization_percent=(90 if busy else 0) if self.utilization else None,
            power_limit_mw=400_000,
        )


@dataclass
class Outcome:
    shares: dict[str, Share]
    bookings: list[Booking]
    ledger: DeviceLedger

    def total(self, name: str) -> float:
        return float(sum(getattr(booking, name) for booking in self.bookings))


def run(
    device: Device,
    spans: Iterable[Span],
    *,
    until_ns: int,
    lateness_ns: int = LATENESS_NS,
    interval_ns: int = 40 * NS_PER_MS,
    seed: int = 0,
    events: Iterable[Told] = (),
    floors_mw: Mapping[bool, float] | None = None,
) -> Outcome:
    """Polls the device at varied intervals; tells events when they are due."""
    rng = random.Random(seed)
    told = [(span.start_told_ns or span.start_ns, 0, _start(span)) for span in spans]
    told += [(told_ns, 1, event) for told_ns, event in events]
    told += [(span.stop_told_ns or span.stop_ns, 2, _stop(span)) for span in spans]
    told.sort(key=lambda item: item[:2])
    ledger = DeviceLedger("GPU-0", 0, has_counter=device.counter, set_floor_mw=floors_mw)
    shares: dict[str, Share] = {}
    bookings: list[Booking] = []
    now = 0
    while now < until_ns:
        now += int(interval_ns * rng.uniform(0.7, 1.3))
        while told and told[0][0] <= now:
            told.pop(0)[2](ledger)
        sample = device.sample(now)
        ledger.add(sample)
        for settled in ledger.close(now, lateness_ns, wall_offset_ns=1_700_000_000 * NS_PER_S):
            assert settled.window_id not in shares, "what is final never changes"
            shares[settled.window_id] = settled.share
        bookings += ledger.take_bookings()
    return Outcome(shares, bookings, ledger)


def _start(span: Span) -> Callable[[DeviceLedger], object]:
    return lambda ledger: ledger.start(
        span.name,
        span.start_ns,
        span.weight,
        span.parent,
        iteration_driven=span.iteration_driven,
    )


def _stop(span: Span) -> Callable[[DeviceLedger], object]:
    return lambda ledger: ledger.stop(span.name, span.stop_ns)


def phase(at_ns: int, name: str, window: str = "a", *, told_ns: int | None = None) -> Told:
    """A phase of a window begins."""
    return told_ns or at_ns, lambda ledger: ledger.phase(window, at_ns, name)


def reweigh(at_ns: int, weight: float, window: str = "a") -> Told:
    """A window gets another weight."""
    return at_ns, lambda ledger: ledger.reweigh(window, at_ns, weight)


def iteration(
    start_ns: int, stop_ns: int, costs: dict[str, float], *, told_ns: int | None = None
) -> Told:
    """A batch execution, told when it is over, or as late as it may be."""
    told_ns = told_ns or min(stop_ns, start_ns + LATENESS_NS)
    return told_ns, lambda ledger: ledger.iterate(start_ns, stop_ns, costs)


def assert_conserved(outcome: Outcome) -> None:
    """Rule 1, with every term from its own bookkeeping."""
    measured = outcome.total("measured_mj")
    booked = sum(
        outcome.total(name) for name in ("windows_mj", "idle_mj", "unattributed_mj", "gap_mj")
    )
    assert booked == pytest.approx(measured, rel=1e-9)
    for booking in outcome.bookings:
        assert booking.measured_mj == pytest.approx(
            booking.windows_mj + booking.idle_mj + booking.unattributed_mj + booking.gap_mj,
            rel=1e-9,
            abs=1e-6,
        )
    for share in outcome.shares.values():
        if share.phases:
            phases = sum(phase.idle_mj + phase.active_mj for phase in share.phases)
            assert phases == pytest.approx(share.own_mj, rel=1e-9, abs=1e-6)
    shares = sum(share.own_mj for share in outcome.shares.values())
    assert shares == pytest.approx(outcome.total("windows_mj"), rel=1e-9, abs=1e-6)
