"""Opening the database: pragmas, migrations."""

import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from greend.errors import Unavailable
from greend.store.damage import Damaged, damaged, is_damage

log = logging.getLogger(__name__)

DATABASE_NAME = "greend.db"
MIGRATIONS = Path(__file__).parent / "migrations"
# SQLite looks so often whether somebody still waits for it: every few ms.
INSTRUCTIONS_BETWEEN_LOOKS = 100_000
# How a migration ends that finds damage.
DAMAGED_STATUS = 3


def open_engine(path: Path, *, synchronous: str = "normal") -> Engine:
    """An engine on the database at `path`, in WAL mode.

    Transactions are begun explicitly: left alone, pysqlite would not roll back
    changes of the schema.
    """
    engine = create_engine(
        # Not as text, in which some signs of a path would mean something else.
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": 5.0},
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@contextmanager
def reading(engine: Engine, given_up: threading.Event | None = None) -> Iterator[Connection]:
    """A connection to read with.

    Raises InterruptedError soon after `given_up` is set, and Damaged if what is read is.
    """
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        if given_up is not None:
            driver.set_progress_handler(given_up.is_set, INSTRUCTIONS_BETWEEN_LOOKS)
        try:
            yield connection
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise InterruptedError from None
            if not is_damage(error):
                raise
            assert engine.url.database is not None
            raise damaged(Path(engine.url.database), error.orig) from error.orig
        finally:
            driver.set_progress_handler(None, 0)


def migrate(engine: Engine) -> None:
    """Brings the database to this version's schema, in one transaction.

    Raises Damaged; Unavailable if it cannot be opened, or was written by a newer version.
    """
    path = engine.url.database
    try:
        with engine.connect() as connection:
            current = revision(lambda query: connection.exec_driver_sql(query).scalar_one())
    except DatabaseError as error:
        if is_damage(error):
            raise Damaged(f"the database {path} is damaged ({error.orig})") from error.orig
        raise Unavailable(
            f"the database {path} cannot be opened: {error.orig}; move it aside, or choose another"
            " --state-dir"
        ) from error
    known = revisions()
    if current == known[0]:
        return
    if current is not None and current not in known:
        raise Unavailable(
            f"the database {path} was written by a newer greend (schema {current}); install that"
            " version, or choose another --state-dir"
        )
    # A process of its own: Alembic takes 11 MB that a daemon would keep for nothing.
    command = [sys.executable, "-m", "greend.store.migration", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        log.error("the migration failed: %s", done.stderr)
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        if done.returncode == DAMAGED_STATUS:
            raise Damaged(f"the database {path} is damaged ({reason})")
        raise Unavailable(
            f"the database {path} cannot be brought to schema {known[0]}: {reason}; it is as it was"
        )


def revisions() -> list[str]:
    """The schemas that this version knows, the newest first."""
    names = (path.name for path in MIGRATIONS.glob("versions/[0-9]*.py"))
    return sorted((name.partition("_")[0] for name in names), reverse=True)


def revision(value: Callable[[str], Any]) -> str | None:
    """The schema of a database, None where nothing was written yet.

    `value` gives the one value of a query.
    """
    if not value("select count(*) from sqlite_master where name = 'alembic_version'"):
        return None
    found: str | None = value("select max(version_num) from alembic_version")
    return found
