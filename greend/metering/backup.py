"""Backups for callers: one at a time."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from greend.errors import ResourceExhausted
from greend.store.backup import copy_database


class Backups:
    """Owned by the event loop."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._running = False

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[BinaryIO]:
        """A file with all that is kept, to be read in threads; see `copy_database`.

        Raises ResourceExhausted while another is in use, or if there is no room.
        """
        if self._running:
            raise ResourceExhausted("another backup runs: try again when it has ended")
        self._running = True
        stopped = threading.Event()
        try:
            with await asyncio.to_thread(copy_database, self._database, stopped) as file:
                yield file
        finally:
            stopped.set()
            self._running = False
