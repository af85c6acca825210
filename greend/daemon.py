"""The daemon: the only place that wires everything."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greend.config import Metrics, Settings
from greend.device.fleet import Fleet
from greend.device.protocol import Driver
from greend.directories import lock, make
from greend.errors import FailedPrecondition, GreendError
from greend.metering.active import ActiveWindows
from greend.metering.backup import Backups
from greend.metering.clock import Clock
from greend.metering.health import status_line
from greend.metering.meter import Meter
from greend.metering.pruning import Pruner
from greend.metering.pulse import Pulse
from greend.metering.query import Query
from greend.metering.recovery import Recovery, hold
from greend.metering.registry import DeviceRegistry
from greend.metering.saver import Saver
from greend.metering.service import WindowService
from greend.metering.sessions import Sessions, boot_id
from greend.model import DeviceInfo, Sample
from greend.notify import notify
from greend.restore import restore
from greend.rpc.admin import AdminServicer
from greend.rpc.metering import MeteringServicer
from greend.rpc.server import control_door, reading_door
from greend.store.backup import remove_leftovers
from greend.store.damage import trouble
from greend.store.engine import DATABASE_NAME
from greend.store.opening import open_store
from greend.store.prunable import Prunable
from greend.store.reader import StoreReader
from greend.store.recovery import Checkpoint, Forgotten, LeftBehind, Run, left_behind
from greend.store.retention import Retention
from greend.store.writer import StoreWriter
from greend.watchdog import Check, report

if TYPE_CHECKING:
    from greend.device.simulated import SimulatedDriver
    from greend.export.exporter import Exporter
    from greend.export.recorder import Recorder

log = logging.getLogger(__name__)

# Old rows are looked for every minute; where there are many, a step at a time.
PRUNE_S, PRUNE_STEP_S = 60.0, 0.02
# The whole end takes at most 2 s; what waits for the last steps gets most of it.
DRAIN_S, GRACE_S, JOIN_S = 0.8, 0.2, 0.25
# The garbage collector looks for cycles once so many more objects are there.
COLLECT_AFTER = 10_000


def run(settings: Settings, simulate: str | None) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises GreendError if it cannot start: directories not writable, another daemon
    on the socket, a database of a newer version, a wrong `simulate`.
    """
    # What is switched off is not imported.
    simulated: SimulatedDriver | None = None
    driver: Driver
    if simulate is not None:
        from greend.device import simulated as module

        driver = simulated = module.SimulatedDriver(simulate)
    else:
        from greend.device.nvml import NvmlDriver

        driver = NvmlDriver()
    state_dir, runtime_dir = Path(settings.daemon.state_dir), Path(settings.daemon.runtime_dir)
    with ExitStack() as stack:
        make(state_dir, 0o750)
        make(runtime_dir, 0o755)
        for directory in sorted({state_dir.resolve(), runtime_dir.resolve()}):
            stack.enter_context(lock(directory))
        _restore(state_dir)
        asyncio.run(_serve(settings, driver, simulated, state_dir, runtime_dir))


