"""The wall clock is set by an hour under load, forwards and backwards: nobody's joules change."""

import os
import time
from pathlib import Path

import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import Daemon
from tests.faults.audit import (
    check_conserved,
    check_nothing_open,
    check_shares,
    check_told,
    rows_by_id,
)
from tests.faults.host import Host, host
from tests.faults.wall_clock import WallClock
from tests.nvml_double import NvmlDouble

HOUR_S = 3600.0
SHIFTS_S = (HOUR_S, -HOUR_S, 0.0)
POWER_W = 200.0
RATE = 100.0


def lone_window(loaded: Host, clock: WallClock, shift_s: float) -> tuple[types_pb2.Window, float]:
    """A window during which the clock is set; and how long it really ran."""
    with loaded.daemon.stub() as stub:
        begun = time.monotonic()
        opened = stub.StartWindow(pb.StartWindowRequest(), timeout=10)
        time.sleep(0.5)
        clock.shift(shift_s)
        time.sleep(0.5)
        stop = pb.StopWindowRequest(window_id=opened.window_id, wait_s=10)
        ended = time.monotonic()
        return stub.StopWindow(stop, timeout=20), ended - begun


def test_a_wall_clock_that_is_set_changes_no_duration_and_no_energy(directory: Path) -> None:
    clock = WallClock(directory)
    with NvmlDouble(directory, ["a100", "a100"]) as double:
        environment = os.environ | double.environment | clock.environment
        begun_ns = time.monotonic_ns()
        with host(Daemon(directory, environment), double) as loaded:
            for gpu in double.gpus:
                gpu.set_power_w(POWER_W)
            loaded.client_environment = os.environ | clock.environment
            clients = [loaded.teller(RATE), loaded.caller(RATE)]
            for shift_s in SHIFTS_S:
                time.sleep(2)
                clock.shift(shift_s)
            time.sleep(2)
            journals = [client.finish() for client in clients]
            loaded.wait_until_settled()
            alone = [lone_window(loaded, clock, shift_s) for shift_s in SHIFTS_S]
            loaded.check_healthy()
            assert loaded.daemon.stop() == 0
            ended_ns = time.monotonic_ns()
        truths_j = [gpu.true_energy_j(begun_ns, ended_ns) for gpu in double.gpus]
    for window, length_s in alone:
        assert window.duration_s == pytest.approx(length_s, abs=0.1)
        assert window.energy_j == pytest.approx(2 * POWER_W * window.duration_s, rel=0.05)
    for journal in journals:
        assert journal.finals.keys() == journal.windows.keys()
        assert journal.refusals == {}
    told = {window_id: one for journal in journals for window_id, one in journal.windows.items()}
    rows = rows_by_id(loaded.daemon)
    assert rows.keys() == told.keys() | {window.window_id for window, _ in alone}
    offset_ns = time.time_ns() - time.monotonic_ns()
    hours = set()
    for window_id, one in told.items():
        ahead_s = (rows[window_id]["start_unix_ns"] - one.start_ns - offset_ns) / 1e9
        hours.add(round(ahead_s / HOUR_S))
        assert ahead_s == pytest.approx(round(ahead_s / HOUR_S) * HOUR_S, abs=0.5)
    assert hours == {-1, 0, 1}
    check_told(rows, journals)
    check_nothing_open(loaded.daemon)
    sums = check_conserved(loaded.daemon)
    check_shares(loaded.daemon, sums)
    for gpu, truth_j in zip(double.gpus, truths_j, strict=True):
        # Not measured: from the start of the test until the daemon's first reading.
        assert 0.6 * truth_j < sums[gpu.uuid]["measured"] / 1e3 <= truth_j
