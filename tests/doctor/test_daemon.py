"""What the doctor says of a daemon: there, away, degraded, killed, of another version."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from greend import __version__
from tests.daemon import Daemon, daemon
from tests.doctor.conftest import Doctor
from tests.nvml_double import NvmlDouble


def at(running: Daemon) -> list[str]:
    return ["--state-dir", str(running.directory), "--runtime-dir", str(running.directory)]


def test_a_daemon_is_found_well(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        doctor.environment = double.environment
        environment = os.environ | double.environment
        with daemon(environment=environment, devices=2) as running:
            report = doctor.report(*at(running))
            assert running.process is not None
            serving = report.one("daemon", f"(pid {running.process.pid})")
            assert serving["level"] == "ok"
            assert f"greend {__version__} is serving" in serving["found"]
            assert "2 of 2 GPUs answer, 0 windows open" in serving["found"]
            for name in ("greend.sock", "control.sock"):
                assert "(0660 " in report.one("sockets", f"{name} ")["found"]
            assert report.worst("counter") == "ok"
            assert report.status == 0


def test_the_address_of_clients_is_asked_unless_a_directory_is_given(doctor: Doctor) -> None:
    with daemon("--simulate", "h100x1", devices=1) as running:
        doctor.environment = {"GREEND_ADDRESS": running.address}
        asked = doctor.report()
        assert f"unix://{doctor.directory}/greend.sock" in asked.one("daemon", "no greend")["found"]
        doctor.environment["GREEND_DAEMON_RUNTIME_DIR"] = str(doctor.directory)
        command = doctor.command("--json")
        place = command.index("--runtime-dir")
        del command[place : place + 2]
        ended = subprocess.run(
            command, env=doctor.full_environment(), capture_output=True, check=False
        )
        found = [f for f in json.loads(ended.stdout)["findings"] if f["name"] == "daemon"]
    assert running.address in found[0]["found"]
    assert found[1]["found"] == "its GPUs are simulated"


def test_no_daemon_is_a_warning_that_says_how_to_start_one(doctor: Doctor) -> None:
    away = doctor.report().one("daemon", "no greend daemon answers at")
    assert away["level"] == "warning"
    assert "systemctl start greend" in away["remedy"]


def test_parts_that_failed_are_told(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        double.driver_loaded = False
        doctor.environment = double.environment
        with daemon(environment=os.environ | double.environment) as running:
            report = doctor.report(*at(running))
    assert "is degraded" in report.one("daemon", "(pid")["found"]
    assert "not loaded" in report.one("daemon", "its part driver")["found"]
    assert report.worst("daemon") == "warning"


def test_a_killed_daemon_s_socket_is_known_for_what_it_is(doctor: Doctor) -> None:
    with daemon("--simulate", "h100x1") as running:
        running.stop(signal.SIGKILL)
        report = doctor.report(*at(running))
    assert "left behind" in report.one("sockets", "greend.sock")["found"]
    assert report.one("daemon", "no greend daemon answers")["remedy"]


def test_a_daemon_that_does_not_answer_is_not_waited_for(doctor: Doctor) -> None:
    with daemon("--simulate", "h100x1") as running:
        assert running.process is not None
        running.process.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            report = doctor.report(*at(running))
            took_s = time.monotonic() - begun
        finally:
            running.process.send_signal(signal.SIGCONT)
    assert "did not answer in time" in report.one("daemon", running.address)["found"]
    assert report.of("store")
    assert took_s < 20


def test_a_path_too_long_for_a_socket_is_an_error(doctor: Doctor) -> None:
    report = doctor.report("--runtime-dir", "/tmp/" + "long/" * 25)
    assert report.one("sockets", "over 107")["level"] == "error"
    assert "shorter --runtime-dir" in report.one("sockets", "over 107")["remedy"]


def test_rights_that_somebody_changed_are_warned_of(doctor: Doctor) -> None:
    with daemon("--simulate", "h100x1") as running:
        (running.directory / "greend.sock").chmod(0o666)
        running.directory.chmod(0o777)
        report = doctor.report(*at(running))
    assert report.one("sockets", "its mode was changed from 0660")["level"] == "warning"
    assert "everybody can put another socket" in report.one("sockets", "0777")["found"]
