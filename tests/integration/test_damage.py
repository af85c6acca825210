"""What damage of the database does."""

from pathlib import Path

import grpc
import pytest

from greend.store.engine import migrate, open_engine
from greend_proto.v1 import metering_pb2 as pb
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


def test_a_damaged_history_is_refused_at_the_start_with_what_to_do(tmp_path: Path) -> None:
    database = tmp_path / "greend.db"
    engine = open_engine(database)
    migrate(engine)
    engine.dispose()
    damage(database, "devices")
    running = Daemon(tmp_path)
    with pytest.raises(AssertionError) as caught:
        running.start("--simulate", "h100x1")
    said = running.log.read_text()
    assert f"greend: the database {database} is damaged" in said, caught.value
    assert "greend doctor" in said
    assert "Traceback" not in said


def test_who_reads_what_is_damaged_is_told_so_and_measuring_goes_on(tmp_path: Path) -> None:
    database = tmp_path / "greend.db"
    engine = open_engine(database)
    migrate(engine)
    engine.dispose()
    damage(database, "sqlite_autoindex_minutes_1")
    running = Daemon(tmp_path)
    try:
        running.start("--simulate", "h100x1", devices=1)
        with running.stub() as stub:
            refused(
                lambda: stub.GetLedger(pb.GetLedgerRequest()),
                grpc.StatusCode.UNAVAILABLE,
                "greend doctor",
            )
            assert stub.GetStatus(pb.GetStatusRequest()).devices_ok == 1
    finally:
        assert running.process is not None
        running.process.kill()
        running.process.wait()
