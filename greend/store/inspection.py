"""Looking at a database without changing it, while a daemon uses it or not."""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from greend.errors import Unavailable
from greend.store.engine import revision, revisions
from greend.store.prunable import used_bytes

_STEPS = 10_000  # of SQLite's virtual machine, well under a millisecond, between two looks


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a database is like.

    `schema` is None where nothing was written yet; `known` tells whether this version
    can read it, `newest` what it writes. `damage` is SQLite's word for what is broken,
    empty if nothing is; None: the check did not end in time.
    """

    schema: str | None
    known: bool
    newest: str
    used_bytes: int
    damage: str | None


def inspect(path: Path, timeout_s: float) -> Inspection:
    """Looks at the database, and checks it for damage for at most so long.

    Raises Unavailable if it cannot be opened or read now.
    """
    log = path.with_name(path.name + "-wal")
    # Without a log no daemon is at work. Said to be immutable, the file is read as it
    # is; otherwise SQLite would make a log and its index beside it.
    quiet = not log.exists()
    try:
        found = _look(path, timeout_s, quiet)
        # A daemon that started meanwhile may have changed what was read.
        return _look(path, timeout_s, False) if quiet and log.exists() else found
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path} cannot be read now: {error}") from error


def _look(path: Path, timeout_s: float, immutable: bool) -> Inspection:
    how = "mode=ro&immutable=1" if immutable else "mode=ro"
    address = f"file:{quote(str(path))}?{how}"
    with closing(sqlite3.connect(address, uri=True, timeout=1.0)) as database:
        return _inspect(database, time.monotonic() + timeout_s)


def _inspect(database: sqlite3.Connection, deadline_s: float) -> Inspection:
    known = revisions()
    schema, used, damage = None, 0, ""

    def value(query: str) -> Any:
        return database.execute(query).fetchone()[0]

    try:
        schema = revision(value)
        used = used_bytes(value)
        database.set_progress_handler(lambda: time.monotonic() > deadline_s, _STEPS)
        words = str(database.execute("pragma quick_check(1)").fetchone()[0])
        damage = "" if words == "ok" else words
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return Inspection(schema, schema in (None, *known), known[0], used, None)
    except sqlite3.DatabaseError as error:
        damage = str(error)
    return Inspection(schema, schema in (None, *known), known[0], used, damage)
