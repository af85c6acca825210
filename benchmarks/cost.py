"""`scripts/bench cost`: what the daemon costs its host, beside bare loops of the same reads.

Daemon and loops run at the same time and are looked at over the same seconds, so that a
machine that slows down slows all. CPU time is the processes' own (CLOCK_PROCESS_CPUTIME_ID),
wake-ups are voluntary context switches of all threads. Its memory follows (memory.py).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks import memory
from greend_client import Client
from tests.daemon import daemon
from tests.nvml_double import NvmlDouble

GPUS = 8
ROUNDS, ROUND_S, SETTLE_S = 5, 8.0, 4.0
PACES = {"idle": 1.0, "measuring": 25.0}
# The same reads in one thread a GPU and in one thread; two idle gRPC servers.
FLOORS = ("each", "one", "gRPC")
NAMES = ("greend", *FLOORS)
# At most so many times the cost of a loop in one thread a GPU, by call latency in ns.
TARGETS = {0: 3.0, 30_000: 1.5}
IDLE_CORES, IDLE_WAKE_UPS = 0.005, 5.0


@dataclass(frozen=True)
class Load:
    """What a process took of a core, and how often it woke, a second."""

    cores: float
    wake_ups: float


Loads = dict[str, Load]


def main() -> None:
    """Prints the tables."""
    measured = [
        (latency_ns, state, _measure(latency_ns, hz))
        for latency_ns in TARGETS
        for state, hz in PACES.items()
    ]
    console = Console(width=100)
    console.print(_ratios(measured))
    console.print(_idle(measured[0][2]))
    memory.main()


def _ratios(measured: Iterable[tuple[int, str, list[Loads]]]) -> Table:
    table = Table(title=f"CPU of {GPUS} GPUs, % of a core; medians of {ROUNDS} x {ROUND_S:g} s")
    for column in ("call latency", "state", "greend", *FLOORS, "greend / each (min-max)", "target"):
        table.add_column(column, justify="right")
    for latency_ns, state, rounds in measured:
        ratios = [loads["greend"].cores / loads["each"].cores for loads in rounds]
        table.add_row(
            f"{latency_ns / 1000:g} µs",
            state,
            *(f"{median(loads[name].cores for loads in rounds):.3%}" for name in NAMES),
            f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
            f"{TARGETS[latency_ns]:g}",
        )
    return table


def _idle(rounds: list[Loads]) -> Table:
    table = Table(title="Idle, call latency 0")
    for column in ("", *NAMES, "target"):
        table.add_column(column, justify="right")
    cores = [median(loads[name].cores for loads in rounds) for name in NAMES]
    wakes = [median(loads[name].wake_ups for loads in rounds) for name in NAMES]
    table.add_row("CPU", *(f"{value:.3%}" for value in cores), f"{IDLE_CORES:.1%}")
    table.add_row("wake-ups/s", *(f"{value:.1f}" for value in wakes), f"{IDLE_WAKE_UPS:g}")
    return table


def _measure(latency_ns: int, hz: float) -> list[Loads]:
    """Rounds of what the daemon and its floors took at the same time."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(dir="/tmp")))
        double = stack.enter_context(NvmlDouble(directory, ["a100"] * GPUS))
        for gpu in double.gpus:
            gpu.set_power_w(60.0)
            gpu.set_utilization(0)
        double.call_latency_ns = latency_ns
        environment = os.environ | double.environment
        running = stack.enter_context(daemon(environment=environment, devices=GPUS))
        if hz > 1:
            client = stack.enter_context(Client(running.address))
            stack.enter_context(client.window("measured", gpus=list(range(GPUS))))
        floors = {
            "each": ["bare_loops", str(hz), "each"],
            "one": ["bare_loops", str(hz), "one"],
            "gRPC": ["idle_server", str(directory)],
        }
        pids = {"greend": running.pid} | {
            name: stack.enter_context(_floor(environment, arguments))
            for name, arguments in floors.items()
        }
        time.sleep(SETTLE_S)
        # Somebody has called, as the daemon was called: gRPC keeps more threads then.
        with grpc.insecure_channel(f"unix:{directory}/one.sock") as channel:
            grpc.channel_ready_future(channel).result(10)
        _check_same_reads(double, hz)
        return [_loads(pids) for _ in range(ROUNDS)]


@contextmanager
def _floor(environment: dict[str, str], arguments: list[str]) -> Iterator[int]:
    module, *rest = arguments
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *rest], env=environment
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _loads(pids: Mapping[str, int]) -> Loads:
    before = {name: (_cpu_ns(pid), _switches(pid)) for name, pid in pids.items()}
    begun = time.monotonic()
    time.sleep(ROUND_S)
    elapsed_s = time.monotonic() - begun
    return {
        name: Load(
            (_cpu_ns(pids[name]) - cpu_ns) / 1e9 / elapsed_s,
            (_switches(pids[name]) - switches) / elapsed_s,
        )
        for name, (cpu_ns, switches) in before.items()
    }


def _cpu_ns(pid: int) -> int:
    # The clock that clock_getcpuclockid(3) names.
    return time.clock_gettime_ns((~pid << 3) | 2)


def _switches(pid: int) -> int:
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    lines = [line for text in texts for line in text.splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def _check_same_reads(double: NvmlDouble, hz: float) -> None:
    """The three make the same reads at the same rate, else they cannot be compared."""
    before = double.call_counts()
    begun = time.monotonic()
    time.sleep(5)
    elapsed_s = time.monotonic() - begun
    made = double.call_counts() - before
    for function in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetUtilizationRates"):
        each_hz = made[function] / elapsed_s / GPUS / 3
        assert abs(each_hz / hz - 1) < 0.15, f"{function}: {each_hz:.1f} Hz instead of {hz} Hz"
