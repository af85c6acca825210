"""What is kept: state directory, database, room for more."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.doctor.rights import owner
from greend.errors import Unavailable
from greend.store.damage import marked, set_aside_before
from greend.store.engine import DATABASE_NAME
from greend.store.inspection import Inspection, inspect

CHECK_S = 5.0
GIB, MIB = 2**30, 2**20
# SQLite's log is emptied about every 4 MiB, unless a reader holds it.
LONG_LOG_BYTES = 256 * MIB
LEAST_FREE_BYTES = 100 * MIB
# Where SQLite's locks and shared memory cannot be relied on.
_NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"} | {
    "ocfs2",
    "orangefs",
    "smb3",
    "fuse.glusterfs",
    "fuse.sshfs",
}


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """From the directory to the database in it."""
    directory = host.state_dir
    if not os.access(directory, os.R_OK | os.X_OK):
        yield _closed(directory, say)
        return
    yield _writable(directory, say)
    if kind := _network_file_system(directory, host.root):
        yield say.warning(
            f"{directory} lies on a network file system ({kind}), on which SQLite is not safe",
            "choose a --state-dir on a disk of this host",
        )
    database = directory / DATABASE_NAME
    used_bytes = 0
    if not database.exists():
        yield say.info(f"no {database} yet: the daemon makes it when it starts")
    else:
        try:
            seen = inspect(database, CHECK_S)
        except Unavailable as error:
            yield say.warning(str(error), "run greend doctor as root")
        else:
            used_bytes = seen.used_bytes
            yield from _database(database, seen, host.settings.store.windows_gib, say)
    for path in set_aside_before(database):
        yield say.warning(
            f"{path} was damaged and is set aside: what it holds is in no answer",
            f"sqlite3 {path} .recover | sqlite3 recovered.db gets out what can be; then move it"
            " elsewhere",
        )
    yield _room(directory, used_bytes, host.settings.store.windows_gib, say)


def _closed(directory: Path, say: Findings) -> Finding:
    try:
        directory.stat()
    except FileNotFoundError:
        return say.info(f"{directory} is not there: the daemon makes it when it starts")
    except OSError:
        pass  # a directory above it is closed
    return say.info(f"{directory} is closed to this user", "run greend doctor as root")


def _writable(directory: Path, say: Findings) -> Finding:
    if os.access(directory, os.W_OK):
        return say.ok(f"{directory} is writable")
    if os.geteuid() in (0, directory.stat().st_uid):
        return say.error(f"{directory} is not writable", "see `findmnt` whether it is read-only")
    return say.info(f"{directory} is {owner(directory)}'s: not writable for this user")


def _database(path: Path, seen: Inspection, windows_gib: float, say: Findings) -> Iterator[Finding]:
    damage = seen.damage or marked(path)
    if damage:
        yield say.error(
            f"{path} is damaged: {damage}",
            f"restart greend: it sets {path.name} aside and begins with an empty history; or stop"
            f" it, move {path} and {path.name}-* aside, and put a backup in its place",
        )
        return
    if not seen.known:
        yield say.error(
            f"{path} was written by a newer greend (schema {seen.schema}, this one knows up to"
            f" {seen.newest})",
            "install that version, or choose another --state-dir",
        )
        return
    if seen.damage is None:
        yield say.info(
            f"{path} is large: checking it for damage did not end within {CHECK_S:.0f} s",
            f"take the time: sqlite3 -readonly {path} 'pragma quick_check'",
        )
    schema = f"schema {seen.schema or 'none yet'}"
    if seen.schema != seen.newest:
        schema += f", which the next start brings to {seen.newest}"
    log = path.with_name(path.name + "-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    yield say.ok(
        f"{path}: {schema}; {seen.used_bytes / MIB:.1f} MiB used, of windows at most"
        f" {windows_gib:g} GiB; log {log_bytes / MIB:.1f} MiB"
    )
    if seen.used_bytes > 1.1 * windows_gib * GIB:
        yield say.warning(
            "it holds more than [store] windows_gib allows", "start greend: it deletes the oldest"
        )
    if log_bytes > LONG_LOG_BYTES:
        yield say.warning(
            f"its log {log} does not get shorter: somebody holds the database open for long",
            f"see who: sudo fuser -v {path}",
        )


def _room(directory: Path, used_bytes: int, windows_gib: float, say: Findings) -> Finding:
    free = shutil.disk_usage(directory).free
    wanted = max(windows_gib * GIB - used_bytes, 0)
    found = f"{free / GIB:.1f} GiB free for {directory}"
    if free < LEAST_FREE_BYTES:
        return say.error(found, "make room: with a full disk nothing is kept any more")
    if free < wanted:
        return say.warning(
            f"{found}, and windows may grow by {wanted / GIB:.1f} GiB",
            "make room, or lower [store] windows_gib",
        )
    return say.ok(found)


def _network_file_system(directory: Path, root: Path) -> str:
    """Its kind, if it is one."""
    number = directory.stat().st_dev
    here = f"{os.major(number)}:{os.minor(number)}"
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        # proc(5): 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
        before, _, after = line.partition(" - ")
        if before.split()[2] == here and after.split()[0] in _NETWORK:
            return after.split()[0]
    return ""
