"""`scripts/bench durable`: the daemon's CPU time for each window that is told, kept and answered.

The daemon and its floors are loaded in turn by the same load, so that a machine that slows
down slows all. CPU time is that of the server's whole process, reading the sensor and
writing the ledger's minutes included, from the first event to the last final window.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.durable_load import Report
from tests.daemon import Daemon, daemon
from tests.nvml_double import NvmlDouble

ROUNDS, RUN_S = 3, 5.0
# Windows a second; 0: as fast as they are acknowledged.
RATES = (1_000, 5_000, 0)
TARGET_US, TARGET_P99_MS = 66.0, 600.0


@dataclass(frozen=True)
class Server:
    """Something to load."""

    name: str
    address: str
    pid: int


def main() -> None:
    """Prints the table."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(dir="/tmp")))
        double = stack.enter_context(NvmlDouble(directory, ["a100"]))
        double.gpus[0].set_power_w(180.0)
        double.gpus[0].set_utilization(70)
        running = stack.enter_context(
            daemon(environment=os.environ | double.environment, devices=0)
        )
        servers = [
            Server("greend", running.address, running.pid),
            stack.enter_context(_floor("+ two writes", directory / "two.sock", directory / "db")),
            stack.enter_context(_floor("decode, encode", directory / "one.sock")),
        ]
        reports: dict[tuple[int, str], list[Report]] = {}
        stored_before, told = _stored(running), 0
        for rate in RATES:
            for _ in range(ROUNDS):
                for server in servers:
                    report = _run(server, rate)
                    reports.setdefault((rate, server.name), []).append(report)
                    told += report.windows if server is servers[0] else 0
        stored = _stored(running) - stored_before
    Console(width=100).print(_table(reports))
    print(f"greend: {told} windows sent, {stored} stored as final")
    assert stored == told, "windows were lost"


def _table(reports: dict[tuple[int, str], list[Report]]) -> Table:
    table = Table(
        title=f"Medians of {ROUNDS} x {RUN_S:g} s in turn (lowest to highest)",
        caption=f"targets: {TARGET_US:g} µs; p99 {TARGET_P99_MS:g} ms at 1000/s",
    )
    for column in ("load", "server", "windows/s", "CPU µs/window", "told", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "server" else "right", no_wrap=True)
    for (rate, name), runs in reports.items():
        costs = [report.cpu_s / report.windows * 1e6 for report in runs]
        table.add_row(
            f"{rate}/s" if rate else "full",
            name,
            f"{median(report.windows / report.sent_s for report in runs):.0f}",
            f"{median(costs):.0f} ({min(costs):.0f}-{max(costs):.0f})",
            f"{min(report.told / report.windows for report in runs):.2%}",
            f"{median(report.p50_ms for report in runs):.0f}",
            f"{median(report.p99_ms for report in runs):.0f}",
        )
    return table


def _run(server: Server, rate: int) -> Report:
    command = [sys.executable, "-m", "benchmarks.durable_load", server.address, str(server.pid)]
    done = subprocess.run(
        [*command, str(rate), str(RUN_S)], stdout=subprocess.PIPE, check=True, text=True
    )
    return Report(**json.loads(done.stdout))


def _stored(running: Daemon) -> int:
    (row,) = running.rows("select count(*) as windows from windows where state = 'final'")
    return int(row["windows"])


@contextmanager
def _floor(name: str, socket: Path, *database: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.durable_floor", str(socket), *map(str, database)]
    process = subprocess.Popen(command)
    try:
        yield Server(name, f"unix:{socket}", process.pid)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
