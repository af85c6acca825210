"""The daemon's directories: made where they are missing, and held by one daemon at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greend.errors import InvalidArgument, Unavailable


def make(directory: Path, mode: int) -> None:
    """Makes a directory. Raises InvalidArgument where that cannot be."""
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(
            f"cannot make {directory} ({error.strerror}): run as root, or choose directories of"
            " your own with --state-dir and --runtime-dir"
        ) from None


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds a directory for this process; a second server would steal the socket silently."""
    path = directory / "greend.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InvalidArgument(
            f"cannot write {path} ({error.strerror}): run as root, or choose directories of your"
            " own with --state-dir and --runtime-dir"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"another greend ({_owner(descriptor)}) uses {directory}: stop it, or choose"
                " another --state-dir and --runtime-dir"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    """Who holds a lock, since when: it is written as soon as it is taken."""
    pid = os.read(descriptor, 64).decode(errors="replace").strip()
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.fstat(descriptor).st_mtime))
    try:
        command = Path(f"/proc/{int(pid)}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, ValueError):  # just ending, or in another container
        return f"pid {pid or 'unknown'}, since {since}"
    return f"pid {pid}, since {since}: {command.strip()}"
