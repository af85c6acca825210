"""`scripts/bench history`: an acknowledged start while much history is copied or deleted."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.daemon import Daemon, daemon
from tests.integration.history import past_window, remember_many
from tests.nvml_double import NvmlDouble

SIZE_MB = 500
BATCH = 50_000
QUIET_S = "10"
TAGS = {"model": "llama-3-8b", "tenant": "a", "route": "/v1/completions"}


def main() -> None:
    """Prints the table."""
    with (
        TemporaryDirectory(dir="/tmp") as directory,
        NvmlDouble(Path(directory), ["a100"]) as double,
    ):
        double.gpus[0].set_power_w(60.0)
        environment = os.environ | double.environment
        with daemon(environment=environment, devices=1) as running, running.stub() as stub:
            _fill(running)
            greenctl = [sys.executable, "-m", "greenctl"]
            place = ["--address", running.address]
            backup = [*greenctl, "backup", *place, f"{directory}/copy.db"]
            prune = [*greenctl, "prune", *place, "--before", "1h", "--yes"]
            rows = {
                "nothing": _starts(
                    stub, [sys.executable, "-c", f"import time; time.sleep({QUIET_S})"]
                ),
                "greenctl backup": _starts(stub, backup),
                "greenctl prune": _starts(stub, prune),
            }
    table = Table(title=f"StartWindow with {SIZE_MB} MB of history; one caller, ms")
    for column in ("meanwhile", "took s", "calls", "p50", "p99", "longest"):
        table.add_column(column, justify="left" if column == "meanwhile" else "right")
    for name, (took_s, times_ms) in rows.items():
        figures = median(times_ms), quantiles(times_ms, n=100)[98], max(times_ms)
        table.add_row(
            name, f"{took_s:.1f}", str(len(times_ms)), *(f"{figure:.2f}" for figure in figures)
        )
    Console(width=100).print(table)


def _fill(running: Daemon) -> None:
    database = running.directory / "greend.db"
    start_unix_ns = time.time_ns() - 6 * 86_400 * 10**9
    while database.stat().st_size < SIZE_MB * 10**6:
        remember_many(running.directory, past_window(start_unix_ns, **TAGS), BATCH)
        start_unix_ns += BATCH * 10**6


def _starts(
    stub: metering_pb2_grpc.MeteringServiceStub, command: list[str]
) -> tuple[float, list[float]]:
    """How long a program ran, and what each start took meanwhile."""
    begun = time.monotonic()
    times_ms: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        while program.poll() is None:
            request = pb.StartWindowRequest(window_id=str(uuid.uuid4()), tags=TAGS)
            called_ns = time.perf_counter_ns()
            stub.StartWindow(request)
            times_ms.append((time.perf_counter_ns() - called_ns) / 1e6)
            stub.StopWindow(pb.StopWindowRequest(window_id=request.window_id))
    assert program.returncode == 0
    return time.monotonic() - begun, times_ms
