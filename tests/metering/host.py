"""A daemon without its doors and its driver: meter, sessions, SQLite, and a clock of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from greend.metering.active import ActiveWindows
from greend.metering.clock import Clock
from greend.metering.events import Event
from greend.metering.meter import Meter, MeterSettings
from greend.metering.recovery import Recovery
from greend.metering.registry import DeviceRegistry
from greend.metering.saver import Saver
from greend.metering.session import Session
from greend.metering.sessions import Opening, Sessions
from greend.metering.starts import WindowStart
from greend.model import NS_PER_S, Capabilities, DeviceInfo, Limits, Window
from greend.store.engine import DATABASE_NAME, migrate, open_engine
from greend.store.reader import StoreReader
from greend.store.recovery import left_behind
from greend.store.writer import StoreWriter

GPU = DeviceInfo("GPU-0", 0, "double", Capabilities(True, True, True, True, True), Limits())
TOKEN = "secret"
BOOT = "this boot"


class _NoPace:
    def set_interval(self, uuid: str, interval_ns: int) -> None:
        pass


@dataclass
class Time:
    """The clock of a host, which goes on when it is told to."""

    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Host:
    """A daemon without its doors and its driver."""

    time: Time
    meter: Meter
    session: Session
    writer: StoreWriter
    finals: dict[str, Window] = field(default_factory=dict)
    sequence: int = 0

    async def tell(self, events: Sequence[Event]) -> None:
        """Tells events in this order."""
        numbered = [
            Event(self.sequence + number, event.at_ns, event.window_id, event.what)
            for number, event in enumerate(events, 1)
        ]
        self.sequence += len(events)
        await self.session.take(numbered)
        assert not self.session.refusals, self.session.refusals

    async def write(self) -> None:
        """Waits until all that was handed over is committed."""
        await asyncio.wrap_future(self.writer.write())


@asynccontextmanager
async def host(directory: Path, lateness_s: float, begin_ns: int = 0) -> AsyncIterator[Host]:
    """With one GPU and one session; where a database lies, it goes on with that."""
    directory.mkdir(exist_ok=True)
    engine = open_engine(directory / DATABASE_NAME)
    migrate(engine)
    writer = StoreWriter(engine)
    time = Time(begin_ns)
    clock = Clock(time, lambda: time() + 1_700_000_000 * NS_PER_S)
    registry = DeviceRegistry(begin_ns=begin_ns)
    active = ActiveWindows(registry, clock)
    left = left_behind(engine)
    Recovery(left, active, registry, clock, remembered={}, boot_id=BOOT, floors_mw={})
    saver = Saver(writer, active.stored, claimed=left.claimed)
    meter = Meter(MeterSettings(), _NoPace(), saver, active, registry, clock=clock, boot_id=BOOT)
    sessions = Sessions(active, writer, StoreReader(engine), set_lateness=meter.set_lateness)
    if left.run is not None:
        sessions.expect(left.sessions, left.run, left.refusals)
    meter.found(GPU)
    async with sessions.connect(Opening(TOKEN, "", lateness_s, 0, 0)) as connection:
        yield Host(time, meter, connection.session, writer)
        connection.closed = True
    await meter.flush()
    await asyncio.to_thread(writer.stop, 5)
    engine.dispose()


def start(window_id: str, at_ns: int, weight: float) -> Event:
    """The event of a start."""
    what = WindowStart(window_id, "", [], {}, weight, TOKEN, start_ns=at_ns)
    return Event(0, at_ns, window_id, what)
