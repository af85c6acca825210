"""A copy of the database at one instant, while it is written to."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from greend.errors import ResourceExhausted
from greend.store.damage import damaged, is_damage
from greend.store.engine import INSTRUCTIONS_BETWEEN_LOOKS
from greend.store.prunable import used_bytes

# Directories beside the database; one that is left there is of a run that was killed.
_PREFIX = ".greend-backup-"
# What the store may need itself meanwhile.
_RESERVE_BYTES = 16 * 2**20


def remove_leftovers(database: Path) -> None:
    """Removes what a run that was killed left of its copies."""
    for directory in database.parent.glob(f"{_PREFIX}*"):
        shutil.rmtree(directory, ignore_errors=True)


def copy_database(database: Path, stopped: threading.Event) -> BinaryIO:
    """A compact copy, without the digests of sessions' secrets, as a file without a name.

    It is gone when it is closed, or the process ends. Blocks; writers do not wait for
    it. Raises ResourceExhausted if the disk has no room for it, InterruptedError soon
    after `stopped` is set.
    """
    with (
        TemporaryDirectory(prefix=_PREFIX, dir=database.parent) as directory,
        _told(database, stopped),
        closing(_connect(database, stopped)) as live,
    ):
        _check_room(live, database)
        copy = Path(directory, database.name)
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        live.execute("VACUUM INTO ?", (str(copy),))
        _forget_secrets(copy, stopped)
        return copy.open("rb")


def _connect(database: Path, stopped: threading.Event) -> sqlite3.Connection:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.set_progress_handler(stopped.is_set, INSTRUCTIONS_BETWEEN_LOOKS)
    return connection


def _forget_secrets(copy: Path, stopped: threading.Event) -> None:
    with closing(_connect(copy, stopped)) as connection:
        # Nobody else knows the file, and it is thrown away if this fails.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        # Or the old bytes would stay in the pages.
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("UPDATE windows SET token_digest = x'' WHERE token_digest != x''")
        connection.execute("DELETE FROM sessions")
        # No daemon goes on with a copy: its windows are closed with what they have got.
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM runs")


def _check_room(live: sqlite3.Connection, database: Path) -> None:
    used = used_bytes(lambda query: live.execute(query).fetchone()[0])
    needed_bytes = used + _RESERVE_BYTES
    free_bytes = shutil.disk_usage(database.parent).free
    if free_bytes < needed_bytes:
        raise ResourceExhausted(
            f"a backup needs {needed_bytes / 1e6:.0f} MB in {database.parent} for a moment, and"
            f" {free_bytes / 1e6:.0f} MB are free: free space there, or prune first"
        )


@contextmanager
def _told(database: Path, stopped: threading.Event) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise damaged(database, error) from error
        if stopped.is_set():
            raise InterruptedError from None
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise ResourceExhausted(
                f"the disk became full during the backup: free space in {database.parent}"
            ) from None
        raise
