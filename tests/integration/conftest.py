"""Daemons on the double of the driver's library."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from greend_proto.v1 import metering_pb2_grpc
from tests.daemon import Daemon, daemon
from tests.nvml_double import NvmlDouble

BASE_W = 60.0


@dataclass
class Metered:
    """A host with two A100s, its daemon, and a connection to it."""

    double: NvmlDouble
    daemon: Daemon
    stub: metering_pb2_grpc.MeteringServiceStub


def set_base_power(double: NvmlDouble) -> None:
    """Idle GPUs."""
    for gpu in double.gpus:
        gpu.set_power_w(BASE_W)
        gpu.set_utilization(0)


@pytest.fixture
def double(tmp_path: Path) -> Iterator[NvmlDouble]:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        set_base_power(double)
        yield double


@pytest.fixture
def metered(double: NvmlDouble) -> Iterator[Metered]:
    with (
        daemon(environment=os.environ | double.environment, devices=2) as running,
        running.stub() as stub,
    ):
        yield Metered(double, running, stub)
