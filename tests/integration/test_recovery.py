"""Killed and started again: windows go on, the counter bridges, every joule is booked once."""

import json
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import Daemon, daemon, sleep_until
from tests.integration.conftest import BASE_W, Metered
from tests.integration.recording import (
    Stream,
    begin,
    change,
    end,
    new_id,
    now_ns,
    ran,
    session,
)
from tests.integration.test_windows import MS, S
from tests.nvml_double import DoubleGpu

BUSY_W = 300.0


def test_a_window_goes_on_over_a_kill(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    window_id, token = new_id(), uuid.uuid4().hex
    start = now_ns() + 300 * MS
    stop = start + 6 * S
    gpu.script_pulses([(start, stop, BUSY_W)], base_w=BASE_W)
    sleep_until(start)
    stream = Stream(metered.stub, session_token=token)
    stream.tell(begin(1, start, window_id, devices=[gpu.uuid], tags={"model": "llama"}))
    sleep_until(start + 2 * S)
    restart(metered.daemon)
    with metered.daemon.stub() as stub, session(stub, token) as again:
        assert again.acknowledged == 1
        sleep_until(stop)
        again.tell(end(2, stop, window_id))
        (window,) = again.final(window_id)
    assert window.tags == {"model": "llama"}
    assert "recovered" in window.flags
    assert not {"abandoned", "partial", "gap"} & set(window.flags)
    assert_energy(window, BUSY_W * 6, most_bound=0.05)
    assert_booked_once(metered.daemon, metered.double.gpus)


def test_what_happened_while_the_daemon_was_away_is_told_afterwards(metered: Metered) -> None:
    """A window that ended, and one that began and ended, while nobody was there."""
    gpu = metered.double.gpus[0]
    first, second, token = new_id(), new_id(), uuid.uuid4().hex
    start = now_ns() + 300 * MS
    middle, last = start + 3 * S, start + 4 * S
    gpu.script_pulses([(start, middle, BUSY_W), (middle, last, BUSY_W)], base_w=BASE_W)
    sleep_until(start)
    Stream(metered.stub, session_token=token).tell(begin(1, start, first, devices=[gpu.uuid]))
    sleep_until(start + 2 * S)
    metered.daemon.stop(signal.SIGKILL)
    sleep_until(last + S)
    metered.daemon.start(devices=2)
    told = [end(2, middle, first), begin(3, middle, second, devices=[gpu.uuid])]
    with metered.daemon.stub() as stub:
        with session(stub, token) as again:
            again.tell(*told, end(4, last, second))
            windows = again.final(first, second)
        assert again.refusals == {}
    for window, energy_j in zip(windows, (BUSY_W * 3, BUSY_W * 1), strict=True):
        assert "recovered" in window.flags
        assert "late" not in window.flags
        assert_energy(window, energy_j, most_bound=2.0)
    assert_booked_once(metered.daemon, metered.double.gpus)


def test_weights_phases_and_iterations_outlive_a_kill(metered: Metered) -> None:
    """Acknowledged just before, and by that not yet shared out."""
    gpu = metered.double.gpus[0]
    token = uuid.uuid4().hex
    heavy, light, driven, other = (new_id() for _ in range(4))
    at = begin_work(gpu)
    stream = Stream(metered.stub, session_token=token)
    stream.tell(
        begin(1, at, heavy, devices=[gpu.uuid]),
        begin(2, at, light, devices=[gpu.uuid]),
    )
    sleep_until(at + S)
    weighed = now_ns()
    stream.tell(
        change(3, weighed, heavy, weight=3.0),
        change(4, weighed, light, phase="decode"),
    )
    restart(metered.daemon)
    with metered.daemon.stub() as stub, session(stub, token) as again:
        assert again.acknowledged == 4
        stop = weighed + 5 * S
        sleep_until(stop)
        again.tell(end(5, stop, heavy), end(6, stop, light))
        windows = again.final(heavy, light)
        # One half of the time alike, then 3 : 1.
        before_s, after_s = (weighed - at) / S, (stop - weighed) / S
        assert_energy(windows[0], BUSY_W * (before_s / 2 + after_s * 3 / 4), most_bound=0.3)
        assert_energy(windows[1], BUSY_W * (before_s / 2 + after_s / 4), most_bound=0.3)
        assert [phase.name for phase in windows[1].phases] == ["", "decode"]
        assert windows[1].phases[1].energy_j == pytest.approx(BUSY_W * after_s / 4, rel=0.05)

        at = now_ns()
        again.tell(
            *(
                begin(number, at, one, devices=[gpu.uuid], iteration_driven=True)
                for number, one in enumerate((driven, other), 7)
            )
        )
        sleep_until(at + S)
        done = now_ns()
        again.tell(ran(9, at, done, {driven: 3.0, other: 1.0}))
    restart(metered.daemon)
    with metered.daemon.stub() as stub, session(stub, token) as again:
        stop = now_ns()
        again.tell(end(10, stop, driven), end(11, stop, other))
        windows = again.final(driven, other)
    active_j = [window.active_energy_j for window in windows]
    assert active_j[0] / active_j[1] == pytest.approx(3.0, rel=0.05)
    assert_booked_once(metered.daemon, metered.double.gpus)


def test_parents_keep_what_their_children_got(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    token = uuid.uuid4().hex
    parent, child = new_id(), new_id()
    at = begin_work(gpu, 5.0)
    stream = Stream(metered.stub, session_token=token)
    stream.tell(
        begin(1, at, parent, devices=[gpu.uuid]),
        begin(2, at, child, devices=[gpu.uuid], parent_id=parent),
    )
    sleep_until(at + S)
    stream.tell(end(3, at + S, child))
    stream.final(child)
    restart(metered.daemon)
    with metered.daemon.stub() as stub, session(stub, token) as again:
        stop = at + 5 * S
        sleep_until(stop)
        again.tell(end(4, stop, parent))
        (window,) = again.final(parent)
    assert_energy(window, BUSY_W * 5, most_bound=0.1)
    assert_booked_once(metered.daemon, metered.double.gpus)


def test_a_restart_by_the_operator_is_bridged_too(metered: Metered) -> None:
    gpu = metered.double.gpus[1]
    start = begin_work(gpu, 5.0)
    offset_ns = time.time_ns() - now_ns()
    window = metered.stub.StartWindow(
        pb.StartWindowRequest(devices=[gpu.uuid], start_unix_ns=start + offset_ns)
    )
    sleep_until(start + S)
    assert metered.daemon.stop() == 0
    metered.daemon.start(devices=2)
    with metered.daemon.stub() as stub:
        stop = start + 5 * S
        sleep_until(stop)
        request = pb.StopWindowRequest(
            window_id=window.window_id, stop_unix_ns=stop + offset_ns, wait_s=20
        )
        final = stub.StopWindow(request, timeout=30)
    assert final.state == "final"
    assert "recovered" in final.flags
    assert_energy(final, BUSY_W * 5, most_bound=0.1)


def test_a_second_kill_is_no_sign_of_life_of_a_session(metered: Metered) -> None:
    stream = Stream(metered.stub, session_token=uuid.uuid4().hex)
    stream.tell(begin(1, now_ns(), new_id()))
    metered.daemon.stop(signal.SIGKILL)
    killed = now_ns()
    metered.daemon.start()
    metered.daemon.stop(signal.SIGKILL)
    metered.daemon.start()
    (left,) = metered.daemon.rows("select left_ns from sessions")
    assert left["left_ns"] <= killed


def test_a_refusal_outlives_a_kill_until_its_client_has_heard_of_it(metered: Metered) -> None:
    """Its number is acknowledged: a client would believe that the event was taken."""
    token = uuid.uuid4().hex
    stream = Stream(metered.stub, session_token=token)
    code, message = stream.refused(begin(1, now_ns(), new_id()), end(2, now_ns(), new_id()))
    metered.daemon.stop(signal.SIGKILL)
    metered.daemon.start()
    with metered.daemon.stub() as stub:
        # As one that heard nothing: it has both events to tell.
        again = Stream(stub, session_token=token)
        assert again.acknowledged == 2
        assert again.refusals == {2: (code, message)}
        again.cut()
        # As one that heard all: it goes on behind them.
        again = Stream(stub, session_token=token)
        assert again.refusals == {2: (code, message)}, "nobody knows yet that it was heard"
        again.tell(begin(3, now_ns(), new_id()))
    metered.daemon.stop(signal.SIGKILL)
    metered.daemon.start()
    with metered.daemon.stub() as stub, session(stub, token) as last:
        assert last.acknowledged == 3
        assert last.refusals == {}


def test_a_device_that_is_gone_after_a_restart_makes_windows_partial() -> None:
    with daemon("--simulate", "h100x2", devices=2) as running:
        with running.stub() as stub:
            window_id = stub.StartWindow(pb.StartWindowRequest()).window_id
        time.sleep(2)
        running.stop(signal.SIGKILL)
        running.start("--simulate", "h100x1")
        with running.stub() as stub:
            time.sleep(4)  # so long at most may it still be found
            window = stub.StopWindow(pb.StopWindowRequest(window_id=window_id, wait_s=20))
            states = {
                part.name: part.message for part in stub.GetStatus(pb.GetStatusRequest()).parts
            }
    assert window.state == "final"
    assert "partial" in window.flags
    assert "is lost: not found since greend was started again" in states["devices"]


def test_where_there_is_hardly_room_for_more_nobody_is_waited_for(tmp_path: Path) -> None:
    """Nothing is final before, and a session may have only so many windows that are not."""
    configuration = tmp_path / "greend.toml"
    configuration.write_text("[metering]\nmost_windows_per_session = 40\n")
    arguments = "--simulate", "h100x1", "--config", str(configuration)
    with daemon(*arguments, devices=1) as running:
        with running.stub() as stub:
            Stream(stub, session_token="never back").tell(begin(1, now_ns(), new_id()))
        running.stop(signal.SIGKILL)
        running.start(*arguments)
        with running.stub() as stub, session(stub, "busy") as busy:
            begun = time.monotonic()
            for first in (1, 71):
                ids = [new_id() for _ in range(35)]
                for sequence, one in enumerate(ids, first):
                    busy.tell(begin(2 * sequence - 1, now_ns(), one))
                    busy.tell(end(2 * sequence, now_ns(), one))
                busy.final(*ids)
            assert time.monotonic() - begun < 15
        assert busy.refusals == {}


def test_windows_of_another_boot_are_closed(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    gpu.set_power_w(BUSY_W)
    window = metered.stub.StartWindow(pb.StartWindowRequest(devices=[gpu.uuid]))
    time.sleep(3)
    metered.daemon.stop(signal.SIGKILL)
    metered.daemon.rows("select 1")
    execute(metered.daemon, "update runs set boot_id = 'another'")
    metered.daemon.start(devices=2)
    with metered.daemon.stub() as stub:
        final = stub.GetWindow(pb.GetWindowRequest(window_id=window.window_id))
    assert final.state == "final"
    assert {"abandoned", "partial"} <= set(final.flags)
    assert 1.5 * BUSY_W < final.energy_j < 3 * BUSY_W
    assert not final.HasField("stop_unix_ns")
    assert metered.daemon.rows("select * from claims") == []


def test_a_device_of_which_nothing_is_known_makes_its_windows_partial(metered: Metered) -> None:
    one, other = metered.double.gpus
    one.set_power_w(BUSY_W)
    window = metered.stub.StartWindow(pb.StartWindowRequest(devices=[one.uuid, other.uuid]))
    time.sleep(2)
    metered.daemon.stop(signal.SIGKILL)
    execute(metered.daemon, f"delete from anchors where device = '{other.uuid}'")
    metered.double.present = 1
    metered.daemon.start(devices=1)
    with metered.daemon.stub() as stub:
        request = pb.StopWindowRequest(window_id=window.window_id, wait_s=20)
        final = stub.StopWindow(request, timeout=30)
    assert final.state == "final"
    assert {"partial", "recovered"} <= set(final.flags)
    assert final.energy_j > BUSY_W
    assert "Traceback" not in metered.daemon.log.read_text()


def begin_work(gpu: DoubleGpu, length_s: float = 3600.0) -> int:
    """Waits for the instant, returned, from which on it is busy."""
    start = now_ns() + 300 * MS
    gpu.script_pulses([(start, start + round(length_s * S), BUSY_W)], base_w=BASE_W)
    gpu.set_utilization(100)
    sleep_until(start)
    return start


def restart(daemon: Daemon) -> None:
    daemon.stop(signal.SIGKILL)
    daemon.start(devices=2)


def execute(daemon: Daemon, statement: str) -> None:
    import sqlite3

    with sqlite3.connect(daemon.directory / "greend.db") as database:
        database.execute(statement)
    database.close()


def assert_energy(window: types_pb2.Window, energy_j: float, *, most_bound: float) -> None:
    """As much as it used, give or take what it says itself, which is not much."""
    assert window.state == "final"
    assert abs(window.energy_j - energy_j) <= window.uncertainty_j + 1e-6
    assert window.uncertainty_j <= most_bound * energy_j


def assert_booked_once(daemon: Daemon, gpus: Sequence[DoubleGpu]) -> None:
    """Rule 1 from stored rows; the measured is a difference of two of the counter's values."""
    assert daemon.stop() == 0
    ended = now_ns()
    windows = daemon.rows("select * from windows")
    assert {row["state"] for row in windows} == {"final"}
    for table in ("claims", "events", "sessions"):
        assert daemon.rows(f"select * from {table}") == [], table
    for gpu in gpus:
        minutes = daemon.rows("select * from minutes where device = ?", gpu.uuid)
        total = {
            name: sum(row[f"{name}_mj"] for row in minutes)
            for name in ("measured", "windows", "idle", "unattributed", "gap")
        }
        booked = sum(amount for name, amount in total.items() if name != "measured")
        assert booked == pytest.approx(total["measured"], rel=1e-9)
        assert total["gap"] == 0
        own_mj = sum(
            share[0] + share[1]
            for row in windows
            for device, share in json.loads(row["shares"]).items()
            if device == gpu.uuid
        )
        assert own_mj == pytest.approx(total["windows"], rel=1e-9)
        last = {gpu.counter_mj(at) for at in range(ended - 3 * S, ended, 10 * MS)}
        first = {gpu.counter_mj(at) for at in range(ended - 60 * S, ended, 10 * MS)}
        differences = {after - before for after in last for before in first}
        assert any(total["measured"] == pytest.approx(item, abs=1e-3) for item in differences)
