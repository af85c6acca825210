"""`python -m benchmarks.blind_spots`: what greend cannot see, and how far off that puts it.

Windows of 100 ms to 2 s in virtual time, A100-like unless said otherwise, always at the same
pace and with the same noise as in benchmarks/classes.py; each row has one thing in it that
spoils them. Rows that `python -m benchmarks.virtual` has already (untracked work, bursts,
host gaps) are not repeated.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import mean, median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks import power
from benchmarks.figures import Case
from benchmarks.power import MS, Noise, S, Span
from benchmarks.scenarios import LEAD_NS, UNTRACKED_LOAD, Device, Scenario
from benchmarks.virtual import Play
from greend.energy.ledger import DeviceLedger

SHORTEST_NS, LONGEST_NS = 100 * MS, 2 * S
DEVICES, WINDOWS = 8, 25
LONG_IDLE_NS = 60 * S


def alone(device: Device) -> Scenario:
    return _scenario(device, device.spans(WINDOWS, SHORTEST_NS, LONGEST_NS))


def after_long_idling(device: Device) -> Scenario:
    return _scenario(device, _row(device, LONG_IDLE_NS))


def covered_untracked(device: Device) -> Scenario:
    """Windows without pauses, so that what else runs is never seen without them."""
    spans = _row(device, 0)
    watts = UNTRACKED_LOAD * device.range_w
    others = power.steady(Noise(device.rng), spans[0][0], spans[-1][1], watts)
    own = [power.work(Noise(device.rng), *span, _watts(device)) for span in spans]
    return device.scenario(spans, own, [(*span, 1.0) for span in spans], others)


def unlike_overlap(device: Device) -> Scenario:
    """Every second window overlaps half of the one before, and draws half of what it does."""
    spans, own = [], []
    for start_ns, stop_ns in device.spans(WINDOWS // 2, SHORTEST_NS, LONGEST_NS):
        half_ns = (stop_ns - start_ns) // 2
        spans += [(start_ns, stop_ns), (start_ns + half_ns, stop_ns + half_ns // 4)]
        for span, watts in zip(spans[-2:], (200.0, 100.0), strict=True):
            own.append(power.work(Noise(device.rng), *span, watts))
    return device.scenario(spans, own, [(*span, 1.0) for span in spans])


def _row(device: Device, pause_ns: int) -> list[Span]:
    spans, at_ns = [], LEAD_NS
    for _ in range(WINDOWS):
        at_ns += pause_ns
        spans.append((at_ns, at_ns + device.rng.randint(SHORTEST_NS, LONGEST_NS)))
        at_ns = spans[-1][1]
    return spans


def _scenario(device: Device, spans: list[Span]) -> Scenario:
    own = [power.work(Noise(device.rng), *span, _watts(device)) for span in spans]
    return device.scenario(spans, own, [(*span, 1.0) for span in spans])


def _watts(device: Device) -> float:
    return device.rng.uniform(0.3, 0.6) * device.range_w


@dataclass(frozen=True, slots=True)
class Spot:
    make: Callable[[Device], Scenario]
    kind: str = "a100"
    has_counter: bool = True


SPOTS: Mapping[str, Spot] = {
    "nothing": Spot(alone),
    "a minute's idling before each window": Spot(after_long_idling),
    "a counter that steps every 20 ms (V100)": Spot(alone, kind="v100"),
    "no counter: power of 25 in 100 ms is told": Spot(alone, has_counter=False),
    "no counter: power of 10 in 20 ms is told": Spot(alone, kind="v100", has_counter=False),
    "windows that draw 2 : 1 overlap": Spot(unlike_overlap),
    "untracked work at 30 %, no time without windows": Spot(covered_untracked),
}


def measure(name: str, seed: int, number: int) -> list[Case]:
    spot = SPOTS[name]
    scenario = spot.make(Device(spot.kind, random.Random(f"{seed} {name} {number}")))
    played = Play(scenario, f"{seed} {name} {number} device")
    played.ledger = DeviceLedger("GPU-0", 0, has_counter=spot.has_counter)
    played.run()
    cases = []
    for window in scenario.windows:
        share = played.shares[window.name]
        bound_mj = share.correlated_mj + share.independent_mj
        cases.append(Case(window.truth_j, share.own_mj / 1e3, bound_mj / 1e3, share.flags))
    return cases


def main() -> None:
    """Prints the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.blind_spots")
    options.add_argument("--seed", type=int, default=1)
    seed = options.parse_args().seed
    with ProcessPoolExecutor() as pool:
        jobs = {
            name: [pool.submit(measure, name, seed, number) for number in range(DEVICES)]
            for name in SPOTS
        }
        found = {name: [case for job in of for case in job.result()] for name, of in jobs.items()}
    Console(width=100).print(_table(found, seed))


def _table(found: Mapping[str, Sequence[Case]], seed: int) -> Table:
    table = Table(title="|error| of energy_j", caption=f"Virtual time, seed {seed}.")
    table.add_column("what spoils it", no_wrap=True)
    for column in ("windows", "mean", "p95", "covered", "bound / energy"):
        table.add_column(column, justify="right")
    for name, cases in found.items():
        errors = [abs(case.error) for case in cases]
        bounds = [(case, case.bound_j or 0.0) for case in cases]
        covered = mean(abs(case.energy_j - case.truth_j) <= bound_j for case, bound_j in bounds)
        table.add_row(
            name,
            str(len(cases)),
            f"{mean(errors):.2%}",
            f"{quantiles(errors, n=20, method='inclusive')[-1]:.2%}",
            f"{covered:.1%}",
            f"{median(bound_j / case.energy_j for case, bound_j in bounds):.2%}",
        )
    return table


if __name__ == "__main__":
    main()
