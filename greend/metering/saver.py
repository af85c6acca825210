"""What waits to be stored: bookings and final windows, kept until they are committed."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from greend.model import AMOUNTS, Booking, DeviceRecord, Window
from greend.store.recovery import Checkpoint, Run
from greend.store.writer import StoreWriter

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Who hears of everything that is booked or final, once."""

    def booked(self, booking: Booking) -> None:
        """A ledger has booked."""

    def window_final(self, window: Window) -> None:
        """A window is final."""


class _Handed(NamedTuple):
    """What was handed over, and is not committed or refused yet."""

    windows: Mapping[str, Window]
    parents: Mapping[str, Window]
    anchors: Mapping[str, bytes]
    claims: Mapping[tuple[str, str], bytes]


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
        *,
        claimed: Iterable[str] = (),
    ) -> None:
        self._writer = writer
        self._recorder = recorder
        self._on_stored = on_stored
        self._bookings: dict[tuple[str, int], Booking] = {}
        self._windows: dict[str, Window] = {}
        self._parents: dict[str, Window] = {}
        self._anchors: dict[str, bytes] = {}
        self._claims: dict[tuple[str, str], bytes] = {}
        self._handed: deque[_Handed] = deque()
        # Windows of which there are claims in the store, or were handed over.
        self._claimed = set(claimed)

    def add(
        self,
        windows: Iterable[Window],
        bookings: Iterable[Booking],
        parents: Iterable[Window] = (),
    ) -> None:
        """Keeps what is newly final or booked for the next `save`, and what parents got by it."""
        self._parents.update((window.window_id, window) for window in parents)
        windows, bookings = list(windows), list(bookings)
        if self._recorder is not None:
            for window in windows:
                self._recorder.window_final(window)
            for booking in bookings:
                self._recorder.booked(booking)
        self._keep(windows, bookings)

    def keep(self, device: str, anchor: bytes, claims: Mapping[str, bytes]) -> None:
        """Keeps for the next `save` where a ledger is with all that it booked; claims by window."""
        self._anchors[device] = anchor
        self._claims.update(((window_id, device), body) for window_id, body in claims.items())

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

    def save(
        self,
        devices: Iterable[DeviceRecord] = (),
        run: Run | None = None,
        events_until_ns: int | None = None,
    ) -> "asyncio.Future[object]":
        """Hands everything over; the future is done when it is committed.

        To be awaited in `asyncio.shield`: a caller who gives up must not cancel it.
        """
        windows, self._windows = self._windows, {}
        bookings, self._bookings = self._bookings, {}
        parents, self._parents = self._parents, {}
        anchors, self._anchors = self._anchors, {}
        claims = {key: body for key, body in self._claims.items() if key[0] not in windows}
        self._claims = {}
        self._claimed.update(window_id for window_id, _ in claims)
        final = self._claimed.intersection(windows)
        self._claimed -= final
        written = self._writer.write(
            windows=[*parents.values(), *windows.values()],
            bookings=list(bookings.values()),
            devices=list(devices),
            kept=Checkpoint(anchors, claims, list(final), events_until_ns, run),
        )
        done = asyncio.wrap_future(written)
        handed = _Handed(windows, parents, anchors, claims)
        self._handed.append(handed)

        def on_written(done: "asyncio.Future[object]") -> None:
            self._handed.popleft()  # they are done in this order
            if done.exception() is None:
                for window in windows.values():
                    self._on_stored(window)
                return
            log.debug("%d windows and %d bookings wait for the store", len(windows), len(bookings))
            self._keep(windows.values(), bookings.values())
            self._keep_again(handed)
            self._claimed |= final

        done.add_done_callback(on_written)
        return done

    def _keep_again(self, refused: _Handed) -> None:
        """What nothing newer was handed over of since: that may be committed by now."""
        for window_id, parent in refused.parents.items():
            if not any(window_id in later.parents for later in self._handed):
                self._parents.setdefault(window_id, parent)
        for device, anchor in refused.anchors.items():
            if not any(device in later.anchors for later in self._handed):
                self._anchors.setdefault(device, anchor)
        for key, claim in refused.claims.items():
            if not any(key in later.claims or key[0] in later.windows for later in self._handed):
                self._claims.setdefault(key, claim)
