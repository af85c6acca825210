"""`python -m benchmarks.virtual [CLASS ...]`: the accuracy bench in virtual time.

A device's ledger is given the samples and events that the daemon would give it: thousands
of windows in a minute, to tune the ledger with. What it says counts only as far as
`scripts/bench accuracy` says the same of the whole way.
"""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from benchmarks import classes, power
from benchmarks.figures import Case, Figures, Totals, print_tables
from benchmarks.scenarios import Scenario
from greend.device.worker import GOLDEN, SPREAD
from greend.energy.ledger import DeviceLedger
from greend.metering.meter import MeterSettings
from greend.model import AMOUNTS, NS_PER_MS, NS_PER_S, Sample, Share
from tests.nvml_double.curve import UW_NS_PER_MJ, Curve, Edges, reading_mw
from tests.nvml_double.profiles import PROFILES

SETTINGS = MeterSettings()
JITTER_NS = NS_PER_MS
CALL_NS = 20_000
WALL_OFFSET_NS = 1_700_000_000 * NS_PER_S

# What is told, in this order at one instant.
_START, _ITERATION, _STOP = range(3)


class VirtualDevice:
    """What a device shows at an instant; as tests/nvml_double, without its clock."""

    def __init__(self, scenario: Scenario, rng: random.Random) -> None:
        self._profile = PROFILES[scenario.kind]
        self._curve: Curve = power.curve(scenario.power)
        self._utilization = scenario.utilization
        self._shown = 0
        period_ns = self._profile.counter_period_ns
        assert period_ns is not None
        phase_ns, seed = rng.randrange(period_ns), rng.getrandbits(64)
        self._counter = Edges(period_ns, phase_ns, JITTER_NS, seed)
        sensor_ns = self._profile.sensor_period_ns
        self._sensor = Edges(sensor_ns, rng.randrange(sensor_ns), 0, 0)

    def sample(self, now_ns: int) -> Sample:
        """Instants come in order."""
        steps = self._utilization
        while self._shown + 1 < len(steps) and steps[self._shown + 1][0] <= now_ns:
            self._shown += 1
        counted = self._curve.energy2(self._counter.last_ns(now_ns)) // (2 * UW_NS_PER_MJ)
        return Sample(
            "GPU-0",
            now_ns,
            energy_mj=10**9 + counted,
            power_mw=reading_mw(
                self._curve, self._sensor.last_ns(now_ns), self._profile.instant_window_ns
            ),
            sm_clock_mhz=self._profile.sm_clocks_mhz[1],
            gpu_utilization_percent=steps[self._shown][1],
            power_limit_mw=round(self._profile.power_limits_w[1] * 1000),
            call_ns=CALL_NS,
        )


