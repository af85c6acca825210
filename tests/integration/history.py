"""History that a daemon finds: rows as it writes them itself, many at a time."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import uuid6

from greend.model import Booking, DeviceRecord, Share, Source, Window, WindowState
from greend.store.engine import DATABASE_NAME, open_engine
from greend.store.schema import WindowRow
from greend.store.writer import StoreWriter

DEVICE = "GPU-11111111-2222-3333-4444-555555555555"
DIGEST = b"\xd1\x9e" * 16


def past_window(start_unix_ns: int, **tags: str) -> Window:
    """A final window of 100 ms that a session started."""
    return Window(
        str(uuid6.uuid7()),
        "request-of-the-past",
        tags,
        (DEVICE,),
        start_unix_ns,
        stop_unix_ns=start_unix_ns + 100_000_000,
        state=WindowState.FINAL,
        token_digest=DIGEST,
        shares={DEVICE: Share(1000.0, 2500.0, 4000.0, source=Source.ENERGY_COUNTER)},
    )


def remember(state: Path, windows: Iterable[Window] = (), bookings: Iterable[Booking] = ()) -> None:
    """Adds to what a daemon, running or not, has in its state directory."""
    engine = open_engine(state / DATABASE_NAME)
    writer = StoreWriter(engine)
    try:
        device = DeviceRecord(DEVICE, "a GPU of the past", 0)
        writer.write(windows=list(windows), bookings=list(bookings), devices=[device]).result()
    finally:
        writer.stop(5)
        engine.dispose()


def remember_many(state: Path, window: Window, count: int) -> None:
    """Adds so many windows like one, each 1 ms later than the one before; 500 bytes each."""
    remember(state, [window])
    new = {"window_id": "printf('%s-%08x', window_id, n)", "start_unix_ns": "start_unix_ns + n"}
    names = [column.name for column in WindowRow.__table__.columns]
    with closing(sqlite3.connect(state / DATABASE_NAME, timeout=30)) as database:
        database.execute(
            "with recursive numbers(n) as"
            " (select 1000000 union all select n + 1000000 from numbers where n < ?)"
            f" insert into windows ({', '.join(names)})"
            f" select {', '.join(new.get(name, name) for name in names)}"
            " from numbers join windows on window_id = ?",
            ((count - 1) * 1_000_000, window.window_id),
        )
        database.commit()
