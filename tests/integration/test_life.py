"""Start, end and misfortune of the daemon."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import Daemon, daemon
from tests.integration.conftest import BASE_W, Metered, set_base_power
from tests.nvml_double import NvmlDouble


def wait_for(condition: object, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def test_sigterm_with_windows_open_ends_within_2_s_and_stores_them_as_they_are(
    metered: Metered,
) -> None:
    stub = metered.stub
    uuids = [metered.double.gpus[0].uuid]
    stopped = stub.StartWindow(pb.StartWindowRequest(request_id="stopped", devices=uuids))
    still = stub.StartWindow(pb.StartWindowRequest(request_id="open", devices=uuids))
    time.sleep(1.0)
    stub.StopWindow(pb.StopWindowRequest(window_id=stopped.window_id))
    begun = time.monotonic()
    status = metered.daemon.stop(signal.SIGTERM)
    assert time.monotonic() - begun < 2.0
    assert status == 0, metered.daemon.log.read_text()
    rows = {row["request_id"]: row for row in metered.daemon.rows("select * from windows")}
    assert rows["stopped"]["state"] == "final"
    assert rows["stopped"]["own_mj"] == pytest.approx(1000 * BASE_W / 2, rel=0.1)
    assert rows["open"]["state"] == "open"
    assert rows["open"]["stop_unix_ns"] is None
    assert metered.double.gpus[0].uuid in rows["open"]["shares"]
    assert not (metered.daemon.directory / "greend.sock").exists()

    metered.daemon.start(devices=2)
    with metered.daemon.stub() as again:
        left = again.GetWindow(pb.GetWindowRequest(window_id=still.window_id))
        assert left.state == "open"
        final = again.StopWindow(pb.StopWindowRequest(window_id=still.window_id, wait_s=20))
        assert final.state == "final"
        assert "recovered" in final.flags
        kept = again.GetWindow(pb.GetWindowRequest(window_id=stopped.window_id))
        assert kept.energy_j == pytest.approx(rows["stopped"]["own_mj"] / 1e3)


def test_floors_are_remembered_across_restarts(metered: Metered) -> None:
    metered.daemon.stop()
    for gpu in metered.double.gpus:
        gpu.set_utilization(100)  # nothing to learn a floor from
    metered.daemon.start(devices=2)
    with metered.daemon.stub() as stub:
        devices = stub.ListDevices(pb.ListDevicesRequest()).devices
    assert [device.floor_w for device in devices] == pytest.approx([BASE_W] * 2, rel=0.15)


def test_a_second_daemon_is_refused_and_the_first_serves_on(metered: Metered) -> None:
    directory = str(metered.daemon.directory)
    assert metered.daemon.process is not None
    second = subprocess.run(
        [
            *(sys.executable, "-m", "greend", "serve", "--simulate", "h100x1", "--metrics", ""),
            *("--config", os.devnull, "--state-dir", directory, "--runtime-dir", directory),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 1
    assert f"pid {metered.daemon.process.pid}, since 20" in second.stderr
    assert f"-m greend serve --config {os.devnull}" in second.stderr, "the command line"
    assert "Traceback" not in second.stderr
    assert metered.stub.GetStatus(pb.GetStatusRequest()).state == "serving"


def test_sockets_are_for_owner_and_group_alone(metered: Metered) -> None:
    for name in ("greend.sock", "control.sock"):
        mode = (metered.daemon.directory / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o660


def test_no_driver_at_start_is_degraded_until_it_comes(tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        set_base_power(double)
        double.driver_loaded = False
        with daemon(environment=os.environ | double.environment) as running, running.stub() as stub:
            status = stub.GetStatus(pb.GetStatusRequest())
            assert status.state == "degraded"
            driver = next(part for part in status.parts if part.name == "driver")
            assert "driver" in driver.message
            with pytest.raises(grpc.RpcError) as caught:
                stub.StartWindow(pb.StartWindowRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "driver" in (caught.value.details() or "")
            double.driver_loaded = True
            wait_for(lambda: stub.GetStatus(pb.GetStatusRequest()).state == "serving")
            assert stub.StartWindow(pb.StartWindowRequest()).state == "open"


def test_a_lost_gpu_costs_its_own_windows_only_and_comes_back(metered: Metered) -> None:
    one, other = metered.double.gpus
    windows = [
        metered.stub.StartWindow(pb.StartWindowRequest(devices=[gpu.uuid])) for gpu in (one, other)
    ]
    time.sleep(0.5)
    one.lose()
    wait_for(lambda: metered.stub.GetStatus(pb.GetStatusRequest()).devices_ok == 1)
    with pytest.raises(grpc.RpcError) as caught:
        metered.stub.StartWindow(pb.StartWindowRequest(devices=[one.uuid]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert one.uuid in (caught.value.details() or "")
    lost, kept = (
        metered.stub.StopWindow(pb.StopWindowRequest(window_id=window.window_id, wait_s=15))
        for window in windows
    )
    assert lost.state == "final"
    assert {"partial", "gap"} <= set(lost.flags)
    assert kept.state == "final"
    assert list(kept.flags) == []
    assert kept.energy_j == pytest.approx(BASE_W * kept.duration_s, rel=0.05)
    one.restore()
    wait_for(lambda: metered.stub.GetStatus(pb.GetStatusRequest()).devices_ok == 2)


def test_a_gpu_that_goes_leaves_its_history_and_one_that_comes_is_found(metered: Metered) -> None:
    double, stub = metered.double, metered.stub
    one, other = double.gpus
    opened = stub.StartWindow(pb.StartWindowRequest(request_id="before", devices=[other.uuid]))
    time.sleep(0.3)
    stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id, wait_s=10))
    before = stub.GetLedger(pb.GetLedgerRequest(devices=[other.uuid])).rows[0].measured_j
    double.present = 1
    wait_for(lambda: stub.GetStatus(pb.GetStatusRequest()).devices_ok == 1)
    states = {d.uuid: d.state for d in stub.ListDevices(pb.ListDevicesRequest()).devices}
    assert states == {one.uuid: "ok", other.uuid: "lost"}
    assert stub.GetWindow(pb.GetWindowRequest(window_id=opened.window_id)).energy_j > 0
    assert stub.GetLedger(pb.GetLedgerRequest(devices=[other.uuid])).rows[0].measured_j >= before
    # It is in no registry of a daemon that starts now, and its history stays all the same.
    metered.daemon.stop()
    metered.daemon.start(devices=1)
    with metered.daemon.stub() as again:
        # Until what may lie in the restart was told, it may come back.
        wait_for(lambda: len(again.ListDevices(pb.ListDevicesRequest()).devices) == 1)
        (device,) = again.ListDevices(pb.ListDevicesRequest()).devices
        assert device.uuid == one.uuid
        kept = again.ListWindows(
            pb.ListWindowsRequest(filter=types_pb2.WindowFilter(devices=[other.uuid]))
        ).windows
        assert [window.request_id for window in kept] == ["before"]
        assert again.GetLedger(pb.GetLedgerRequest(devices=[other.uuid])).rows[0].measured_j > 0
        double.present = 2
        wait_for(lambda: again.GetStatus(pb.GetStatusRequest()).devices_ok == 2, timeout_s=60)


def test_a_hung_gpu_delays_nobody_else(metered: Metered) -> None:
    one, other = metered.double.gpus
    one.hang(60)
    try:
        begun = time.monotonic()
        opened = metered.stub.StartWindow(pb.StartWindowRequest(devices=[other.uuid]))
        time.sleep(0.3)
        window = metered.stub.StopWindow(
            pb.StopWindowRequest(window_id=opened.window_id, wait_s=10)
        )
        assert window.state == "final"
        assert time.monotonic() - begun < 2.0
        wait_for(lambda: metered.stub.GetStatus(pb.GetStatusRequest()).sample_age_s > 2)
        ages = {
            device.uuid: device.sample_age_s
            for device in metered.stub.ListDevices(pb.ListDevicesRequest()).devices
        }
        assert ages[one.uuid] > 2 > ages[other.uuid]
        assert metered.daemon.stop(timeout_s=5) == 0
    finally:
        one.unhang()


def test_without_a_counter_power_is_integrated_and_said_so(tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["p100"]) as double:
        set_base_power(double)
        environment = os.environ | double.environment
        with daemon(environment=environment, devices=1) as running, running.stub() as stub:
            (device,) = stub.ListDevices(pb.ListDevicesRequest()).devices
            assert not device.capabilities.energy_counter
            opened = stub.StartWindow(pb.StartWindowRequest())
            time.sleep(1)
            window = stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id, wait_s=10))
            assert window.source == "power"
            assert "power_integrated" in window.flags
            assert window.energy_j == pytest.approx(BASE_W * window.duration_s, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--simulate", "h100"], "h100x2"),
        (["--simulate", "tpux2"], "h100"),
        (["--config", "/nonexistent/greend.toml"], "/nonexistent/greend.toml"),
        (["--state-dir", "/proc/none"], "--state-dir"),
        (["--runtime-dir", "/tmp/" + "long/" * 25], "--runtime-dir"),
    ],
)
def test_a_start_that_cannot_be_says_what_to_do(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    places = ["--state-dir", str(tmp_path), "--runtime-dir", str(tmp_path), "--metrics", ""]
    usual = ["--config", os.devnull, "--simulate", "h100x1"]
    ended = subprocess.run(
        [sys.executable, "-m", "greend", "serve", *usual, *places, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_in_the_place_of_a_socket_is_named_and_left(tmp_path: Path) -> None:
    in_its_place = tmp_path / "greend.sock"
    in_its_place.mkdir()  # as Docker does for a mount whose source is not there yet
    running = Daemon(tmp_path)
    with pytest.raises(AssertionError):
        running.start("--simulate", "h100x1")
    said = running.log.read_text().splitlines()[-1]
    assert said.startswith(f"greend: cannot make the socket {in_its_place} (Is a directory)")
    assert "Traceback" not in running.log.read_text()
    assert in_its_place.is_dir()
    assert not (tmp_path / "control.sock").exists()


def test_the_sockets_lie_in_the_runtime_directory_whatever_that_is_called(tmp_path: Path) -> None:
    runtime = tmp_path / "a%41 ?#"
    running = Daemon(runtime)
    runtime.mkdir()
    running.address = f"unix:{quote(str(runtime))}/greend.sock"
    try:
        running.start("--simulate", "h100x1")
        assert {path.name for path in runtime.glob("*.sock")} == {"greend.sock", "control.sock"}
        assert running.stop() == 0
    finally:
        assert running.process is not None
        running.process.kill()


def test_the_database_lies_in_the_state_directory_whatever_that_is_called(tmp_path: Path) -> None:
    state = tmp_path / "a?mode=rwc&b%41 #ü'"
    with daemon("--simulate", "h100x1", "--state-dir", str(state)) as running:
        with running.stub() as stub:
            stub.StartWindow(pb.StartWindowRequest())
        assert running.stop() == 0
    assert {path.name for path in tmp_path.iterdir()} == {state.name}
    assert (state / "greend.db").stat().st_size > 0


def test_a_database_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    with daemon("--simulate", "h100x1") as running:
        running.stop()
        import sqlite3

        with sqlite3.connect(running.directory / "greend.db") as database:
            database.execute("update alembic_version set version_num = '9999'")
        database.close()
        again = Daemon(running.directory)
        with pytest.raises(AssertionError, match="newer greend"):
            again.start("--simulate", "h100x1")