def _spare_collector() -> None:
    """What is there by now stays, and windows leave no cycles behind: looking for them as
    often as usual would take a third of a window's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


async def _serve(
    settings: Settings,
    driver: Driver,
    simulated: "SimulatedDriver | None",
    state_dir: Path,
    runtime_dir: Path,
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    database = state_dir / DATABASE_NAME
    remove_leftovers(database)
    engine, (left, devices) = await asyncio.to_thread(
        open_store,
        database,
        synchronous=settings.store.synchronous,
        read=lambda engine: (left_behind(engine), StoreReader(engine).devices()),
    )
    remembered = {record.uuid: record for record in devices}
    reader, writer = StoreReader(engine), StoreWriter(engine)
    clock = Clock()
    registry = DeviceRegistry()
    active = ActiveWindows(
        registry,
        clock,
        most_open=settings.metering.most_open_windows,
        most_per_session=settings.metering.most_windows_per_session,
    )
    windows = WindowService(active, writer, reader)
    recorder = _recorder(settings.metrics)
    saver = Saver(writer, active.stored, recorder, claimed=left.claimed)
    listener = _LoopListener(loop)
    interval_ns = settings.metering.settings().slow_interval_ns
    fleet = Fleet(driver, listener, interval_ns=interval_ns)
    floors_mw = settings.metering.settings().floors_mw
    boot = boot_id()
    recovery = Recovery(
        left, active, registry, clock, remembered=remembered, boot_id=boot, floors_mw=floors_mw
    )
    await _settle(recovery, left, Run(boot, clock.monotonic_ns()), writer)
    # From here to the meter nothing is awaited: the pulse asks it.
    pulse = Pulse(lambda: meter.tick(), fleet.relieve, lambda: meter.interval_ns)
    meter = Meter(
        settings.metering.settings(),
        _Pace(fleet, pulse),
        saver,
        active,
        registry,
        remembered=remembered.values(),
        clock=clock,
        boot_id=boot,
    )
    active.catch_up, active.set_pace = meter.catch_up, meter.set_pace
    sessions = Sessions(
        active,
        writer,
        reader,
        set_lateness=meter.set_lateness,
        most=settings.metering.most_sessions,
        events_per_s=settings.metering.most_events_per_s,
    )
    if left.run is not None and recovery.bridging:
        sessions.expect(left.sessions, left.run, left.refusals)
    listener.connect(meter, pulse)
    query = Query(reader, registry, windows.current, meter.flush)
    pruner = Pruner(
        Prunable(engine),
        writer,
        is_active=active.is_active,
        now_unix_ns=lambda: clock.unix_ns,
    )

    def store_error() -> str | None:
        return trouble(database, writer.error)

    metering = MeteringServicer(
        active,
        windows,
        sessions,
        query,
        meter,
        clock,
        Backups(database),
        store_error=store_error,
    )
    simulator = None
    if simulated is not None:
        from greend.rpc.simulator import SimulatorServicer

        simulator = SimulatorServicer(simulated, wall_offset_ns=lambda: clock.offset_ns)
    reading = reading_door(runtime_dir / "greend.sock", settings.daemon.group, metering, simulator)
    control = control_door(
        runtime_dir / "control.sock", settings.daemon.control_group, AdminServicer(pruner, query)
    )

    exporter = None
    if recorder is not None:
        exporter = _exporter(
            settings.metrics.address, recorder, meter, active, sessions, store_error, clock
        )

    fleet.start()
    try:
        await control.open()
        await reading.open()
    except GreendError:
        # Or gRPC has the last word.
        await asyncio.gather(reading.close(0), control.close(0))
        raise
    if exporter is not None:
        exporter.start()
    _spare_collector()
    holding = (
        asyncio.create_task(
            hold(
                lambda: meter.looked and sessions.all_back,
                lambda: meter.looked and sessions.caught_up,
                lambda: active.crowded,
                meter.release,
            )
        )
        if recovery.bridging
        else None
    )
    pruning = asyncio.create_task(_prune(pruner, settings.store.retention()))
    # Progress without which only a restart helps.
    checks: list[Check] = [
        writer.stuck,
        lambda: None if fleet.alive else "the thread that reads GPUs has ended",
    ]
    reporting = asyncio.create_task(
        report(
            checks,
            lambda: status_line(registry, clock.monotonic_ns(), store_error(), active.open_count),
        )
    )
    await ended.wait()

    log.info("stopping")
    reporting.cancel()
    notify("STOPPING=1", "STATUS=stopping")
    sessions.stop()
    if holding is not None:
        holding.cancel()
    await _bounded(windows.drain(DRAIN_S), DRAIN_S + JOIN_S)
    pulse.stop()
    pruning.cancel()
    if exporter is not None:
        await asyncio.to_thread(exporter.stop, JOIN_S)
    await asyncio.gather(reading.close(GRACE_S), control.close(GRACE_S))
    if not await asyncio.to_thread(fleet.stop, JOIN_S):
        log.warning("a call to the driver hangs: leaving it behind")
    await _bounded(meter.flush(), JOIN_S)
    await asyncio.to_thread(writer.stop, JOIN_S)
    engine.dispose()
    log.info("stopped")


async def _settle(recovery: Recovery, left: LeftBehind, run: Run, writer: StoreWriter) -> None:
    """Commits what cannot go on, and says what the last run left."""
    if recovery.closed:
        log.warning(
            "the last run left %d windows that cannot go on: closed as abandoned",
            len(recovery.closed),
        )
    going = len(left.windows) - len(recovery.closed)
    if going:
        log.info("windows of the last run that go on: %d", going)
    kept = Checkpoint(run=run) if recovery.bridging else Forgotten(run)
    await asyncio.wrap_future(writer.write(windows=recovery.closed, kept=kept))


def _restore(state_dir: Path) -> None:
    """Before anything else: what a former run left behind. Measuring goes on without it."""
    try:
        log.debug("%s", restore(state_dir))
    except FailedPrecondition as error:
        log.error("%s", error)


async def _bounded(what: Awaitable[object], timeout_s: float) -> None:
    """Nothing may keep the daemon from ending."""
    try:
        await asyncio.wait_for(what, timeout_s)
    except TimeoutError:
        log.error("gave up after %.1f s: the store does not answer", timeout_s)
    except GreendError as error:
        log.error("not stored at the end: %s", error)


def _recorder(metrics: Metrics) -> "Recorder | None":
    if not metrics.address:
        return None
    from greend.export.recorder import Recorder  # what is switched off is not imported

    return Recorder(metrics.tag_keys, metrics.max_series)


def _exporter(
    address: str,
    recorder: "Recorder",
    meter: Meter,
    windows: ActiveWindows,
    sessions: Sessions,
    store_error: Callable[[], str | None],
    clock: Clock,
) -> "Exporter":
    from greend.export.exporter import Exporter
    from greend.export.host import HostReader

    host = HostReader(
        meter.registry,
        open_windows=lambda: windows.open_count,
        lost_windows=lambda: sessions.lost_windows,
        store_error=store_error,
        now_ns=clock.monotonic_ns,
    )
    exporter = Exporter(address, recorder, host, meter.collect)
    log.info("metrics at http://%s/metrics", exporter.address)
    return exporter


async def _prune(pruner: Pruner, retention: Retention) -> None:
    while True:
        more = False
        try:
            more = await pruner.expire(retention)
        except Exception as error:  # whatever it was, it is tried again
            log.warning("nothing was deleted", exc_info=error)
        await asyncio.sleep(PRUNE_STEP_S if more else PRUNE_S)


class _Pace:
    """Samples that are to come more often are overdue earlier."""

    def __init__(self, fleet: Fleet, pulse: Pulse) -> None:
        self._fleet = fleet
        self._pulse = pulse

    def set_interval(self, uuid: str, interval_ns: int) -> None:
        self._fleet.set_interval(uuid, interval_ns)
        self._pulse.arm()


class _LoopListener:
    """Hands what device threads say over to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def connect(self, meter: Meter, pulse: Pulse) -> None:
        """Who learns of it. Called before the fleet starts."""
        self._meter = meter
        self._pulse = pulse

    def found(self, info: DeviceInfo) -> None:
        self._call(self._meter.found, info)

    def driver_failed(self, reason: str) -> None:
        self._call(self._meter.driver_failed, reason)

    def missing(self, reasons: Sequence[str]) -> None:
        self._call(self._meter.missing, reasons)

    def sampled(self, samples: Sequence[Sample]) -> None:
        self._call(self._sampled, samples)

    def states_seen(self, states: Sequence[tuple[DeviceInfo, bool | None]]) -> None:
        self._call(self._meter.states_seen, states)

    def lost(self, uuid: str, reason: str) -> None:
        self._call(self._meter.lost, uuid, reason)

    def _sampled(self, samples: Sequence[Sample]) -> None:
        self._meter.sampled(samples)
        self._pulse.beat()

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.debug("the loop has ended: %s dropped", function)
