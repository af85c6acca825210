"""The one writer: a thread that commits what is queued, batch by batch."""

import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert, insert

from greend.errors import GreendError, ResourceExhausted, Unavailable
from greend.model import AMOUNTS, Booking, DeviceRecord, Window, WindowState
from greend.store.damage import is_damage, mark
from greend.store.prunable import MinuteKey
from greend.store.records import (
    WINDOW_NEWS,
    WINDOW_START,
    booking_to_row,
    device_to_row,
    window_to_news,
    window_to_start,
)
from greend.store.recovery import Kept
from greend.store.schema import Base, DeviceRow, MinuteRow

log = logging.getLogger(__name__)

# Commits of this many writes take about 20 ms: no acknowledgement waits longer.
LARGEST_BATCH = 5_000
# Far beyond what SQLite waits for a lock (5 s) or a slow disk takes for a commit.
STUCK_S = 20.0


def _uncancellable() -> "Future[Any]":
    """A caller that gives up waiting must not take back what it said."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True)
class _Write:
    """`done` says which of `inserts` were there already, or how many rows were deleted."""

    inserts: Sequence[Window] = ()
    windows: Sequence[Window] = ()
    bookings: Sequence[Booking] = ()
    devices: Sequence[DeviceRecord] = ()
    delete: tuple[Sequence[str], Sequence[MinuteKey]] | None = None
    kept: Kept | None = None
    done: "Future[Any]" = field(default_factory=_uncancellable)


class StoreWriter:
    """Writes windows, bookings and devices.

    A returned future is done when its write is committed. `stop` commits what is
    queued and joins the thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._error: str | None = None
        # When the batch at hand was taken up; None while nothing is queued.
        self._taken_s: float | None = None
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def insert(
        self, new: Sequence[Window], changed: Sequence[Window] = (), kept: Kept | None = None
    ) -> "Future[frozenset[str]]":
        """Queues windows that should be new, changes of others, and what is kept beside them.

        The future says which of `new` were there already: of those nothing is written.
        """
        write = _Write(new, changed, kept=kept)
        self._queue.put(write)
        return write.done

    def write(
        self,
        *,
        windows: Sequence[Window] = (),
        bookings: Sequence[Booking] = (),
        devices: Sequence[DeviceRecord] = (),
        kept: Kept | None = None,
    ) -> "Future[object]":
        """Queues a write. Of several writes of a window or device the last one counts;
        bookings are added to what their minutes hold.

        The future raises ResourceExhausted on a full disk, else Unavailable.
        """
        write = _Write((), windows, bookings, devices, kept=kept)
        self._queue.put(write)
        return write.done

    def delete(
        self, windows: Sequence[str] = (), minutes: Sequence[MinuteKey] = ()
    ) -> "Future[tuple[int, int]]":
        """Queues the deletion of windows, by id, and minutes; says how many of each were there.

        Windows that are not final are kept. Pages that become free are used again.
        Whoever waits for a commit meanwhile waits for this: not many at a time.
        """
        write = _Write(delete=(windows, minutes))
        self._queue.put(write)
        return write.done

    def stop(self, timeout_s: float) -> None:
        """Commits what is queued and ends the thread."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    @property
    def error(self) -> str | None:
        """Why nothing can be written now; None while it can."""
        return self._error if self._thread.is_alive() else "the writer has ended: restart greend"

    def stuck(self, longest_s: float = STUCK_S) -> str | None:
        """Why nothing that is queued is taken up; None while it is. A refused write is
        progress: a restart would not make it welcome.
        """
        if not self._thread.is_alive():
            return "the store's writer has ended"
        taken_s = self._taken_s
        if taken_s is None or time.monotonic() - taken_s <= longest_s:
            return None
        return f"a commit to the store has not returned for {longest_s:g} s"

    def _run(self) -> None:
        # The driver's own connection: what SQLAlchemy adds to a call, a commit's worth of
        # time, would be waited for by every acknowledgement (`scripts/bench rpc`).
        with closing(self._engine.raw_connection()) as connection:
            driver = connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            while batch := self._take():
                self._taken_s = time.monotonic()
                try:
                    results = self._commit(driver, batch)
                except Exception as error:
                    self._refuse(batch, error)
                    continue
                self._error = None
                for write, result in zip(batch, results, strict=True):
                    write.done.set_result(result)

    def _refuse(self, batch: list[_Write], error: Exception) -> None:
        if str(error) != self._error:  # once: a full disk must not be filled with this
            log.error("the store refused %d writes", len(batch), exc_info=error)
        self._error = str(error)
        if is_damage(error) and self._engine.url.database is not None:
            mark(Path(self._engine.url.database), str(error))
        told = _tell(error)
        for write in batch:
            write.done.set_exception(told)

    def _take(self) -> list[_Write]:
        """Everything that is queued, at least one write; nothing at the end."""
        self._taken_s = None
        item = self._queue.get()
        batch: list[_Write] = []
        while item is not None:
            batch.append(item)
            if len(batch) >= LARGEST_BATCH or self._queue.empty():
                return batch
            item = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _commit(self, driver: sqlite3.Connection, batch: list[_Write]) -> list[Any]:
        inserts = [window for write in batch for window in write.inserts]
        windows: dict[str, Window] = {}
        for window in (window for write in batch for window in write.windows):
            # Of several writes of one window the last one counts, but for a final one.
            before = windows.get(window.window_id)
            if before is None or before.state is not WindowState.FINAL:
                windows[window.window_id] = window
        bookings = [booking for write in batch for booking in write.bookings]
        devices = {device.uuid: device for write in batch for device in write.devices}
        more = any(write.delete or write.kept for write in batch)
        # A lone row is a transaction by itself.
        rows_in_all = len(inserts) + len(windows) + len(bookings) + len(devices)
        with nullcontext() if rows_in_all == 1 and not more else _transaction(driver):
            there = _insert(driver, inserts)
            _change(driver, windows.values())
            for statement, rows in (
                (_ADD_BOOKING, [booking_to_row(item) for item in bookings]),
                (_UPSERT_DEVICE, [device_to_row(item) for item in devices.values()]),
            ):
                if rows:
                    driver.executemany(statement, rows)
            for write in batch:
                if write.kept is not None:
                    write.kept.write(driver)
            return [
                _delete(driver, *write.delete)
                if write.delete
                else there.intersection(item.window_id for item in write.inserts)
                for write in batch
            ]


def _insert(driver: sqlite3.Connection, windows: Collection[Window]) -> frozenset[str]:
    """Inserts windows that are not there; says which were."""
    if not windows:
        return frozenset()
    ids = json.dumps([window.window_id for window in windows])
    there = frozenset(window_id for (window_id,) in driver.execute(_KNOWN_WINDOWS, [ids]))
    driver.executemany(
        _INSERT_WINDOW,
        [
            window_to_start(window) + window_to_news(window)
            for window in windows
            if window.window_id not in there
        ],
    )
    return there


def _change(driver: sqlite3.Connection, windows: Collection[Window]) -> None:
    """Writes what has changed of windows, unless they are final; inserts those not there."""
    if not windows:
        return
    rows = [(*window_to_news(window), window.window_id) for window in windows]
    if driver.executemany(_CHANGE_WINDOW, rows).rowcount < len(rows):
        _insert(driver, windows)


def _delete(
    driver: sqlite3.Connection, windows: Sequence[str], minutes: Sequence[MinuteKey]
) -> tuple[int, int]:
    return (
        driver.executemany(_DELETE_WINDOW, [(window_id,) for window_id in windows]).rowcount,
        driver.executemany(_DELETE_MINUTE, minutes).rowcount,
    )


@contextmanager
def _transaction(driver: sqlite3.Connection) -> Iterator[None]:
    driver.execute("BEGIN IMMEDIATE")
    try:
        yield
        driver.execute("COMMIT")
    except BaseException:
        # Some errors have ended the transaction already.
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        raise


def _tell(error: Exception) -> GreendError:
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return ResourceExhausted("the disk is full: free space in the state directory")
    if isinstance(error, sqlite3.Error):
        return Unavailable("the store cannot be written; `greenctl status` says more")
    return Unavailable("the store failed; see the daemon's log")


def _sql(row: type[Base], on_conflict: Callable[[Insert], Insert]) -> str:
    """A statement, compiled once: an acknowledged call waits for it, and compiling, binding
    and typing it anew would cost more than the commit. Parameters are the columns' names.
    """
    table = row.__table__
    assert isinstance(table, Table)
    dialect = sqlite.dialect(paramstyle="named")
    return str(on_conflict(insert(table)).compile(dialect=dialect))


def _replace(key: Sequence[str], added: Sequence[str] = ()) -> Callable[[Insert], Insert]:
    """Takes the new values, or adds them to the old."""

    def on_conflict(statement: Insert) -> Insert:
        old, new = statement.table.c, statement.excluded
        changes = {
            column.name: old[column.name] + new[column.name]
            if column.name in added
            else new[column.name]
            for column in old
            if column.name not in key
        }
        return statement.on_conflict_do_update(index_elements=list(key), set_=changes)

    return on_conflict


_COLUMNS = (*WINDOW_START, *WINDOW_NEWS)
# By position: to look up a row's values by name takes as long as to write them.
_INSERT_WINDOW = (
    f"insert into windows ({', '.join(_COLUMNS)}) values ({', '.join('?' for _ in _COLUMNS)})"
    " on conflict do nothing"
)
# What is final never changes. Naming no column that cannot change spares their indexes.
_CHANGE_WINDOW = (
    f"update windows set {', '.join(f'{name} = ?' for name in WINDOW_NEWS)}"
    f" where window_id = ? and state != '{WindowState.FINAL}'"
)
_KNOWN_WINDOWS = "select window_id from windows where window_id in (select value from json_each(?))"
_UPSERT_DEVICE = _sql(DeviceRow, _replace(["uuid"]))
_ADD_BOOKING = _sql(
    MinuteRow,
    _replace(
        ["device", "minute_unix_s"],
        AMOUNTS,
    ),
)
_DELETE_WINDOW = f"delete from windows where window_id = ? and state = '{WindowState.FINAL}'"
_DELETE_MINUTE = "delete from minutes where device = ? and minute_unix_s = ?"
