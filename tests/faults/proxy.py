"""A bad line: a proxy between clients and the daemon's socket that mistreats bytes."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 16
END_S = 10.0


@dataclass(frozen=True)
class Misfortune:
    """What happens to one connection.

    Of what the client says and hears, `cut_after` bytes pass, then the line is dead. After
    `half_close_after` bytes the daemon hears no more of the client, who goes on listening.
    `chunk` bytes pass at a time, each after `delay_s`. `replays`: when the connection is over,
    the client's bytes are told again, on another one.
    """

    cut_after: int | None = None
    half_close_after: int | None = None
    delay_s: float = 0.0
    chunk: int = CHUNK
    replays: bool = False


def any_misfortune(rng: random.Random) -> Misfortune:
    """One of each kind, in turn by chance; some connections have none, for a while."""
    return rng.choice(
        [
            Misfortune(cut_after=rng.randrange(1, 2_000)),
            Misfortune(cut_after=rng.randrange(2_000, 30_000)),
            Misfortune(cut_after=rng.randrange(5_000, 30_000), replays=True),
            Misfortune(cut_after=rng.randrange(5_000, 30_000), delay_s=rng.uniform(0, 0.05)),
            Misfortune(cut_after=rng.randrange(1_000, 6_000), chunk=7, delay_s=0.0005),
            Misfortune(half_close_after=rng.randrange(1_000, 30_000)),
            Misfortune(cut_after=rng.randrange(60_000, 120_000)),
        ]
    )


class Proxy:
    """Listens on `path`, passes on to `target`; runs on a thread of its own."""

    def __init__(self, path: Path, target: Path, fate: Callable[[], Misfortune]) -> None:
        self.path = path
        self.address = f"unix://{path}"
        self.fates: list[Misfortune] = []
        self.recorded: list[bytes] = []  # what each client said, whole
        self._target = target
        self._fate = fate
        self._loop = asyncio.new_event_loop()
        self._ended: asyncio.Event
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(END_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(END_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.start_unix_server(self._accept, self.path)
        self._ready.set()
        await self._ended.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the daemon is gone, or the test is over
        finally:
            self._connections.discard(connection)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = self._fate()
        self.fates.append(fate)
        line = _Line(fate)
        there, back = await asyncio.open_unix_connection(self._target)
        try:
            ways = [
                asyncio.create_task(line.carry(reader, back, up=True)),
                asyncio.create_task(line.carry(there, writer, up=False)),
            ]
            try:
                # The end of one way is the end of the line, but for a half-closed one.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if line.half_closed:
                    await ways[1]
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.transport.abort()
            self.recorded.append(bytes(line.said))
        if fate.replays:
            await say(self._target, bytes(line.said))


class _Line:
    """One connection's two ways."""

    def __init__(self, fate: Misfortune) -> None:
        self._fate = fate
        self._passed = 0
        self.said = bytearray()
        self.half_closed = False

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        fate = self._fate
        while data := await reader.read(fate.chunk):
            if fate.delay_s:
                await asyncio.sleep(fate.delay_s)
            if fate.cut_after is not None:
                data = data[: fate.cut_after - self._passed]
            self._passed += len(data)
            writer.write(data)
            await writer.drain()
            if up:
                self.said += data
            if self._passed == fate.cut_after:
                return
            if up and fate.half_close_after is not None and len(self.said) > fate.half_close_after:
                self.half_closed = True
                writer.write_eof()
                return


async def say(target: Path, data: bytes, listen_s: float = 0.3) -> None:
    """Says bytes on a new connection, hears what is answered for a while, and hangs up."""
    reader, writer = await asyncio.open_unix_connection(target)
    try:
        writer.write(data)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(listen_s):
                while await reader.read(CHUNK):
                    pass
    finally:
        writer.transport.abort()


@contextmanager
def proxy(path: Path, target: Path, fate: Callable[[], Misfortune]) -> Iterator[Proxy]:
    """A bad line for as long as the block lasts."""
    running = Proxy(path, target, fate)
    running.start()
    try:
        yield running
    finally:
        running.stop()
