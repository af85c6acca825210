"""What waits to be stored: bookings and final windows, kept until they are committed."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from greend.model import AMOUNTS, Booking, DeviceRecord, Window
from greend.store.writer import StoreWriter

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Who hears of everything that is booked or final, once."""

    def booked(self, booking: Booking) -> None:
        """A ledger has booked."""

    def window_final(self, window: Window) -> None:
        """A window is final."""


class Saver:
    """Hands over to the store what is measured; takes it back if the store refuses.

    Owned by the event loop. Nothing grows without a bound: bookings are one a device
    and minute, windows are bounded by those that may be open.
    """

    def __init__(
        self,
        writer: StoreWriter,
        on_stored: Callable[[Window], None],
        recorder: Recorder | None = None,
    ) -> None:
        self._writer = writer
        self._recorder = recorder
        self._on_stored = on_stored
        self._bookings: dict[tuple[str, int], Booking] = {}
        self._windows: dict[str, Window] = {}

    def add(self, windows: Iterable[Window], bookings: Iterable[Booking]) -> None:
        """Keeps what is newly final or booked for the next `save`."""
        windows, bookings = list(windows), list(bookings)
        if self._recorder is not None:
            for window in windows:
                self._recorder.window_final(window)
            for booking in bookings:
                self._recorder.booked(booking)
        self._keep(windows, bookings)

    def _keep(self, windows: Iterable[Window], bookings: Iterable[Booking]) -> None:
        for window in windows:
            self._windows[window.window_id] = window
        for booking in bookings:
            key = booking.device, booking.minute_unix_s
            kept = self._bookings.get(key)
            self._bookings[key] = (
                booking
                if kept is None
                else kept.plus(**{name: getattr(booking, name) for name in AMOUNTS})
            )

    def save(self, devices: Iterable[DeviceRecord] = ()) -> "asyncio.Future[object]":
        """Hands everything over; the future is done when it is committed.

        To be awaited in `asyncio.shield`: a caller who gives up must not cancel it.
        """
        windows, self._windows = self._windows, {}
        bookings, self._bookings = self._bookings, {}
        written = self._writer.write(
            windows=list(windows.values()), bookings=list(bookings.values()), devices=list(devices)
        )
        done = asyncio.wrap_future(written)
        done.add_done_callback(lambda done: self._written(done, windows, bookings))
        return done

    def _written(
        self,
        done: "asyncio.Future[object]",
        windows: dict[str, Window],
        bookings: dict[tuple[str, int], Booking],
    ) -> None:
        error = done.exception()
        if error is None:
            for window in windows.values():
                self._on_stored(window)
            return
        log.debug("%d windows and %d bookings wait for the store", len(windows), len(bookings))
        self._keep(windows.values(), bookings.values())
