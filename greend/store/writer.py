"""The one writer: a thread that commits what is queued, batch by batch."""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field

from sqlalchemy import Engine, Table, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert, insert

from greend.errors import GreendError, ResourceExhausted, Unavailable
from greend.model import Booking, DeviceRecord, Window, WindowState
from greend.store.records import booking_to_row, device_to_row, window_to_row
from greend.store.retention import Retention, prune
from greend.store.schema import Base, DeviceRow, MinuteRow, WindowRow

log = logging.getLogger(__name__)

# Commits of this many writes take about 20 ms: no acknowledgement waits longer.
LARGEST_BATCH = 5_000


def _uncancellable() -> "Future[bool]":
    """A caller that gives up waiting must not take back what it said."""
    future: Future[bool] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True)
class _Write:
    """`done` says whether all of `inserts` were new, or whether there is more to prune."""

    inserts: Sequence[Window] = ()
    windows: Sequence[Window] = ()
    bookings: Sequence[Booking] = ()
    devices: Sequence[DeviceRecord] = ()
    prune: tuple[Retention, int] | None = None
    done: "Future[bool]" = field(default_factory=_uncancellable)


class StoreWriter:
    """Writes windows, bookings and devices.

    A returned future is done when its write is committed. `stop` commits what is
    queued and joins the thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()
        self.last_error: str | None = None

    def insert(self, window: Window) -> "Future[bool]":
        """Queues a window that should be new. False, and nothing is written, if it is not."""
        write = _Write(inserts=[window])
        self._queue.put(write)
        return write.done

    def write(
        self,
        *,
        windows: Sequence[Window] = (),
        bookings: Sequence[Booking] = (),
        devices: Sequence[DeviceRecord] = (),
    ) -> "Future[bool]":
        """Queues a write. Of several writes of a window or device the last one counts;
        bookings are added to what their minutes hold.

        The future raises ResourceExhausted on a full disk, else Unavailable.
        """
        write = _Write((), windows, bookings, devices)
        self._queue.put(write)
        return write.done

    def prune(self, retention: Retention, now_unix_ns: int) -> "Future[bool]":
        """Queues a small step of deleting; True if there may be more to delete."""
        write = _Write(prune=(retention, now_unix_ns))
        self._queue.put(write)
        return write.done

    def stop(self, timeout_s: float) -> None:
        """Commits what is queued and ends the thread."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        # The driver's own connection: what SQLAlchemy adds to a call, a commit's worth of
        # time, would be waited for by every acknowledgement (`scripts/bench rpc`).
        with closing(self._engine.raw_connection()) as connection:
            driver = connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            while batch := self._take():
                self._commit(driver, batch)

    def _take(self) -> list[_Write]:
        """Everything that is queued, at least one write; nothing at the end."""
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

    def _commit(self, driver: sqlite3.Connection, batch: list[_Write]) -> None:
        inserts = [window for write in batch for window in write.inserts]
        # Of several writes of one thing the last one counts.
        windows = {window.window_id: window for write in batch for window in write.windows}
        bookings = [booking for write in batch for booking in write.bookings]
        devices = {device.uuid: device for write in batch for device in write.devices}
        try:
            # A lone row is a transaction by itself.
            rows_in_all = len(inserts) + len(windows) + len(bookings) + len(devices)
            prunes = [write for write in batch if write.prune is not None]
            with nullcontext() if rows_in_all == 1 and not prunes else _transaction(driver):
                inserted = {
                    window.window_id
                    for window in inserts
                    if driver.execute(_INSERT_WINDOW, window_to_row(window)).rowcount
                }
                for statement, rows in (
                    (_UPSERT_WINDOW, [window_to_row(item) for item in windows.values()]),
                    (_ADD_BOOKING, [booking_to_row(item) for item in bookings]),
                    (_UPSERT_DEVICE, [device_to_row(item) for item in devices.values()]),
                ):
                    if rows:
                        driver.executemany(statement, rows)
                pruned = any(prune(driver, *write.prune) for write in prunes if write.prune)
        except Exception as error:
            self.last_error = str(error)
            log.exception("the store refused %d writes", len(batch))
            told = _tell(error)
            for write in batch:
                write.done.set_exception(told)
            return
        self.last_error = None
        for write in batch:
            new = all(window.window_id in inserted for window in write.inserts)
            write.done.set_result(pruned if write.prune else new)


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


def _unless_final(statement: Insert) -> Insert:
    """What is final never changes."""
    changes = {column.name: statement.excluded[column.name] for column in statement.table.c}
    del changes["window_id"]
    return statement.on_conflict_do_update(
        index_elements=["window_id"],
        set_=changes,
        where=statement.table.c.state != text(f"'{WindowState.FINAL}'"),
    )


_INSERT_WINDOW = _sql(WindowRow, Insert.on_conflict_do_nothing)
_UPSERT_WINDOW = _sql(WindowRow, _unless_final)
_UPSERT_DEVICE = _sql(DeviceRow, _replace(["uuid"]))
_ADD_BOOKING = _sql(
    MinuteRow,
    _replace(
        ["device", "minute_unix_s"],
        [name for name in Booking.__slots__ if name.endswith(("_mj", "_ns"))],
    ),
)
