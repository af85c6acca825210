"""What is too old or too much is deleted, a step at a time; nothing else is."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from greend.metering.pruning import STEP_ROWS, Pruner
from greend.model import NS_PER_S, Booking, Window, WindowState
from greend.store.engine import DATABASE_NAME, migrate, open_engine
from greend.store.prunable import Prunable
from greend.store.reader import StoreReader, WindowQuery
from greend.store.retention import DAY_NS, Retention
from greend.store.writer import StoreWriter

NOW = time.time_ns()


class Store:
    def __init__(self, directory: Path) -> None:
        engine = open_engine(directory / DATABASE_NAME)
        migrate(engine)
        self.writer, self.reader = StoreWriter(engine), StoreReader(engine)
        self.active: set[str] = set()
        self.pruner = Pruner(
            Prunable(engine),
            self.writer,
            is_active=self.active.__contains__,
            now_unix_ns=lambda: NOW,
        )

    def add(self, count: int, age_ns: int, state: WindowState = WindowState.FINAL) -> None:
        windows = [
            Window(str(uuid.uuid4()), "r" * 200, {}, (), NOW - age_ns - number, state=state)
            for number in range(count)
        ]
        self.writer.write(windows=windows).result()

    def count(self) -> int:
        return len(self.reader.windows(WindowQuery(), limit=100_000))

    def prune(self, retention: Retention) -> int:
        """Steps that it took."""

        async def steps() -> int:
            count = 1
            while await self.pruner.expire(retention):
                count += 1
            return count

        return asyncio.run(steps())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.writer.stop(5)


def test_windows_and_minutes_go_when_they_are_too_old(store: Store) -> None:
    store.add(10, age_ns=8 * DAY_NS)
    store.add(5, age_ns=6 * DAY_NS)
    store.add(1, age_ns=30 * DAY_NS, state=WindowState.OPEN)
    minute = NOW // NS_PER_S // 60 * 60
    store.writer.write(
        bookings=[Booking("GPU-0", minute - days * 86_400, 1.0, 1.0) for days in (0, 89, 91, 200)]
    ).result()
    store.prune(Retention())
    assert store.count() == 6, "what still runs is kept, however old"
    ((booking, _),) = store.reader.ledger([], None, None)
    assert booking.measured_mj == 2.0


def test_many_rows_go_in_small_steps(store: Store) -> None:
    store.add(2 * STEP_ROWS + 1, age_ns=8 * DAY_NS)
    assert store.prune(Retention()) == 4, "three that delete, one that finds nothing"
    assert store.count() == 0


def test_a_window_whose_end_is_still_to_be_told_is_kept(store: Store) -> None:
    store.add(2, age_ns=8 * DAY_NS)
    told, untold = store.reader.windows(WindowQuery(), limit=2)
    store.active.add(untold.window_id)
    store.prune(Retention())
    assert store.reader.window(told.window_id) is None
    assert store.reader.window(untold.window_id) == untold


MANY = 5000  # more than a step deletes, and than is kept


def test_the_oldest_go_when_the_database_is_too_large(store: Store) -> None:
    store.add(MANY, age_ns=0)
    kept_bytes = 1_000_000
    store.prune(Retention(windows_bytes=kept_bytes))
    left = store.reader.windows(WindowQuery(), limit=100_000)
    assert 0 < len(left) < MANY
    assert max(NOW - window.start_unix_ns for window in left) < MANY - 1
    store.add(10, age_ns=0)
    assert store.count() == len(left) + 10
