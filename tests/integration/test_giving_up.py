"""Callers that give up in the middle cost the daemon nothing."""

import contextlib
import sqlite3
import time
import uuid

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.integration.conftest import BASE_W, Metered


def test_calls_cut_while_they_are_committed_leave_a_daemon_that_serves(metered: Metered) -> None:
    stub = metered.stub
    for number in range(300):
        start = stub.StartWindow.future(pb.StartWindowRequest(window_id=str(uuid.uuid4())))
        ledger = stub.GetLedger.future(pb.GetLedgerRequest())
        time.sleep(number % 10 / 5000)
        start.cancel()
        ledger.cancel()
    for _ in range(50):
        with contextlib.suppress(grpc.RpcError):
            stub.GetLedger(pb.GetLedgerRequest(), timeout=0.0005)
    opened = stub.StartWindow(pb.StartWindowRequest(), timeout=5)
    stopped = stub.StopWindow(
        pb.StopWindowRequest(window_id=opened.window_id, wait_s=10), timeout=15
    )
    assert stopped.state == "final"
    assert stub.GetStatus(pb.GetStatusRequest()).state == "serving"
    log = metered.daemon.log.read_text()
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log


def test_a_start_that_a_locked_store_refused_can_be_said_again(metered: Metered) -> None:
    stub = metered.stub
    request = pb.StartWindowRequest(window_id=str(uuid.uuid4()))
    database = sqlite3.connect(metered.daemon.directory / "greend.db", isolation_level=None)
    with contextlib.closing(database):
        database.execute("begin immediate")
        with pytest.raises(grpc.RpcError) as caught:
            stub.StartWindow(request, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        status = stub.GetStatus(pb.GetStatusRequest())
        assert status.state == "degraded"
        assert "locked" in next(part.message for part in status.parts if part.name == "store")
        database.execute("rollback")
    assert stub.StartWindow(request).state == "open"
    time.sleep(0.5)
    window = stub.StopWindow(pb.StopWindowRequest(window_id=request.window_id, wait_s=10))
    assert window.state == "final"
    assert window.energy_j == pytest.approx(2 * BASE_W * window.duration_s, rel=0.05)
    assert stub.GetStatus(pb.GetStatusRequest()).state == "serving"


def test_a_count_that_no_store_can_keep_holds_nothing_up(metered: Metered) -> None:
    stub = metered.stub
    opened = stub.StartWindow(pb.StartWindowRequest())
    window = stub.StopWindow(
        pb.StopWindowRequest(
            window_id=opened.window_id,
            wait_s=10,
            usage=types_pb2.Usage(prompt_tokens=3, output_tokens=2**63),
        )
    )
    assert window.state == "final"
    assert window.usage.prompt_tokens == 3
    assert not window.usage.HasField("output_tokens")
    assert stub.GetStatus(pb.GetStatusRequest()).state == "serving"


def test_a_start_said_twice_while_the_store_is_locked_is_one_window(metered: Metered) -> None:
    stub = metered.stub
    request = pb.StartWindowRequest(window_id=str(uuid.uuid4()))
    database = sqlite3.connect(metered.daemon.directory / "greend.db", isolation_level=None)
    with contextlib.closing(database):
        database.execute("begin immediate")
        first = stub.StartWindow.future(request, timeout=30)
        time.sleep(1.5)
        second = stub.StartWindow.future(request, timeout=30)
        with contextlib.suppress(grpc.RpcError):
            first.result()
        database.execute("rollback")
    assert second.result().state == "open"
    window = stub.StopWindow(pb.StopWindowRequest(window_id=request.window_id, wait_s=10))
    assert window.state == "final"
