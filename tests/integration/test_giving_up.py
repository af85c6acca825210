"""Callers that give up in the middle cost the daemon nothing."""

import contextlib
import time
import uuid

import grpc

from greend_proto.v1 import metering_pb2 as pb
from tests.integration.conftest import Metered


def test_calls_cut_while_they_are_committed_leave_a_daemon_that_serves(metered: Metered) -> None:
    stub = metered.stub
    for number in range(300):
        calls = [
            stub.StartWindow.future(pb.StartWindowRequest(window_id=str(uuid.uuid4()))),
            stub.GetLedger.future(pb.GetLedgerRequest()),
        ]
        time.sleep(number % 10 / 5000)
        for call in calls:
            call.cancel()
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
