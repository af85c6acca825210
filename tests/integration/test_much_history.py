"""What reading much history costs the daemon."""

import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from tests.daemon import Daemon, daemon
from tests.integration.history import past_window, remember_many

WINDOWS = 300_000


@pytest.fixture
def large() -> Iterator[Daemon]:
    with daemon("--simulate", "h100x1") as running:
        remember_many(running.directory, past_window(time.time_ns() - 3600 * 10**9), WINDOWS)
        yield running


def most_memory_mib(running: Daemon) -> float:
    status = Path(f"/proc/{running.pid}/status").read_text()
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    return int(kib) / 1024


def test_a_summary_does_not_hold_what_it_sums_up(large: Daemon) -> None:
    before_mib = most_memory_mib(large)
    with large.stub() as stub:
        (group,) = stub.SummarizeWindows(pb.SummarizeWindowsRequest()).groups
    assert group.count == WINDOWS
    assert group.energy_j == pytest.approx(3.5 * WINDOWS)
    # An object a window would be 100 MiB.
    assert most_memory_mib(large) - before_mib < 40


def test_windows_are_read_while_many_sum_up(large: Daemon) -> None:
    with large.stub() as stub:
        # More than there are threads.
        asked = [
            stub.SummarizeWindows.future(pb.SummarizeWindowsRequest())
            for _ in range(2 * (os.cpu_count() or 1) + 8)
        ]
        assert len(stub.ListWindows(pb.ListWindowsRequest(page_size=1)).windows) == 1
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.GetWindow(pb.GetWindowRequest(window_id=str(uuid.uuid4())))
        assert not any(summary.done() for summary in asked)
        for summary in asked:
            summary.cancel()
        # Who gave up keeps nobody waiting.
        begun = time.monotonic()
        (group,) = stub.SummarizeWindows(pb.SummarizeWindowsRequest()).groups
        assert group.count == WINDOWS
        assert time.monotonic() - begun < 10


def test_summaries_do_not_keep_the_daemon_from_ending(large: Daemon) -> None:
    with large.stub() as stub:
        # More than there are threads: together they would take many seconds.
        asked = [
            stub.SummarizeWindows.future(pb.SummarizeWindowsRequest())
            for _ in range(2 * (os.cpu_count() or 1) + 8)
        ]
        stub.GetStatus(pb.GetStatusRequest())
        begun = time.monotonic()
        assert large.stop() == 0
        assert time.monotonic() - begun < 2
        with pytest.raises(grpc.RpcError):
            asked[-1].result()
    assert "Traceback" not in large.log.read_text()
