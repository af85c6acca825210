"""Windows, one at a time: opened, ended, asked for."""

import asyncio

import uuid6

from greend.errors import GreendError
from greend.metering import checks
from greend.metering.active import ActiveWindows
from greend.metering.starts import WindowStart, check_same
from greend.metering.windows import ActiveWindow, check_token
from greend.model import Usage, Window
from greend.store.reader import StoreReader
from greend.store.writer import StoreWriter

LONGEST_WAIT_S = 60.0


class WindowService:
    """The way to windows that are not final, and to all others.

    Every method runs on the event loop. What returns a window returns it committed.
    """

    def __init__(self, active: ActiveWindows, writer: StoreWriter, reader: StoreReader) -> None:
        self._active = active
        self._writer = writer
        self._reader = reader

    async def start(self, start: WindowStart) -> Window:
        """Opens a window. The same start again gets the same answer again."""
        window_id = (
            checks.check_window_id(start.window_id) if start.window_id else str(uuid6.uuid7())
        )
        active = self._active.find(window_id)
        if active is not None:
            check_same(active.window, start)
            active.starters += 1
            await self._commit(active)
            return self._active.so_far(active)
        try:
            active = self._active.open(window_id, start)
        except GreendError:
            # What could not start now may have started, and ended, long ago.
            known = None
            if start.window_id:
                known = await asyncio.to_thread(self._reader.window, window_id)
            if known is None:
                raise
            check_same(known, start)
            return self.current(known)
        try:
            there = await asyncio.wrap_future(self._writer.insert([active.window]))
        except GreendError:
            # Unless it was said again, or ended, meanwhile: then that decides.
            if active.starters == 1 and active.stop_ns is None:
                self._active.cancel(active)
            raise
        except asyncio.CancelledError:
            # The caller gave up. It can say the start again, if it knows the id.
            if not start.window_id:
                self._active.abandon(active, active.start_ns)
            raise
        if there:
            self._active.cancel(active)
            stored = await self._stored(window_id)
            check_same(stored, start)
            return stored
        active.stored = True
        return active.window

    async def stop(
        self,
        window_id: str,
        stop_unix_ns: int | None,
        usage: Usage,
        session_token: str,
        wait_s: float,
    ) -> Window:
        """Ends a window, and waits for its final energy if asked to."""
        window_id = checks.check_window_id(window_id)
        active = self._active.find(window_id)
        window = active.window if active is not None else await self._stored(window_id)
        check_token(window, session_token)
        wait_s = checks.check_wait(wait_s, LONGEST_WAIT_S)
        if active is None:
            return window
        if active.stop_ns is None:
            # From the start, so that a wall clock set meanwhile cannot bend it.
            offset_ns = active.window.start_unix_ns - active.start_ns
            stop_ns = None if stop_unix_ns is None else stop_unix_ns - offset_ns
            self._active.end(active, stop_ns, "stop_unix_ns")
            active.use(usage)
        # Also when it was ended before: that may not have been committed.
        await self._commit(active)
        return await self._wait(active, wait_s)

    async def get(self, window_id: str, wait_s: float) -> Window:
        """A window as it stands, or final if waited for."""
        window_id = checks.check_window_id(window_id)
        wait_s = checks.check_wait(wait_s, LONGEST_WAIT_S)
        active = self._active.find(window_id)
        if active is None:
            return await self._stored(window_id)
        return await self._wait(active, wait_s)

    def current(self, window: Window) -> Window:
        """A stored window with what it has got so far, if it is not final."""
        active = self._active.find(window.window_id)
        return window if active is None else self._active.so_far(active)

    async def drain(self, timeout_s: float) -> None:
        """Before the end: lets stopped windows become final, then stores the rest as they are."""
        stopped = [item.finished for item in self._active.all() if item.stop_ns is not None]
        if stopped:
            await asyncio.wait(stopped, timeout=timeout_s)
        left = [self._active.so_far(active) for active in self._active.all()]
        if left:
            await asyncio.wrap_future(self._writer.write(windows=left))

    async def _wait(self, active: ActiveWindow, wait_s: float) -> Window:
        if wait_s > 0:
            await asyncio.wait([active.finished], timeout=wait_s)
        if active.finished.done():
            return active.finished.result()
        return self._active.so_far(active)

    async def _commit(self, active: ActiveWindow) -> None:
        await asyncio.wrap_future(self._writer.write(windows=[active.as_stored()]))
        active.stored = True

    async def _stored(self, window_id: str) -> Window:
        window = await asyncio.to_thread(self._reader.window, window_id)
        if window is None:
            raise self._active.unknown(window_id)
        return window
