"""An exporter whose meter is made up: real registry, recorder, loop and HTTP."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from greend.energy.ledger import DeviceLedger
from greend.export.exporter import Exporter
from greend.export.host import HostReader
from greend.export.recorder import USUAL_MAX_SERIES, Recorder
from greend.metering.registry import DeviceRegistry, MeteredDevice
from greend.model import (
    Booking,
    Capabilities,
    DeviceInfo,
    Limits,
    Sample,
    Share,
    Source,
    Usage,
    Window,
    WindowState,
)

TAG_KEYS = ("model",)
FEED_S = 0.05


def device_uuid(index: int) -> str:
    return f"GPU-00000000-0000-0000-0000-{index:012d}"


def info(index: int) -> DeviceInfo:
    return DeviceInfo(
        uuid=device_uuid(index),
        index=index,
        name="NVIDIA H100 80GB HBM3",
        capabilities=Capabilities(True, True, True, True, True),
        limits=Limits(power_limit_mw=700_000),
        simulated=True,
    )


def sample(index: int) -> Sample:
    """A reading of now, everything known."""
    return Sample(
        device=device_uuid(index),
        monotonic_ns=time.monotonic_ns(),
        energy_mj=1_000_000,
        power_mw=412_500,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        gpu_utilization_percent=87,
        memory_utilization_percent=40,
        temperature_c=61,
        clock_event_reasons=0x4 | 0x20,
        power_limit_mw=650_000,
    )


def booking(index: int, **amounts: float) -> Booking:
    return Booking(device_uuid(index), 0, **amounts)


def window(
    energy_mj: float | None = 50_000.0, output_tokens: int | None = 100, **tags: str
) -> Window:
    """A final window on device 0; with `energy_mj` None, nothing of it was measured."""
    source = None if energy_mj is None else Source.ENERGY_COUNTER
    own_mj = energy_mj or 0.0
    return Window(
        window_id="01890a5d-ac96-774b-bcce-b302099a8057",
        request_id="request-7",
        tags=tags,
        devices=(device_uuid(0),),
        start_unix_ns=1_700_000_000_000_000_000,
        stop_unix_ns=1_700_000_001_000_000_000,
        state=WindowState.FINAL,
        usage=Usage(prompt_tokens=512, cached_tokens=128, output_tokens=output_tokens),
        shares={device_uuid(0): Share(own_mj * 0.2, own_mj * 0.8, own_mj, source=source)},
    )


@dataclass
class Fed:
    """An exporter and what feeds it. Change its parts on its loop only (`call`)."""

    loop: asyncio.AbstractEventLoop
    exporter: Exporter
    recorder: Recorder
    registry: DeviceRegistry
    store_error: str | None = None

    @property
    def url(self) -> str:
        return f"http://{self.exporter.address}/metrics"

    def feed(self) -> None:
        """A moment of life: each device used 20 J, a window got 50 J."""
        for index, device in enumerate(self.registry.devices.values()):
            _read(device, sample(index))
            self.recorder.booked(
                booking(
                    index,
                    measured_mj=20_000,
                    windows_mj=12_900,
                    idle_mj=5_000,
                    unattributed_mj=2_000,
                    gap_mj=100,
                    unknown_ns=1_000_000,
                )
            )
        self.recorder.window_final(window(model="llama-3-8b"))
        self.recorder.window_final(window(90_000.0, 50, model="llama-3-70b"))

    def lose(self, index: int) -> None:
        self.registry.devices[device_uuid(index)].lost_reason = "fell off the bus"

    def age(self, index: int, age_s: float) -> None:
        device = self.registry.devices[device_uuid(index)]
        long_ago_ns = time.monotonic_ns() - round(age_s * 1e9)
        _read(device, replace(sample(index), monotonic_ns=long_ago_ns))


@contextmanager
def fed(
    devices: int = 2,
    *,
    tag_keys: tuple[str, ...] = TAG_KEYS,
    max_series: int = USUAL_MAX_SERIES,
    address: str = "127.0.0.1:0",
    feeding: bool = False,
) -> Iterator[Fed]:
    """Runs it on a loop in a thread; with `feeding`, life goes on all the time."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fed-loop")
    thread.start()
    manager = _serving(devices, tag_keys, max_series, address, feeding)
    try:
        made = asyncio.run_coroutine_threadsafe(manager.__aenter__(), loop).result(10)
        try:
            yield made
        finally:
            ended = manager.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(ended, loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@asynccontextmanager
async def _serving(
    devices: int, tag_keys: tuple[str, ...], max_series: int, address: str, feeding: bool
) -> AsyncIterator[Fed]:
    registry = DeviceRegistry()
    for index in range(devices):
        ledger = DeviceLedger(
            device_uuid(index),
            time.monotonic_ns(),
            has_counter=True,
            remembered_floor_mw={False: 70_000.0, True: 110_000.0},
        )
        device = MeteredDevice(info(index), ledger, since_unix_ns=0)
        _read(device, sample(index))
        registry.devices[device_uuid(index)] = device
    recorder = Recorder(tag_keys, max_series)
    made: Fed
    host = HostReader(registry, lambda: 3, lambda: 0, lambda: made.store_error, time.monotonic_ns)
    exporter = Exporter(address, recorder, host, lambda: None)
    made = Fed(asyncio.get_running_loop(), exporter, recorder, registry)
    task = asyncio.create_task(_feed(made)) if feeding else None
    exporter.start()
    try:
        yield made
    finally:
        exporter.stop(5)
        if task is not None:
            task.cancel()


def _read(device: MeteredDevice, reading: Sample) -> None:
    device.latest = reading
    device.measured_ns = reading.monotonic_ns


async def _feed(made: Fed) -> None:
    while True:
        made.feed()
        await asyncio.sleep(FEED_S)
