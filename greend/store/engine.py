"""Opening the database: pragmas, migrations."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from greend.errors import Unavailable

DATABASE_NAME = "greend.db"
MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(path: Path, *, synchronous: str = "normal") -> Engine:
    """An engine on the database at `path`, in WAL mode.

    Transactions are begun explicitly: left alone, pysqlite would not roll back
    changes of the schema.
    """
    engine = create_engine(
        f"sqlite+pysqlite:///{path}", connect_args={"isolation_level": None, "timeout": 5.0}
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def migrate(engine: Engine) -> None:
    """Brings the database to this version's schema, in one transaction.

    Raises Unavailable if it was written by a newer version.
    """
    try:
        _migrate(engine)
    except DatabaseError as error:
        raise Unavailable(
            f"the database {engine.url.database} cannot be opened: {error.orig}; move it aside,"
            " or choose another --state-dir"
        ) from error


def scripts() -> ScriptDirectory:
    """All migrations that this version knows, the newest first."""
    return ScriptDirectory.from_config(_configuration())


def _configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _migrate(engine: Engine) -> None:
    migrations = scripts()
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in migrations.walk_revisions()}
        if current is not None and current not in known:
            raise Unavailable(
                f"the database {engine.url.database} was written by a newer greend"
                f" (schema {current}); install that version, or choose another --state-dir"
            )
        if current != migrations.get_current_head():
            config = _configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
