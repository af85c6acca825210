"""History that a daemon finds: rows as it writes them itself, many at a time."""

import uuid
from collections.abc import Iterable

from greend.model import Booking, Share, Source, Window, WindowState
from greend.store.engine import DATABASE_NAME, open_engine
from greend.store.writer import StoreWriter
from tests.daemon import Daemon

DEVICE = "GPU-11111111-2222-3333-4444-555555555555"


def past_window(start_unix_ns: int, **tags: str) -> Window:
    """A final window of 100 ms that a session started."""
    return Window(
        str(uuid.uuid4()),
        "request-of-the-past",
        tags,
        (DEVICE,),
        start_unix_ns,
        stop_unix_ns=start_unix_ns + 100_000_000,
        state=WindowState.FINAL,
        token_digest=b"\xd1\x9e" * 16,
        shares={DEVICE: Share(1000.0, 2500.0, 4000.0, source=Source.ENERGY_COUNTER)},
    )


def remember(
    running: Daemon, windows: Iterable[Window] = (), bookings: Iterable[Booking] = ()
) -> None:
    """Adds to what a daemon, running or not, has stored."""
    engine = open_engine(running.directory / DATABASE_NAME)
    writer = StoreWriter(engine)
    try:
        writer.write(windows=list(windows), bookings=list(bookings)).result()
    finally:
        writer.stop(5)
        engine.dispose()
