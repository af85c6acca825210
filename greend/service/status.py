"""How the service is."""

import re
import shlex
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from greend import __version__
from greend.service import files, systemd
from greend.service.interpreter import Interpreter
from greend.service.places import Places

VERSION_S = 20.0


@dataclass(frozen=True, slots=True)
class Status:
    """What is known; None where nobody can tell, as without a running systemd."""

    installed: bool
    unit: str
    # Files that this version would write differently.
    outdated: list[str]
    python: str | None
    version: str | None
    this_python: str
    this_version: str
    enabled: bool | None = None
    state: str | None = None
    since_unix_ns: int | None = None
    pid: int | None = None
    says: str | None = None

    @property
    def exit_code(self) -> int:
        """As of `systemctl status`: 0 runs, 3 does not, 4 is not installed."""
        if not self.installed:
            return 4
        return 0 if self.state == "active" else 3


def read(places: Places, interpreter: Interpreter) -> Status:
    """The service as it stands. Raises Unavailable if systemd does not answer."""
    python = _python(places.unit)
    known = Status(
        installed=places.unit.is_file(),
        unit=str(places.unit),
        outdated=[str(path) for path in files.outdated(places, files.units(places, interpreter))],
        python=python,
        version=None if python is None else _version(python),
        this_python=str(interpreter.executable),
        this_version=__version__,
    )
    if places.staged or not systemd.runs_here():
        return known
    return _with_systemd(known)


def lines(status: Status) -> list[str]:
    """For people."""
    if not status.installed:
        return ["greend is not installed as a service: `greend service install` does it."]
    shown = {
        "service": status.state or "not known: systemd does not run here",
        "at boot": {True: "started", False: "not started", None: "not known"}[status.enabled],
        "unit": status.unit,
        "runs": f"greend {status.version or '(it does not run)'} on {status.python}",
    }
    if status.since_unix_ns is not None:
        since = datetime.fromtimestamp(status.since_unix_ns // 10**9)
        shown["service"] += f" since {since}, pid {status.pid}"
    if status.says:
        shown["says"] = status.says
    told = [f"{name + ':':<9}{value}" for name, value in shown.items()]
    if (status.python, status.version) != (status.this_python, status.this_version):
        told.append(f"this is: greend {status.this_version} on {status.this_python}")
    if status.state not in (None, "active"):
        told.append("Why it does not run: journalctl -u greend -n 20")
    if status.outdated:
        told.append("An install from here would change: " + ", ".join(status.outdated))
    return told


def _python(unit: Path) -> str | None:
    """What the unit's first command line begins with."""
    try:
        found = re.search(r"^ExecStart=(.*)$", files.read(unit) or "", re.MULTILINE)
        words = shlex.split(found[1]) if found else []
    except ValueError:  # not written by us
        return None
    return words[0].replace("%%", "%") if words else None


def _version(python: str) -> str | None:
    """The greend that this Python runs; None if it runs none."""
    try:
        done = subprocess.run(
            [python, "-P", "-m", "greend", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.removeprefix("greend").strip()


def _with_systemd(known: Status) -> Status:
    told = systemd.properties(
        *("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "StatusText"),
        "ActiveEnterTimestampMonotonic",
    )
    since_us = int(told.get("ActiveEnterTimestampMonotonic") or 0)
    runs = told["ActiveState"] == "active"
    return replace(
        known,
        enabled=told["UnitFileState"] == "enabled",
        state=told["ActiveState"],
        since_unix_ns=time.time_ns() - time.monotonic_ns() + since_us * 1000 if runs else None,
        pid=int(told["MainPID"]) if runs else None,
        says=told.get("StatusText") or None,
    )
