"""DESIGN.md's "Bad input": GPU lost or not answering, no driver."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import daemon
from tests.integration.conftest import Metered, set_base_power
from tests.integration.test_life import wait_for
from tests.integration.test_windows import refused
from tests.nvml_double import NvmlDouble
from tests.nvml_double.gpu import DoubleGpu

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def device(metered: Metered, uuid: str) -> types_pb2.Device:
    devices = metered.stub.ListDevices(pb.ListDevicesRequest()).devices
    return next(device for device in devices if device.uuid == uuid)


@pytest.mark.parametrize(
    ("state", "break_", "mend", "words"),
    [
        ("lost", DoubleGpu.lose, DoubleGpu.restore, ["is lost: ", " (for ", " s)"]),
        ("hung", DoubleGpu.hang, DoubleGpu.unhang, ["is hung: no reading for ", " s"]),
    ],
)
def test_gpu_not_answering(
    metered: Metered,
    state: str,
    break_: Callable[[DoubleGpu], None],
    mend: Callable[[DoubleGpu], None],
    words: list[str],
) -> None:
    stub, (one, other) = metered.stub, metered.double.gpus
    broken_ns = time.time_ns()
    break_(one)
    try:
        wait_for(lambda: device(metered, one.uuid).state == state)
        refused(
            lambda: stub.StartWindow(pb.StartWindowRequest(devices=[one.uuid, other.uuid])),
            UNAVAILABLE,
            f"device {one.uuid}",
            *words,
        )
        since_ns = device(metered, one.uuid).state_since_unix_ns
        assert abs(since_ns - broken_ns) < 5e9
        # For it alone: the others are measured, also where none is named.
        opened = stub.StartWindow(pb.StartWindowRequest())
        assert list(opened.devices) == [other.uuid]
        window = stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id, wait_s=10))
        assert window.state == "final"
        break_(other)
        wait_for(lambda: device(metered, other.uuid).state == state)
        refused(
            lambda: stub.StartWindow(pb.StartWindowRequest()),
            UNAVAILABLE,
            "no GPU can be measured for ",
            one.uuid,
            other.uuid,
        )
    finally:
        mend(one)
        mend(other)
    wait_for(lambda: stub.GetStatus(pb.GetStatusRequest()).devices_ok == 2)
    assert stub.StartWindow(pb.StartWindowRequest(devices=[one.uuid])).state == "open"


def test_no_driver(tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        set_base_power(double)
        double.driver_loaded = False
        with daemon(environment=os.environ | double.environment) as running, running.stub() as stub:
            for uuids in ([], [double.gpus[0].uuid]):
                request = pb.StartWindowRequest(devices=uuids)
                refused(
                    lambda request=request: stub.StartWindow(request),
                    UNAVAILABLE,
                    "no GPU can be measured for ",
                    " s: ",
                    "driver",
                )
            assert stub.GetLedger(pb.GetLedgerRequest()).rows == []
