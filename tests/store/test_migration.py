"""The schema: made by migrations, found out without Alembic."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from greend.errors import Unavailable
from greend.metering.summary import summarize
from greend.store.engine import MIGRATIONS, migrate, open_engine, revisions
from greend.store.reader import StoreReader, WindowQuery
from greend.store.schema import Base


def test_the_files_names_say_what_alembic_says() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert revisions() == [script.revision for script in scripts.walk_revisions()]
    assert revisions()[0] == scripts.get_current_head()


def test_migrations_make_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "greend.db")
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert context.get_current_revision() == revisions()[0]
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_windows_of_before_there_were_phases_bounds_and_mig_come_along(tmp_path: Path) -> None:
    path = tmp_path / "greend.db"
    engine = open_engine(path)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "insert into windows values ('w', 'r', '{}', '[\"GPU-1\"]', 1, 2, 'final', 1.0, '',"
                " x'', null, null, 7, null, 3.0, 2.0, 0.0, 0.0,"
                " '{\"GPU-1\": [1.0, 2.0, 4.0, true, 0.0, 0.0, \"energy_counter\", []]}', '[]')"
            )
        )
    migrate(engine)
    reader = StoreReader(engine)
    (window,) = reader.windows(WindowQuery(devices=["GPU-1"]), limit=2)
    assert (window.devices, window.cards) == (("GPU-1",), ())
    assert (window.shares["GPU-1"].own_mj, window.usage.output_tokens) == (3.0, 7)
    assert (window.phases, window.iteration_driven) == ((), False)
    assert window.bound is None, "unknown, not 0"
    (group,) = summarize(reader.measured(WindowQuery(), []), [], bucket_s=None, include_idle=True)
    assert (group.energy_j, group.uncertainty_j) == (0.003, None)
    engine.dispose()


def test_a_migration_that_fails_changes_nothing_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "greend.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table devices (mine)")
        database.commit()
    engine = open_engine(path)
    with pytest.raises(Unavailable, match=r"table devices already exists.*it is as it was"):
        migrate(engine)
    engine.dispose()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("select name from sqlite_master").fetchall() == [("devices",)]


def test_the_daemon_does_not_keep_alembic_in_memory() -> None:
    code = "import greend.daemon, sys; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
