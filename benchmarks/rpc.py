"""`scripts/bench rpc`: an acknowledged start or stop beside its floor.

Both servers run at once, calls go to them in turn, so that a machine that slows down
slows both.
"""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.daemon import daemon
from tests.nvml_double import NvmlDouble

ROUNDS = 9
CALLS = 300
TARGET = 1.5
TAGS = {"model": "llama-3-8b", "tenant": "a", "route": "/v1/completions"}

Times = dict[str, list[float]]


def main() -> None:
    """Prints the table."""
    with (
        TemporaryDirectory(dir="/tmp") as directory,
        NvmlDouble(Path(directory), ["a100"]) as double,
    ):
        double.gpus[0].set_power_w(60.0)
        floor = subprocess.Popen([sys.executable, "-m", "benchmarks.floor_server", directory])
        try:
            with (
                daemon(environment=os.environ | double.environment, devices=1) as running,
                running.stub() as ours,
                grpc.insecure_channel(f"unix:{directory}/floor.sock") as channel,
            ):
                grpc.channel_ready_future(channel).result(20)
                floors = metering_pb2_grpc.MeteringServiceStub(channel)
                rounds = [(_round(ours), _round(floors)) for _ in range(ROUNDS)][1:]
        finally:
            floor.terminate()
            floor.wait()

    table = Table(title=f"{CALLS} calls a round, {ROUNDS - 1} rounds in turn; one caller, ms")
    for column in ("call", "p50", "p99", "floor p50", "floor p99", "ratio p50 (min-max)", "target"):
        table.add_column(column, justify="right")
    for call in ("StartWindow", "StopWindow"):
        pairs = [(ours[call], floors[call]) for ours, floors in rounds]
        ratios = [median(our) / median(floor_) for our, floor_ in pairs]
        ours_all = [time_ms for our, _ in pairs for time_ms in our]
        floors_all = [time_ms for _, floor_ in pairs for time_ms in floor_]
        table.add_row(
            call,
            f"{median(ours_all):.3f}",
            f"{quantiles(ours_all, n=100)[98]:.3f}",
            f"{median(floors_all):.3f}",
            f"{quantiles(floors_all, n=100)[98]:.3f}",
            f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
            f"{TARGET}",
        )
    Console(width=100).print(table)


def _round(stub: metering_pb2_grpc.MeteringServiceStub) -> Times:
    ids = [str(uuid.uuid4()) for _ in range(CALLS)]
    starts = [pb.StartWindowRequest(window_id=id_, request_id=id_, tags=TAGS) for id_ in ids]
    stops = [pb.StopWindowRequest(window_id=id_) for id_ in ids]
    return {
        "StartWindow": [_timed(stub.StartWindow, request) for request in starts],
        "StopWindow": [_timed(stub.StopWindow, request) for request in stops],
    }


def _timed(call: Callable[[Any], object], request: object) -> float:
    begun = time.perf_counter_ns()
    call(request)
    return (time.perf_counter_ns() - begun) / 1e6
