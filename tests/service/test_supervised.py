"""The installed unit, run as systemd would run it."""

import signal
import stat
import time
from pathlib import Path

import grpc

from greend.restore import INTENTS_NAME
from greend.service.places import Places
from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.daemon import daemon
from tests.nvml_double import NvmlDouble
from tests.service.conftest import ENVIRONMENT
from tests.service.supervisor import Supervisor, supervised


def options(places: Places, *more: str) -> tuple[str, ...]:
    """The installed configuration; no fixed port, as tests may run beside each other."""
    return ("--config", str(places.configuration), "--metrics", "", *more)


def shorten_watchdog(places: Places, seconds: int) -> None:
    """As `systemctl edit greend` would."""
    places.drop_ins.mkdir(exist_ok=True)
    (places.drop_ins / "override.conf").write_text(f"[Service]\nWatchdogSec={seconds}\n")


def status_of(places: Places) -> pb.GetStatusResponse:
    with grpc.insecure_channel(f"unix://{places.runtime_dir / 'greend.sock'}") as channel:
        stub = metering_pb2_grpc.MeteringServiceStub(channel)
        return stub.GetStatus(pb.GetStatusRequest(), timeout=5)


def journal(running: Supervisor) -> str:
    return running.log.read_text()


def test_it_starts_tells_how_it_is_and_stops(installed: Places) -> None:
    arguments = options(installed, "--simulate", "h100x2")
    with supervised(installed.unit, installed.root, *arguments) as running:
        running.wait_ready()
        # Ready means that both doors are open.
        assert status_of(installed).pid == running.process.pid
        assert (installed.runtime_dir / "control.sock").is_socket()
        running.wait_told("STATUS", "2 GPUs, 0 open windows")
        with grpc.insecure_channel(f"unix://{installed.runtime_dir / 'greend.sock'}") as channel:
            metering_pb2_grpc.MeteringServiceStub(channel).StartWindow(pb.StartWindowRequest())
        running.wait_told("STATUS", "2 GPUs, 1 open window")
        begun = time.monotonic()
        assert running.stop() == (0, 0)
        assert time.monotonic() - begun < 5
        assert running.told["STOPPING"] == "1"
        assert "nothing to restore" in journal(running)
    assert (installed.state_dir / "greend.db").exists()
    assert stat.S_IMODE(installed.state_dir.stat().st_mode) == 0o750


def test_the_watchdog_is_fed_in_time(installed: Places) -> None:
    shorten_watchdog(installed, 1)
    arguments = options(installed, "--simulate", "h100x1")
    with supervised(installed.unit, installed.root, *arguments) as running:
        running.wait_ready()
        assert running.watch(3)


def test_a_daemon_that_stands_still_is_ended_and_says_where_it_was(installed: Places) -> None:
    shorten_watchdog(installed, 1)
    arguments = options(installed, "--simulate", "h100x1")
    with supervised(installed.unit, installed.root, *arguments) as running:
        running.wait_ready()
        running.process.send_signal(signal.SIGSTOP)
        assert not running.watch(10)
        assert running.abort() == (-signal.SIGABRT, 0)
        assert 'File "' in journal(running), "faulthandler shows every thread's stack"


def test_a_killed_daemon_is_followed_by_restore_and_the_next_one_serves(
    installed: Places,
) -> None:
    arguments = options(installed, "--simulate", "h100x1")
    with supervised(installed.unit, installed.root, *arguments) as running:
        running.wait_ready()
        assert running.crash() == (-signal.SIGKILL, 0)
        assert "nothing to restore" in journal(running)
    # Lock and sockets of the dead lie where they were.
    assert (installed.runtime_dir / "greend.lock").exists()
    assert (installed.runtime_dir / "greend.sock").is_socket()
    (installed.root / "notify").unlink()
    with supervised(installed.unit, installed.root, *arguments) as running:
        running.wait_ready()
        assert status_of(installed).pid == running.process.pid
        assert running.stop() == (0, 0)


def test_an_abstract_socket_is_told_as_well(installed: Places) -> None:
    arguments = options(installed, "--simulate", "h100x1")
    with supervised(installed.unit, installed.root, *arguments, abstract=True) as running:
        running.wait_ready()
        assert running.stop() == (0, 0)
        assert running.told["STOPPING"] == "1"


def test_a_manager_that_does_not_listen_is_no_reason_not_to_serve() -> None:
    environment = ENVIRONMENT | {"NOTIFY_SOCKET": "/nonexistent/notify"}
    with daemon("--simulate", "h100x1", environment=environment) as running:
        assert running.stop() == 0
        assert "the service manager was not told READY=1" in running.log.read_text()


def test_without_a_driver_it_is_ready_and_says_what_is_missing(
    installed: Places, tmp_path: Path
) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        double.driver_loaded = False
        environment = ENVIRONMENT | double.environment
        arguments = options(installed)
        with supervised(
            installed.unit, installed.root, *arguments, environment=environment
        ) as running:
            running.wait_ready()
            running.wait_told("STATUS", "degraded: driver: ")
            double.driver_loaded = True
            running.wait_told("STATUS", "1 GPU, 0 open windows")


def test_a_gpu_that_hangs_does_not_starve_the_watchdog(installed: Places, tmp_path: Path) -> None:
    shorten_watchdog(installed, 2)
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        environment = ENVIRONMENT | double.environment
        with supervised(
            installed.unit, installed.root, *options(installed), environment=environment
        ) as running:
            running.wait_ready()
            running.wait_told("STATUS", "2 GPUs")
            double.gpus[0].hang(60)
            try:
                running.wait_told("STATUS", f"degraded: devices: {double.gpus[0].uuid} is hung")
                assert running.watch(5)
            finally:
                double.gpus[0].unhang()


def test_what_restore_cannot_put_back_fails_the_stop_and_is_told_at_the_start(
    installed: Places,
) -> None:
    installed.state_dir.mkdir(parents=True)
    (installed.state_dir / INTENTS_NAME).write_text("{}")
    arguments = options(installed, "--simulate", "h100x1")
    with supervised(installed.unit, installed.root, *arguments) as running:
        running.wait_ready()
        assert INTENTS_NAME in journal(running)
        assert running.stop() == (0, 1)
        assert "nvidia-smi --reset-gpu-clocks" in journal(running)
