"""The runtime directory, both sockets, their groups."""

import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.doctor.rights import rights
from greend.rpc.server import LONGEST_SOCKET_PATH_BYTES, SOCKET_MODE


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """From the directory to each socket."""
    directory, groups = host.runtime_dir, host.settings.daemon
    doors = {"greend.sock": groups.group, "control.sock": groups.control_group}
    longest = max(len(os.fsencode(directory / name)) for name in doors)
    if longest > LONGEST_SOCKET_PATH_BYTES:
        yield say.error(
            f"the path of a socket in {directory} has {longest} bytes, over"
            f" {LONGEST_SOCKET_PATH_BYTES}",
            "choose a shorter --runtime-dir",
        )
    yield from _directory(directory, say)
    if missing := [group for group in doors.values() if not _exists(group)]:
        yield say.info(
            f"no group {' and no group '.join(missing)}: but for root, only the daemon's own"
            " user can use its sockets",
            f"to let others: {'; '.join(f'sudo groupadd --system {name}' for name in missing)};"
            " then start the daemon again",
        )
    for name, group in doors.items():
        yield from _socket(directory / name, group, say)


def _directory(directory: Path, say: Findings) -> Iterator[Finding]:
    try:
        found = directory.stat()
    except OSError as error:
        yield say.info(
            f"{directory}: {(error.strerror or '').lower()}; the daemon makes it when it starts"
        )
        return
    text = f"{directory} ({rights(directory)})"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        yield say.warning(
            f"{text}: everybody can put another socket there", f"chmod o-w {directory}"
        )
    else:
        yield say.ok(text)


def _socket(path: Path, group: str, say: Findings) -> Iterator[Finding]:
    try:
        found = path.stat()
    except OSError:
        return  # whether a daemon should be there, others tell
    text = f"{path.name} ({rights(path)})"
    if not stat.S_ISSOCK(found.st_mode):
        yield say.error(f"{path} is no socket", "move it away; the daemon makes its own")
    elif not _listens(path):
        yield say.info(f"{text}: left behind by a daemon that was killed; the next one replaces it")
    elif stat.S_IMODE(found.st_mode) != SOCKET_MODE:
        yield say.warning(
            f"{text}: its mode was changed from {SOCKET_MODE:04o}", "start the daemon again"
        )
    elif found.st_uid == 0 and _exists(group) and found.st_gid != grp.getgrnam(group).gr_gid:
        yield say.warning(f"{text}: it is not the group {group}'s", "start the daemon again")
    else:
        yield say.ok(text)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # no permission, a full queue: somebody is there
        return True


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True
