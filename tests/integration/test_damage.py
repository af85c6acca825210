"""What damage of the database does."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from greend.store.damage import set_aside, set_aside_before
from greend.store.engine import migrate, open_engine
from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.daemon import Daemon
from tests.integration.test_windows import refused


def damage(database: Path, name: str) -> None:
    """Makes the first page of a table or index no page."""
    engine = open_engine(database)
    with engine.connect() as connection:
        connection.exec_driver_sql("pragma wal_checkpoint(truncate)")
        query = "select rootpage from sqlite_master where name = ?"
        page = connection.exec_driver_sql(query, (name,)).scalar_one()
        size = connection.exec_driver_sql("pragma page_size").scalar_one()
    engine.dispose()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def new_database(directory: Path) -> Path:
    database = directory / "greend.db"
    engine = open_engine(database)
    migrate(engine)
    engine.dispose()
    return database


def break_the_schema(database: Path) -> None:
    """Leaves the header, which says that it is a database."""
    with database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1_000)


def truncate(database: Path) -> None:
    with database.open("r+b") as file:
        file.truncate(8_192)


def break_a_row(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        columns = [row[1:4] for row in connection.execute("pragma table_info(windows)")]
        # What nobody writes: a text that is no JSON, in a window that is not final.
        values = {name: 0 if kind != "VARCHAR" else "x" for name, kind, needed in columns if needed}
        names = ", ".join(values)
        connection.execute(
            f"insert into windows ({names}) values ({', '.join('?' * len(values))})",
            list((values | {"state": "open", "tags": "{no JSON"}).values()),
        )


def drop_a_table(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("drop table devices")


def not_one(database: Path) -> None:
    database.write_bytes(b"no database, " * 1_000)
    database.with_name("greend.db-wal").write_bytes(b"no log")


@pytest.mark.parametrize(
    "damage_it",
    [
        lambda database: damage(database, "devices"),
        lambda database: damage(database, "sqlite_autoindex_alembic_version_1"),
        break_the_schema,
        truncate,
        break_a_row,
        drop_a_table,
        not_one,
    ],
    ids=["page", "version", "schema", "truncated", "row", "table", "no database"],
)
def test_a_damaged_history_is_set_aside_at_the_start_and_said_loudly(
    tmp_path: Path, damage_it: Callable[[Path], object]
) -> None:
    database = new_database(tmp_path)
    damage_it(database)
    before = database.read_bytes()
    with running_in(tmp_path) as running:
        with running.stub() as stub:
            opened = stub.StartWindow(pb.StartWindowRequest())
            stopped = pb.StopWindowRequest(window_id=opened.window_id, wait_s=10)
            assert stub.StopWindow(stopped).state == "final"
            status = stub.GetStatus(pb.GetStatusRequest())
        (aside,) = set_aside_before(database)
        assert aside.read_bytes() == before
        assert re.fullmatch(r"greend\.db\.damaged-\d{8}T\d{6}Z", aside.name)
        (store,) = (part for part in status.parts if part.name == "store")
        assert (status.state, store.state) == ("degraded", "failed")
        assert str(aside) in store.message
        said = running.log.read_text()
        assert f"it is set aside as {aside}" in said
        assert "Traceback" not in said
        running.stop()
        running.start("--simulate", "h100x1")
        assert set_aside_before(database) == [aside], "what is new is not damaged"
        assert running.rows("select state from windows") == [{"state": "final"}]


def test_a_log_is_set_aside_with_its_database(tmp_path: Path) -> None:
    database = new_database(tmp_path)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).write_bytes(suffix.encode())
    first = set_aside(database, "a test")
    second_of_the_same_second = new_database(tmp_path)
    second = set_aside(second_of_the_same_second, "a test")
    assert not database.exists()
    assert set_aside_before(database) == [first, second]
    for suffix in ("-wal", "-shm"):
        assert first.with_name(first.name + suffix).read_bytes() == suffix.encode()


def test_damage_found_while_running_is_set_aside_by_the_next_start(tmp_path: Path) -> None:
    database = new_database(tmp_path)
    damage(database, "sqlite_autoindex_minutes_1")
    with running_in(tmp_path) as running:
        with running.stub() as stub:
            assert stub.GetStatus(pb.GetStatusRequest()).devices_ok == 1
            refused(
                lambda: stub.GetLedger(pb.GetLedgerRequest()),
                grpc.StatusCode.UNAVAILABLE,
                "greend doctor",
            )
            status = stub.GetStatus(pb.GetStatusRequest())
            (store,) = (part for part in status.parts if part.name == "store")
            assert "restart greend, which sets it aside" in store.message
            # Measuring goes on.
            counted_j = sampled_j(stub)
            time.sleep(2)
            assert sampled_j(stub) > counted_j
        assert set_aside_before(database) == [], "it is in use"
        running.stop()
        running.start("--simulate", "h100x1", devices=1)
        assert len(set_aside_before(database)) == 1
        with running.stub() as stub:
            (row,) = stub.GetLedger(pb.GetLedgerRequest()).rows
            assert row.measured_j >= 0
            (store,) = (
                part for part in stub.GetStatus(pb.GetStatusRequest()).parts if part.name == "store"
            )
            assert "is damaged" not in store.message


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = new_database(tmp_path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update alembic_version set version_num = '9999'")
    before = database.read_bytes()
    running = Daemon(tmp_path)
    with pytest.raises(AssertionError):
        running.start("--simulate", "h100x1")
    said = running.log.read_text()
    assert "written by a newer greend (schema 9999)" in said
    assert "install that version, or choose another --state-dir" in said
    assert database.read_bytes() == before
    assert set_aside_before(database) == []


def sampled_j(stub: metering_pb2_grpc.MeteringServiceStub) -> float:
    (sample,) = stub.GetSnapshot(pb.GetSnapshotRequest()).samples
    return sample.energy_counter_j


@contextmanager
def running_in(directory: Path) -> Iterator[Daemon]:
    running = Daemon(directory)
    try:
        yield running.start("--simulate", "h100x1", devices=1)
    finally:
        assert running.process is not None
        running.process.kill()
        running.process.wait()
