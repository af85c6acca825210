"""`python -m benchmarks.shapley`: greend's shares beside exact Shapley values.

A few requests are served together by a small engine (benchmarks/batching.py).

What a set of requests is worth is the energy above the floor of serving them and no others,
by running the engine again for every set. A request's Shapley value is what it adds to that,
on average over all orders in which requests could join: the one division that gives all of
the energy away, treats equals alike, gives nothing to who adds nothing, and is additive.

greend's shares come from a ledger in virtual time (benchmarks/virtual.py), told of windows
alone, or of iterations with costs: tokens; what the iteration would take for each member
alone; or true costs, an equal part of reading the weights and what each member adds to that.
Those are nearly the iteration's own Shapley values: what is left then is what greend misplaces
and what requests do to each other beyond single iterations.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from math import factorial, isclose
from statistics import mean

from rich.console import Console
from rich.table import Table

from benchmarks import power
from benchmarks.batching import Batch, Request, Served, draw, energy_j, serve
from benchmarks.power import Piece, S
from benchmarks.scenarios import LEAD_NS, TAIL_NS, Iteration, Scenario, TrueWindow
from benchmarks.virtual import Play
from greend.sim.physics import A100

MOST = 6
GROUPS = 32  # of each size, played one after the other
PAUSE_NS = 2 * S


def shapley_j(requests: Sequence[Request]) -> tuple[dict[str, float], float]:
    """Each request's Shapley value, and what all would use one by one, alone."""
    worth_j = {frozenset[str](): 0.0}
    for size in range(1, len(requests) + 1):
        for chosen in combinations(requests, size):
            worth_j[frozenset(one.name for one in chosen)] = serve(chosen).energy_j
    values = dict.fromkeys((one.name for one in requests), 0.0)
    for some, some_j in worth_j.items():
        for name in values.keys() - some:
            orders = factorial(len(some)) * factorial(len(requests) - len(some) - 1)
            added_j = worth_j[some | {name}] - some_j
            values[name] += added_j * orders / factorial(len(requests))
    return values, sum(worth_j[frozenset({one.name})] for one in requests)


# How costs of an iteration are told; None: windows alone.
Tell = Callable[[Batch], Mapping[str, float]] | None


def _tokens(batch: Batch) -> Mapping[str, float]:
    return {name: float(part.tokens) for name, part in batch.items()}


def _lone_costs(batch: Batch) -> Mapping[str, float]:
    return {name: energy_j({name: part}) for name, part in batch.items()}


def _true_costs(batch: Batch) -> Mapping[str, float]:
    weights_j = energy_j({})
    return {
        name: weights_j / len(batch) + lone_j - weights_j
        for name, lone_j in _lone_costs(batch).items()
    }


RULES: Mapping[str, Tell] = {
    "equal weights": None,
    "by tokens": _tokens,
    "by lone costs": _lone_costs,
    "by true costs": _true_costs,
}


def measure(groups: Sequence[tuple[Sequence[Request], Served]], tell: Tell, seed: str) -> Play:
    """Groups of requests, one after the other on one device, as the ledger sees them."""
    rng = random.Random(seed)
    batches = [batch for _, served in groups for batch in served.batches]
    spans = {
        one.name: (one.start_ns, served.stops_ns[one.name])
        for requests, served in groups
        for one in requests
    }
    end_ns = max(stop_ns for _, stop_ns in spans.values()) + TAIL_NS
    works = []
    for start_ns, stop_ns, batch in batches:
        watts = energy_j(batch) * S / (stop_ns - start_ns)
        works.append(Piece(start_ns, stop_ns, watts, watts))
    floor = power.floor(rng, A100.static_power_w, end_ns)
    busy = [(start_ns, stop_ns, 1.0) for start_ns, stop_ns, _ in batches]
    iterations = []
    if tell is not None:
        iterations = [Iteration(start_ns, stop_ns, tell(one)) for start_ns, stop_ns, one in batches]
    scenario = Scenario(
        kind="a100",
        power=power.script([*floor, *works]),
        utilization=power.utilization(rng, busy, end_ns),
        windows=[
            TrueWindow(name, *span, 0.0, iteration_driven=tell is not None)
            for name, span in spans.items()
        ],
        end_ns=end_ns,
        idle_j=0.0,
        iterations=iterations,
    )
    played = Play(scenario, f"{seed} device")
    played.run()
    return played


@dataclass
class Compared:
    """Of groups of one size: the energy of all one by one over that of all together, and
    |share / Shapley value - 1| by rule."""

    count: int
    apart: float
    differences: dict[str, list[float]]


def compare(count: int, seed: int) -> Compared:
    rng = random.Random(f"{seed} {count}")
    groups, alone_j, together_j = [], 0.0, 0.0
    values: dict[str, float] = {}
    begin_ns = LEAD_NS
    for number in range(GROUPS):
        requests = draw(rng, count, begin_ns, f"g{number}")
        served = serve(requests)
        groups.append((requests, served))
        of_group, lone_j = shapley_j(requests)
        assert isclose(sum(of_group.values()), served.energy_j)
        values |= of_group
        alone_j += lone_j
        together_j += served.energy_j
        begin_ns = max(served.stops_ns.values()) + PAUSE_NS
    differences = {}
    for rule, tell in RULES.items():
        shares = measure(groups, tell, f"{seed} {count}").shares
        differences[rule] = [
            abs(shares[name].active_mj / 1e3 / value_j - 1) for name, value_j in values.items()
        ]
    return Compared(count, alone_j / together_j, differences)


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.shapley")
    options.add_argument("--seed", type=int, default=1)
    seed = options.parse_args().seed
    with ProcessPoolExecutor() as pool:
        compared = list(pool.map(compare, range(2, MOST + 1), [seed] * (MOST - 1)))
    Console(width=100).print(_table(compared, seed))


def _table(compared: Sequence[Compared], seed: int) -> Table:
    table = Table(
        title="active_energy_j beside Shapley values; iterations by costs: mean (largest)",
        caption=f"{GROUPS} groups of each size, virtual time, seed {seed}.",
    )
    for column in ("requests", "alone / together", *RULES):
        table.add_column(column, justify="right")
    for one in compared:
        cells = (f"{mean(found):.1%} ({max(found):.1%})" for found in one.differences.values())
        table.add_row(str(one.count), f"{one.apart:.2f}", *cells)
    return table


if __name__ == "__main__":
    main()
