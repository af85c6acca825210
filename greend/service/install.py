"""Installs the service, or brings an installed one up to date."""

import os
from collections.abc import Callable
from pathlib import Path

from greend.errors import (
    FailedPrecondition,
    GreendError,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
)
from greend.service import files, systemd
from greend.service.interpreter import HOMES, PASSING, Interpreter
from greend.service.places import Places

Say = Callable[[str], None]


def install(places: Places, interpreter: Interpreter, *, start: bool, say: Say) -> None:
    """Writes the files; on the running system also makes the groups and starts the service.

    May be repeated: settings and data stay, the rest becomes this version's. Raises
    PermissionDenied, InvalidArgument, FailedPrecondition or Unavailable, saying what to do.
    """
    _check_unmasked(places)
    _check_lasting(places, interpreter, say)
    _write_files(places, interpreter, say)
    if places.staged:
        return
    if not systemd.runs_here():
        say("systemd does not run here. When it does:")
        say(f"  systemd-sysusers {places.sysusers}")
        say("  systemctl enable --now greend")
        say("Without it: `greend serve`, kept running by whatever runs services here.")
        return
    systemd.call("systemd-sysusers", str(places.sysusers))
    systemd.call("systemd-tmpfiles", "--create", str(places.tmpfiles))
    systemd.call("systemctl", "daemon-reload")
    if start:
        _start(say)
    else:
        say("Not started. To do so: systemctl enable --now greend")
    say("Members of the group greend may measure and read: usermod -aG greend USER")
    say("Members of greend-control may set limits on the GPUs and delete history.")


def _check_unmasked(places: Places) -> None:
    if places.unit.is_symlink() and places.unit.readlink() == Path(os.devnull):
        raise FailedPrecondition(
            f"greend is masked ({places.unit} is a link to {os.devnull}): somebody wants it not"
            " to start; `systemctl unmask greend`, or remove the link, then install again"
        )


def _check_lasting(places: Places, interpreter: Interpreter, say: Say) -> None:
    passing = interpreter.found_in(PASSING)
    if passing is not None:
        message = (
            f"{passing} may be gone tomorrow, and a service does not see it: install greend"
            " elsewhere, e.g. into /opt/greend, and use that one"
        )
        if not places.staged:
            raise InvalidArgument(message)
        say(f"warning: {message}")
    home = interpreter.found_in(HOMES)
    if home is not None:
        say(
            f"warning: {home} lies in a home directory: the service is let in there to read, and"
            " runs as root what others may write; better: install greend into /opt/greend"
        )


def _write_files(places: Places, interpreter: Interpreter, say: Say) -> None:
    wanted = files.units(places, interpreter)
    outdated = files.outdated(places, wanted)
    for path in outdated:
        if path in wanted:
            _write(path, wanted[path])
            say(f"wrote {path}")
        else:
            path.unlink()
            say(f"removed {path}")
    if not outdated:
        say(f"{places.unit} is up to date")
    if places.configuration.exists():
        say(f"kept {places.configuration}")
    else:
        _write(places.configuration, files.configuration())
        say(f"wrote {places.configuration}")


def _write(path: Path, text: str) -> None:
    """Whole or not at all. The mode does not depend on the caller's umask."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            part.write_text(text)
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise PermissionDenied(f"cannot write {path}: {error.strerror}") from None


def _start(say: Say) -> None:
    ran = systemd.active()
    systemd.call("systemctl", "enable", systemd.UNIT)
    try:
        systemd.call("systemctl", "restart" if ran else "start", systemd.UNIT)
    except GreendError:
        raise Unavailable(
            "the service is installed and does not start; why: journalctl -u greend -n 20"
        ) from None
    say("Restarted." if ran else "Enabled and started.")
