"""Live feeds: what is published reaches every watcher, and a slow one loses the oldest."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")

LONGEST_BACKLOG = 1_000


class Feed(Generic[Item]):
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher[Item]] = set()

    def publish(self, item: Item) -> None:
        """Gives an item to every watcher."""
        for watcher in self._watchers:
            watcher.backlog.append(item)
            watcher.ready.set()

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[Item]]:
        """Items from now on, without end, for as long as the block lasts."""
        watcher: _Watcher[Item] = _Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher.items()
        finally:
            self._watchers.discard(watcher)


class _Watcher(Generic[Item]):
    def __init__(self) -> None:
        self.backlog: deque[Item] = deque(maxlen=LONGEST_BACKLOG)
        self.ready = asyncio.Event()

    async def items(self) -> AsyncIterator[Item]:
        while True:
            await self.ready.wait()
            self.ready.clear()
            while self.backlog:
                yield self.backlog.popleft()
