"""What the watchdog is told of the store's writer."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from greend.errors import GreendError
from greend.model import DeviceRecord
from greend.store.engine import migrate, open_engine
from greend.store.writer import StoreWriter

DEVICE = DeviceRecord("GPU-1", "A100", 0, None, None)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_commit_that_does_not_return_is_no_progress_a_refused_one_is(tmp_path: Path) -> None:
    path = tmp_path / "greend.db"
    engine = open_engine(path)
    migrate(engine)
    writer = StoreWriter(engine)
    try:
        writer.write(devices=[DEVICE]).result(10)
        assert writer.stuck(longest_s=0) is None, "nothing is queued"
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            # SQLite waits 5 s for the lock.
            waiting = writer.write(devices=[DEVICE])
            wait_for(lambda: writer.stuck(longest_s=0.5))
            assert writer.stuck() is None, "a bound is not reached yet"
            with pytest.raises(GreendError):
                waiting.result(10)
            wait_for(lambda: writer.stuck(longest_s=0) is None)
        writer.write(devices=[DEVICE]).result(10)
    finally:
        writer.stop(5)
        engine.dispose()
    assert writer.stuck() == "the store's writer has ended"
