"""Removes the service."""

import shutil
from collections.abc import Callable
from pathlib import Path

from greend.errors import PermissionDenied
from greend.service import systemd
from greend.service.places import Places


def owned(places: Places) -> list[Path]:
    """What an install wrote and nobody is meant to change, as far as it is there."""
    return _existing(places.unit, places.home, places.sysusers, places.tmpfiles)


def kept(places: Places) -> list[Path]:
    """Data and settings, as far as they are there: removed only on demand."""
    return _existing(places.state_dir, places.configuration.parent, places.drop_ins)


def uninstall(places: Places, *, purge: bool, say: Callable[[str], None]) -> None:
    """Stops the service and removes it; with `purge` also its data and settings.

    Raises PermissionDenied, FailedPrecondition or Unavailable, saying what to do.
    """
    live = not places.staged and systemd.runs_here()
    if live and places.unit.exists():
        systemd.call("systemctl", "disable", "--now", systemd.UNIT)
        say("Stopped and disabled.")
    removed = owned(places)
    # The unit preserves its runtime directory; without systemd it may be another's.
    sockets = _existing(places.runtime_dir) if live else []
    for path in [*removed, *sockets, *(kept(places) if purge else [])]:
        if path.is_mount():
            for inside in path.iterdir():
                _remove(inside)
            say(f"emptied {path}, on which a file system is mounted")
            continue
        left = f", a link: left {path.resolve()}" if path.is_symlink() else ""
        _remove(path)
        say(f"removed {path}{left}")
    if not removed:
        say("greend was not installed as a service")
    _remove_if_empty(places.drop_ins)
    if live:
        systemd.call("systemctl", "daemon-reload")
    for path in kept(places):
        say(f"left {path}")


def _existing(*paths: Path) -> list[Path]:
    return [path for path in paths if path.exists()]


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise PermissionDenied(
            f"cannot remove {error.filename or path}: {error.strerror}"
        ) from None


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
