"""`scripts/bench hotpath`: what a window costs the thread whose work it measures.

Blocks of ours and of a floor take turns, in bursts of ten, so many a second in all threads
together that the daemon takes them meanwhile. p50 and p99 are of wall
times of single blocks; those in which another thread had its turn count in full. "first" is
the p50 of those right after a pause, and "CPU" the threads' CPU time for a block on average,
with that of the clock readings around it. Zeus follows on the same driver, whose calls take 30 µs.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import beside_zeus, blocks
from greend_client import Client, Stats
from tests.daemon import daemon
from tests.nvml_double import NvmlDouble

LATENCY_NS = 30_000
LENGTH_S = 10.0
# Windows a second, by GPUs; each is on all of them.
PER_S = {1: 1000.0, 8: 250.0}
ZEUS_BLOCKS = 500
# So many times cheaper than Zeus, by GPUs.
TARGETS = {1: 12.0, 8: 100.0}
MOST_P50_US, MOST_P99_US, MOST_FLOORS = 5.0, 50.0, 5.0


def main() -> None:
    """Prints the tables."""
    console = Console(width=100)
    ratios = Table(title=f"p50 of a block beside Zeus's, calls of {LATENCY_NS / 1000:g} µs")
    for column in ("GPUs", "greend", "Zeus", "Zeus p99", "ratio", "target"):
        ratios.add_column(column, justify="right")
    for gpus, target in TARGETS.items():
        with TemporaryDirectory(dir="/tmp") as directory:
            tagged_us, zeus_us = _measure(console, Path(directory), gpus)
        ratio = median(zeus_us) / tagged_us
        ratios.add_row(
            str(gpus),
            f"{tagged_us:.2f} µs",
            f"{median(zeus_us):.1f} µs",
            f"{sorted(zeus_us)[len(zeus_us) * 99 // 100]:.1f} µs",
            f"{ratio:.0f}",
            f"{target:g}",
        )
    console.print(ratios)


def _measure(console: Console, directory: Path, gpus: int) -> tuple[float, list[float]]:
    """Our p50 with tags in one thread, and Zeus's times, in µs."""
    with NvmlDouble(directory, ["a100"] * gpus) as double:
        for gpu in double.gpus:
            gpu.set_power_w(60.0)
        double.call_latency_ns = LATENCY_NS
        environment = os.environ | double.environment
        with (
            daemon(environment=environment, devices=gpus) as running,
            Client(running.address) as client,
        ):
            costs = list(_costs(client, PER_S[gpus]))
            stats = client.stats()
        console.print(_table(costs, gpus, stats))
        times_ns = beside_zeus.times_ns(
            environment, gpus=gpus, blocks=ZEUS_BLOCKS, burst=blocks.BURST
        )
    tagged = next(cost for threads, tags, cost in costs if threads == 1 and tags)
    return tagged.window.quantile_us(50), [time_ns / 1000 for time_ns in times_ns]


def _costs(client: Client, per_s: float) -> Iterator[tuple[int, int, blocks.Cost]]:
    """By threads and bytes of tags."""
    for threads in (1, 16):
        for tags in ({}, blocks.TAGS):
            size = sum(len(key) + len(value) for key, value in tags.items())
            cost = blocks.measure(
                client, threads=threads, length_s=LENGTH_S, per_s=per_s, tags=tags
            )
            yield threads, size, cost


def _table(costs: list[tuple[int, int, blocks.Cost]], gpus: int, stats: Stats) -> Table:
    table = Table(
        title=f"One block, {PER_S[gpus]:g} a second, {gpus} GPUs; µs; at most {MOST_P50_US:g} p50,"
        f" {MOST_P99_US:g} or {MOST_FLOORS:g} floors p99",
        caption=f"{stats.delivered} windows delivered, {stats.kept} not yet, {stats.lost} lost",
    )
    for column in (
        "threads",
        "tags",
        "p50",
        "p99",
        "first",
        "CPU",
        "floor p50",
        "p99",
        "first",
        "CPU",
    ):
        table.add_column(column, justify="right")
    for threads, size, cost in costs:
        told = [
            figure
            for times in (cost.window, cost.floor)
            for figure in (
                times.quantile_us(50),
                times.quantile_us(99),
                median(times.first_ns) / 1000,
                times.cpu_ns / 1000,
            )
        ]
        table.add_row(str(threads), f"{size} B", *(f"{figure:.2f}" for figure in told))
    return table
