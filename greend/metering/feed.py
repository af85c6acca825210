"""Live feeds: what is published reaches every watcher, and a slow one loses the oldest."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")

LONGEST_BACKLOG = 1_000


class Feed(Generic[Item]):
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher[Item]] = set()

    def publish(self, item: Item) -> None:
        """Gives an item to every watcher."""
        for watcher in self._watchers:
            watcher.add(item)

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[Item]]:
        """Items from now on, without end, for as long as the block lasts."""
        watcher: _Watcher[Item] = _Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher.items()
        finally:
            self._watchers.discard(watcher)
            if watcher.lost:
                log.warning("a watcher that was too slow is gone: it lost %d items", watcher.lost)


class _Watcher(Generic[Item]):
    def __init__(self) -> None:
        self.backlog: deque[Item] = deque(maxlen=LONGEST_BACKLOG)
        self.ready = asyncio.Event()
        self.lost = 0

    def add(self, item: Item) -> None:
        if len(self.backlog) == LONGEST_BACKLOG:
            if not self.lost:
                log.warning("a watcher is too slow: it loses the oldest items")
            self.lost += 1
        self.backlog.append(item)
        self.ready.set()

    async def items(self) -> AsyncIterator[Item]:
        while True:
            await self.ready.wait()
            self.ready.clear()
            while self.backlog:
                yield self.backlog.popleft()
