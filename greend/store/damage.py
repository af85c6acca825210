"""A damaged database: noticed, told of, set aside by the next start; never deleted."""

import itertools
import logging
import sqlite3
import time
from pathlib import Path

from greend.errors import Unavailable

log = logging.getLogger(__name__)

_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# What SQLite may keep beside a database: it belongs to it.
_BESIDE = ("-wal", "-shm")


class Damaged(Unavailable):
    """The database is damaged."""


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says so, or SQLAlchemy for it."""
    code: int = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
    return code & 0xFF in _CODES  # without what is finer


def damaged(database: Path, why: object) -> Damaged:
    """The error to raise where damage is found; the next start is told of it."""
    mark(database, str(why))
    return Damaged(
        f"the database {database} is damaged ({why}): `greend doctor` says what to do; measuring"
        " goes on"
    )


def mark(database: Path, why: str) -> None:
    """Has the next start set the database aside."""
    path = _mark(database)
    if path.exists():
        return
    log.error("the database %s is damaged (%s): the next start sets it aside", database, why)
    try:
        path.write_text(why)
    except OSError as error:
        log.error("and %s cannot be written to say so: %s", path, error.strerror)


def marked(database: Path) -> str | None:
    """What is damaged, where a run found that something is."""
    try:
        return _mark(database).read_text()
    except OSError:
        return None


def set_aside(database: Path, why: str) -> Path:
    """Gives a database another name, with what belongs to it. Nobody has it open.

    Raises Unavailable if the directory does not allow it.
    """
    new = _new_name(database)
    try:
        # The log first: beside a new database it would be of none, and SQLite deletes it.
        for suffix in (*_BESIDE, ""):
            path = database.with_name(database.name + suffix)
            if path.exists():
                path.rename(new.with_name(new.name + suffix))
        _mark(database).unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the database {database} is damaged ({why}) and cannot be set aside"
            f" ({error.strerror}): move it elsewhere, or choose another --state-dir"
        ) from error
    log.error(
        "the database %s is damaged (%s): it is set aside as %s, and history begins anew",
        database,
        why,
        new,
    )
    return new


def set_aside_before(database: Path) -> list[Path]:
    """Those that lie beside the database, the oldest first."""
    found = database.parent.glob(f"{database.name}.damaged-*")
    return sorted(path for path in found if not path.name.endswith(_BESIDE))


def trouble(database: Path, write_error: str | None) -> str | None:
    """What is wrong with what is kept, for people; None where nothing is."""
    told = []
    if (why := marked(database)) is not None:
        told.append(f"{database} is damaged ({why}): restart greend, which sets it aside")
    if write_error is not None:
        told.append(write_error)
    if before := set_aside_before(database):
        told.append(
            f"{before[-1]} was damaged and is set aside: what it holds is in no answer; `greend"
            " doctor` says how to get it back"
        )
    return "; ".join(told) or None


def _mark(database: Path) -> Path:
    return database.with_name(f"{database.name}-damage")


def _new_name(database: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    base = database.with_name(f"{database.name}.damaged-{stamp}")
    names = itertools.chain([base], (Path(f"{base}-{number}") for number in itertools.count(2)))
    return next(path for path in names if not path.exists())
