"""DESIGN.md's "Bad input": too many open windows, a full disk. Measuring goes on."""

import os
import signal
import time
import uuid
from pathlib import Path

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2
from tests.daemon import daemon
from tests.integration.conftest import BASE_W
from tests.integration.small_disk import SmallDisk, small_disk
from tests.integration.test_windows import refused
from tests.nvml_double import NvmlDouble

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
Stub = metering_pb2_grpc.MeteringServiceStub


def stop(stub: Stub, window_id: str, wait_s: float = 20) -> types_pb2.Window:
    return stub.StopWindow(pb.StopWindowRequest(window_id=window_id, wait_s=wait_s))


def test_too_many_open_windows(double: NvmlDouble, tmp_path: Path) -> None:
    configuration = tmp_path / "greend.toml"
    configuration.write_text("[metering]\nmost_open_windows = 3\n")
    environment = os.environ | double.environment
    with (
        daemon("--config", str(configuration), environment=environment, devices=2) as running,
        running.stub() as stub,
    ):
        windows = [stub.StartWindow(pb.StartWindowRequest()) for _ in range(3)]
        refused(
            lambda: stub.StartWindow(pb.StartWindowRequest()),
            EXHAUSTED,
            "3 windows",
            "most_open_windows",
        )
        # What is there already is not more.
        again = pb.StartWindowRequest(window_id=windows[0].window_id)
        assert stub.StartWindow(again).state == "open"
        time.sleep(0.5)
        for window in windows:
            stop(stub, window.window_id, wait_s=0)
        finals = [stop(stub, window.window_id) for window in windows]
        assert stub.StartWindow(pb.StartWindowRequest()).state == "open"
    assert all(window.state == "final" for window in finals)
    used_j = 2 * BASE_W * finals[0].duration_s
    assert sum(window.energy_j for window in finals) == pytest.approx(used_j, rel=0.05)


class Acknowledged:
    """Windows whose start was acknowledged, and what was said last of those stopped."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.started: list[str] = []
        self.final: dict[str, types_pb2.Window] = {}

    def start(self) -> None:
        # With tags that take room.
        tags = {f"key{number}": "v" * 250 for number in range(8)}
        request = pb.StartWindowRequest(window_id=str(uuid.uuid4()), tags=tags)
        self.started.append(self.stub.StartWindow(request, timeout=30).window_id)

    def stop(self, window_id: str) -> None:
        self.final[window_id] = stop(self.stub, window_id)
        assert self.final[window_id].state == "final"

    def start_until_refused(self) -> grpc.RpcError:
        while True:
            try:
                self.start()
            except grpc.RpcError as error:
                return error


def measured_j(stub: Stub) -> float:
    return sum(row.measured_j for row in stub.GetLedger(pb.GetLedgerRequest()).rows)


def counted_j(stub: Stub) -> float:
    return sum(
        sample.energy_counter_j for sample in stub.GetSnapshot(pb.GetSnapshotRequest()).samples
    )


def wait_until_served(stub: Stub) -> None:
    deadline = time.monotonic() + 20
    while stub.GetStatus(pb.GetStatusRequest()).state != "serving":
        assert time.monotonic() < deadline, stub.GetStatus(pb.GetStatusRequest())
        time.sleep(0.1)


def test_a_full_disk(double: NvmlDouble, tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", size_mib=3) as disk:
        environment = os.environ | double.environment
        state = ("--state-dir", str(disk.path))
        with daemon(*state, environment=environment, prefix=disk.prefix, devices=2) as running:
            with running.stub() as stub:
                known = fill_and_free(stub, disk)
            running.stop(signal.SIGKILL)
            running.start(*state, devices=2)
            with running.stub() as stub:
                nothing_acknowledged_is_lost(stub, known)
            log = running.log.read_text()
    assert log.count("the store refused") < 10, "once: a full disk must not be filled with it"


def fill_and_free(stub: Stub, disk: SmallDisk) -> Acknowledged:
    known = Acknowledged(stub)
    for _ in range(20):
        known.start()
    for window_id in known.started[:10]:
        known.stop(window_id)
    over, during = known.started[10:12]
    begun_j, begun = measured_j(stub), time.monotonic()
    disk.fill()
    error = known.start_until_refused()
    assert isinstance(error, grpc.Call)
    assert error.code() is EXHAUSTED, error.details()
    assert "disk is full: free space" in (error.details() or "")
    refused(lambda: stop(stub, during), EXHAUSTED, "disk is full")
    status = stub.GetStatus(pb.GetStatusRequest())
    assert status.state == "degraded"
    assert "full" in next(part.message for part in status.parts if part.name == "store")
    # Measuring goes on, and reading.
    before_j = counted_j(stub)
    time.sleep(3)
    assert counted_j(stub) - before_j == pytest.approx(3 * 2 * BASE_W, rel=0.2)
    assert stub.GetWindow(pb.GetWindowRequest(window_id=over)).state == "open"
    # It has stopped, though that could not be acknowledged.
    assert stub.GetWindow(pb.GetWindowRequest(window_id=during)).state == "stopped"

    disk.free()
    wait_until_served(stub)
    known.stop(during)  # the same stop again
    assert known.final[during].energy_j > 0
    known.stop(over)
    whole = known.final[over]
    assert whole.device_energy_j == pytest.approx(2 * BASE_W * whole.duration_s, rel=0.05)
    assert "gap" not in whole.flags
    booked_j = measured_j(stub) - begun_j
    assert booked_j == pytest.approx(2 * BASE_W * (time.monotonic() - begun), rel=0.3)
    return known


def nothing_acknowledged_is_lost(stub: Stub, known: Acknowledged) -> None:
    for window_id in known.started:
        kept = stub.GetWindow(pb.GetWindowRequest(window_id=window_id))
        if window_id in known.final:
            assert kept == known.final[window_id]
        else:
            assert kept.state == "open"  # it goes on
