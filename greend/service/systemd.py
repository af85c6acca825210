"""systemd's own tools."""

import subprocess
from pathlib import Path

from greend.errors import FailedPrecondition, Unavailable

UNIT = "greend.service"
TOOL_S = 120.0


def runs_here() -> bool:
    """Whether systemd is this host's first process (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def call(*command: str) -> str:
    """Runs a tool; returns what it prints.

    Raises FailedPrecondition if it is not there, Unavailable with its words if it fails.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TOOL_S,
            check=False,
        )
    except FileNotFoundError:
        raise FailedPrecondition(
            f"{command[0]} is not here: is this a system with systemd?"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"`{' '.join(command)}` has not ended for {TOOL_S:.0f} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise Unavailable(f"`{' '.join(command)}` failed: {said or done.returncode}")
    return done.stdout


def properties(*names: str) -> dict[str, str]:
    """Of the unit, as systemd knows it."""
    shown = call("systemctl", "show", UNIT, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def active() -> bool:
    """Whether the service runs, or is about to."""
    return properties("ActiveState")["ActiveState"] in ("active", "activating", "reloading")
