"""The doctor without root: what it may not see is no error."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Doctor
from tests.nvml_double import NvmlDouble

ROOT = Path(__file__).parents[2]


def nobody(*groups: int) -> dict[str, Any]:
    """What makes a child of root's run as nobody."""
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


@pytest.fixture
def unprivileged(doctor: Doctor) -> Doctor:
    """Run by nobody, if the tests are run by root; with a Python that everybody may run."""
    doctor.directory.chmod(0o755)
    if os.geteuid() != 0:
        return doctor
    places = (ROOT, ROOT / "clients/python", sysconfig.get_path("purelib"))
    doctor.environment = {"PYTHONPATH": ":".join(map(str, places))}
    doctor.as_user = nobody()
    version = "{}.{}".format(*sys.version_info)
    for python in (sys.executable, f"/usr/bin/python{version}"):
        doctor.python = python
        try:
            if doctor.run("--help").returncode == 0:
                return doctor
        except PermissionError:
            pass
    pytest.skip(f"neither Python nor the tree is for everybody, and no /usr/bin/python{version}")


def test_a_user_without_rights_can_have_the_gpus_checked(unprivileged: Doctor) -> None:
    with NvmlDouble(unprivileged.directory, ["a100"]) as double:
        assert double.library is not None
        double.state_path.chmod(0o666)
        shutil.copy(double.library, unprivileged.directory)
        unprivileged.environment |= double.environment
        unprivileged.environment["LD_LIBRARY_PATH"] = str(unprivileged.directory)
        report = unprivileged.report()
    assert report.one("permissions", "without root")["level"] == "ok"
    assert report.one("devices", "GPU 0")["level"] == "ok"
    assert report.one("counter", "GPU 0")["level"] == "ok"
    assert report.status == 0


def test_closed_directories_are_no_error(unprivileged: Doctor) -> None:
    closed = unprivileged.directory / "closed"
    closed.mkdir(0o000)
    places = ("--state-dir", str(closed / "state"), "--runtime-dir", str(closed / "run"))
    report = unprivileged.report(*places)
    assert report.one("store", "closed to this user")["level"] == "info"
    assert report.one("sockets", "permission denied")["level"] == "info"
    own = unprivileged.report("--state-dir", str(closed))
    assert own.one("store", f"{closed} is closed to this user")["level"] == "info"
    file = unprivileged.report("--config", str(closed / "greend.toml"))
    assert "Permission denied" in file.one("configuration", "greend.toml")["found"]
    closed.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a socket to a group: needs root")
def test_rights_to_the_sockets_are_told_with_what_to_do(unprivileged: Doctor) -> None:
    daemon_gid = 1  # "daemon" everywhere
    unprivileged.environment |= {
        "GREEND_DAEMON_GROUP": "daemon",
        "GREEND_DAEMON_CONTROL_GROUP": "x",
    }
    before = unprivileged.report()
    outside = before.one("permissions", "may not read and measure: not in the group daemon")
    assert outside["remedy"].startswith("sudo usermod -aG daemon nobody")
    assert before.one("permissions", "may not set limits: there is no group x")["level"] == "info"
    assert before.one("sockets", "no group x")["remedy"]

    unprivileged.as_user = nobody(daemon_gid)
    assert unprivileged.report().one("permissions", "may read and measure: member of daemon")

    path = unprivileged.directory / "greend.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        shutil.chown(path, group=daemon_gid)
        path.chmod(0o660)
        assert unprivileged.report().one("permissions", f"may read and measure: {path}")
        unprivileged.as_user = nobody()
        refused = unprivileged.report()
    assert refused.one("permissions", "not in the group daemon")
    assert refused.one("daemon", "no permission to open")["level"] == "warning"
    assert "usermod" in refused.one("daemon", "no permission")["remedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files that are root's: needs root")
def test_device_files_that_are_closed_are_named(unprivileged: Doctor) -> None:
    devices = unprivileged.directory / "dev"
    devices.mkdir()
    for name in ("nvidiactl", "nvidia0", "nvidia-modeset"):
        (devices / name).touch(0o600)
    code = (
        "import sys; from pathlib import Path; from tests.doctor.hosts import findings\n"
        "print(*findings('driver', Path(sys.argv[1])), sep='\\n')"
    )
    out = subprocess.run(
        [unprivileged.python, "-c", code, unprivileged.directory],
        env=unprivileged.full_environment(),
        cwd=unprivileged.directory,
        capture_output=True,
        text=True,
        check=True,
        **unprivileged.as_user,
    ).stdout.splitlines()
    assert len(out) == 2
    assert "no permission for" in out[0]
    assert "/dev/nvidia0 (0600 root:root)" in out[0]
    assert "/dev/nvidiactl" in out[1]