class Play:
    """One scenario, played to a ledger."""

    def __init__(self, scenario: Scenario, seed: str) -> None:
        self._scenario = scenario
        self._device = VirtualDevice(scenario, random.Random(seed))
        self.ledger = DeviceLedger("GPU-0", 0, has_counter=True)
        self.shares: dict[str, Share] = {}
        self.amounts = dict.fromkeys(AMOUNTS, 0.0)

    def run(self) -> None:
        for now_ns in self._instants():
            self.ledger.add(self._device.sample(now_ns))
            for settled in self.ledger.close(now_ns, SETTINGS.lateness_ns, WALL_OFFSET_NS):
                self.shares[settled.window_id] = settled.share
            for booking in self.ledger.take_bookings():
                for name in AMOUNTS:
                    self.amounts[name] += getattr(booking, name)

    def _instants(self) -> Iterator[int]:
        """When the daemon would sample; events are told in time (greend/metering/meter.py)."""
        events = self._events()
        event = next(events, None)
        now_ns = rounds = 0
        fast_until_ns, sharpen_until_ns = SETTINGS.fast_after_ns, 0
        while now_ns < self._scenario.end_ns:
            if self.ledger.busy:
                fast_until_ns = now_ns + SETTINGS.fast_after_ns
            interval_ns = SETTINGS.slow_interval_ns
            if now_ns >= fast_until_ns:
                sharpen_until_ns = 0
            else:
                interval_ns = SETTINGS.fast_interval_ns
                sharpen_until_ns = sharpen_until_ns or now_ns + SETTINGS.fast_after_ns
                if now_ns < sharpen_until_ns and not self.ledger.timeline.sharp:
                    interval_ns = SETTINGS.first_interval_ns
            factor = 1 + SPREAD * (2 * (rounds * GOLDEN % 1) - 1)
            due_ns = now_ns + round(interval_ns * factor)
            while event is not None and event[0] <= due_ns:
                if interval_ns == SETTINGS.slow_interval_ns:
                    due_ns = event[0]  # the fast pace reads at once
                    fast_until_ns = due_ns + SETTINGS.fast_after_ns
                    interval_ns = SETTINGS.fast_interval_ns
                self._tell(event)
                event = next(events, None)
            rounds += 1
            now_ns = due_ns
            yield now_ns

    def _events(self) -> Iterator[tuple[int, int, int]]:
        windows, iterations = self._scenario.windows, self._scenario.iterations
        events = [(one.start_ns, _START, number) for number, one in enumerate(windows)]
        events += [(one.stop_ns, _STOP, number) for number, one in enumerate(windows)]
        events += [(one.stop_ns, _ITERATION, number) for number, one in enumerate(iterations)]
        return iter(sorted(events))

    def _tell(self, event: tuple[int, int, int]) -> None:
        _, kind, number = event
        if kind == _ITERATION:
            iteration = self._scenario.iterations[number]
            self.ledger.iterate(iteration.start_ns, iteration.stop_ns, iteration.costs)
            return
        window = self._scenario.windows[number]
        if kind == _START:
            self.ledger.start(
                window.name, window.start_ns, 1.0, iteration_driven=window.iteration_driven
            )
        else:
            self.ledger.stop(window.name, window.stop_ns)


def play(scenario: Scenario, seed: str) -> tuple[list[Case], Totals]:
    """What the ledger says of each window that counts, and what it booked in all."""
    played = Play(scenario, seed)
    played.run()
    cases = []
    for window in scenario.windows:
        if window.counted:
            share = played.shares[window.name]
            bound_mj = share.correlated_mj + share.independent_mj
            cases.append(Case(window.truth_j, share.own_mj / 1e3, bound_mj / 1e3, share.flags))
    booked_j = {name: amount / 1e3 for name, amount in played.amounts.items()}
    return cases, Totals(
        booked_j["measured_mj"],
        booked_j["windows_mj"],
        booked_j["idle_mj"],
        booked_j["unattributed_mj"],
        booked_j["gap_mj"],
        scenario.untracked_j,
    )


def _play_one(name: str, seed: int, number: int) -> tuple[list[Case], Totals]:
    # Scenarios are made where they are played: they are larger than what comes of them.
    (kind,) = classes.named([name])
    return play(kind.scenario(seed, number), f"{seed} {name} {number} device")


def main() -> None:
    options = classes.parser("benchmarks.virtual", "Virtual time: a ledger alone.")
    options.add_argument("--times", type=int, default=1, help="so many times the devices")
    given = options.parse_args()
    kinds = classes.named(given.classes)
    begun = time.monotonic()
    with ProcessPoolExecutor() as pool:
        jobs = [
            (
                kind,
                [
                    pool.submit(_play_one, kind.name, given.seed, number)
                    for number in range(kind.devices * given.times)
                ],
            )
            for kind in kinds
        ]
        all_figures = []
        for kind, futures in jobs:
            figures = Figures(kind)
            for future in futures:
                cases, totals = future.result()
                figures.cases += cases
                figures.totals.append(totals)
            all_figures.append(figures)
    print_tables(all_figures, f"Virtual time, seed {given.seed}; {time.monotonic() - begun:.0f} s.")


if __name__ == "__main__":
    main()
