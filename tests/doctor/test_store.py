"""What the doctor says of the state directory and the database, and that it changes neither."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from greend.errors import Unavailable
from greend.store.engine import migrate, open_engine
from greend.store.inspection import inspect
from tests.daemon import daemon
from tests.doctor.conftest import Doctor
from tests.doctor.hosts import findings


def fill(path: Path, rows: int = 2_000) -> None:
    """A database as a daemon leaves it."""
    engine = open_engine(path)
    migrate(engine)
    engine.dispose()
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "insert into devices (uuid, name, last_seen_unix_ns) values (?, ?, 0)",
            ((f"GPU-{number}", "x" * 500) for number in range(rows)),
        )
    assert not path.with_name("greend.db-wal").exists()


def contents(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in directory.iterdir()
    }


def test_an_empty_state_directory_is_fine(doctor: Doctor) -> None:
    report = doctor.report()
    assert report.one("store", "is writable")["level"] == "ok"
    assert report.one("store", "no ")["level"] == "info"
    assert report.one("store", "GiB free")["level"] in ("ok", "warning")
    assert contents(doctor.directory) == {}


def test_a_database_at_rest_is_checked_and_left_as_it_is(doctor: Doctor) -> None:
    fill(doctor.directory / "greend.db")
    before = contents(doctor.directory)
    report = doctor.report()
    assert report.one("store", "greend.db: schema")["level"] == "ok"
    assert "of windows at most 4 GiB" in report.one("store", "greend.db: schema")["found"]
    assert contents(doctor.directory) == before


def test_a_database_in_use_is_read_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "greend.db"
    fill(path, rows=0)
    with closing(sqlite3.connect(path)) as writing:
        writing.execute("update alembic_version set version_num = '9999'")
        writing.commit()
        assert inspect(path, 5.0).schema == "9999", "it stands in the log only"
        before = path.read_bytes()
    assert b"9999" not in before


def test_a_database_of_a_newer_version_is_an_error(doctor: Doctor) -> None:
    fill(doctor.directory / "greend.db")
    with closing(sqlite3.connect(doctor.directory / "greend.db")) as database, database:
        database.execute("update alembic_version set version_num = '9999'")
    report = doctor.report()
    newer = report.one("store", "written by a newer greend (schema 9999")
    assert newer["level"] == "error"
    assert "install that version" in newer["remedy"]
    assert report.status == 1


def tear(path: Path) -> None:
    """Overwrites the leaves of a table, not its first page."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 40_000)


@pytest.mark.parametrize("damage", [tear, lambda path: path.write_bytes(b"no database, " * 1_000)])
def test_a_damaged_database_is_an_error(doctor: Doctor, damage: Callable[[Path], object]) -> None:
    path = doctor.directory / "greend.db"
    fill(path)
    damage(path)
    before = contents(doctor.directory)
    report = doctor.report()
    damaged = report.one("store", "is damaged")
    assert damaged["level"] == "error"
    assert "backup" in damaged["remedy"]
    assert contents(doctor.directory) == before
    assert report.status == 1


def test_a_check_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    fill(tmp_path / "greend.db", rows=20_000)
    seen = inspect(tmp_path / "greend.db", 0.0)
    assert seen.damage is None
    assert seen.known
    assert seen.used_bytes > 10_000_000


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "greend.db").mkdir()
    with pytest.raises(Unavailable, match=r"greend\.db"):
        inspect(tmp_path / "greend.db", 1.0)


def test_a_daemon_s_own_database_is_fine_while_it_runs(doctor: Doctor) -> None:
    with daemon("--simulate", "h100x1", devices=1) as running:
        place = str(running.directory)
        report = doctor.report("--state-dir", place, "--runtime-dir", place)
    assert report.one("store", "greend.db: schema")["level"] == "ok"


def test_too_little_room_for_what_may_be_kept_is_a_warning(doctor: Doctor) -> None:
    gib = shutil.disk_usage(doctor.directory).free / 2**30 + 1_000
    doctor.environment = {"GREEND_STORE_WINDOWS_GIB": f"{gib:.0f}"}
    report = doctor.report()
    assert report.one("store", "windows may grow by")["level"] == "warning"


def test_a_network_file_system_is_a_warning(tmp_path: Path) -> None:
    """Where /proc/self/mountinfo says so; one is not to be had on every machine."""
    from greend.config import Daemon, Settings

    number = tmp_path.stat().st_dev
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "22 27 0:1 / /proc rw,relatime - proc proc rw\n"
        f"36 35 {number >> 8 & 0xFFF}:{number & 0xFF} / /data rw shared:1 - nfs4 nas:/data rw\n"
    )
    settings = Settings(daemon=Daemon(state_dir=str(tmp_path)))
    found = findings("store", tmp_path, settings=settings)
    (warned,) = [finding for finding in found if "network file system (nfs4)" in finding.found]
    assert warned.level == "warning"
    assert "--state-dir" in warned.remedy
