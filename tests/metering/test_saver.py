"""What the store refuses is handed over again, but never what is older than it has."""

import asyncio
from concurrent.futures import Future
from typing import Any, cast

from greend.errors import Unavailable
from greend.metering.saver import Saver
from greend.store.recovery import Checkpoint
from greend.store.writer import StoreWriter


class Writer:
    """A store's writer that commits and refuses when it is told to."""

    def __init__(self) -> None:
        self.written: list[tuple[Checkpoint, Future[object]]] = []

    def write(self, *, kept: Checkpoint, **_rest: Any) -> "Future[object]":
        done: Future[object] = Future()
        self.written.append((kept, done))
        return done

    @property
    def last(self) -> Checkpoint:
        return self.written[-1][0]


def test_of_what_is_refused_nothing_takes_the_place_of_what_is_newer() -> None:
    async def run() -> None:
        writer = Writer()
        saver = Saver(cast(StoreWriter, writer), lambda window: None)
        saver.keep("GPU-0", b"old", {"changed": b"old", "same": b"same"})
        saver.keep("GPU-1", b"alone", {})
        first = saver.save()
        saver.keep("GPU-0", b"new", {"changed": b"new"})
        second = saver.save()
        writer.written[0][1].set_exception(Unavailable("the disk is full"))
        writer.written[1][1].set_result(None)
        await asyncio.gather(first, second, return_exceptions=True)
        saver.save()
        assert writer.last.anchors == {"GPU-1": b"alone"}
        assert writer.last.claims == {("same", "GPU-0"): b"same"}

    asyncio.run(run())
