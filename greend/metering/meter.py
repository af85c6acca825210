"""The meter: takes samples, keeps each device's ledger, sets the pace of sampling.

All state belongs to the event loop; device threads hand their readings over to it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from greend.energy.ledger import DeviceLedger, Settled
from greend.metering.clock import Clock
from greend.metering.feed import Feed
from greend.metering.kept import encode
from greend.metering.recovery import anchor_of
from greend.metering.registry import DeviceRegistry, MeteredDevice
from greend.metering.saver import Saver
from greend.model import NS_PER_MS, NS_PER_S, DeviceInfo, DeviceRecord, Sample, Window
from greend.store.recovery import Run

log = logging.getLogger(__name__)

# The ledger is written this often; when nobody asks for anything, less often.
FLUSH_NS = NS_PER_S
IDLE_FLUSH_NS = 10 * NS_PER_S
# Booking what thousands of windows share takes so long that clients have to wait for it.
LONG_NS, LONGEST_UNREAD_NS = 50 * NS_PER_MS, 5 * NS_PER_S


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """How the meter measures (DESIGN.md, rules 9 and 12).

    A device that was just found, or was not looked at often for a while, is looked at more
    often until it is known where its counter's steps lie, as everything rests on that; for
    at most as long as a fast spell lasts.
    """

    first_interval_ns: int = 10 * NS_PER_MS
    fast_interval_ns: int = 40 * NS_PER_MS
    slow_interval_ns: int = NS_PER_S
    fast_after_ns: int = 2 * NS_PER_S
    lateness_ns: int = 250 * NS_PER_MS
    # By device and whether a compute context lives; those that are set are not learnt.
    floors_mw: Mapping[str, Mapping[bool, float]] = field(default_factory=dict)


class Pace(Protocol):
    """Sets how often a device is sampled."""

    def set_interval(self, uuid: str, interval_ns: int) -> None:
        """The mean time between samples."""


class WindowSink(Protocol):
    """Who learns what became of windows."""

    def settled(self, device: MeteredDevice, shares: Iterable[Settled]) -> list[Window]:
        """Shares of a device that are final; returns windows that are final by that."""

    def parents_of(self, finals: Iterable[Window]) -> list[Window]:
        """Those that are not final and have taken what these got, as they are stored."""

    def device_lost(self, uuid: str) -> None:
        """A device does not answer any more."""

    def goes_on(self, claim_id: str) -> bool:
        """Whether the window that the ledgers know by this is not final."""


class Meter:
    """Measures devices. Every method runs on the event loop."""

    def __init__(
        self,
        settings: MeterSettings,
        pace: Pace,
        saver: Saver,
        windows: WindowSink,
        registry: DeviceRegistry,
        *,
        remembered: Iterable[DeviceRecord] = (),
        clock: Clock,
        boot_id: str = "",
    ) -> None:
        self.settings = settings
        self.registry = registry
        self._pace = pace
        self._saver = saver
        self._windows = windows
        self._remembered = {record.uuid: record for record in remembered}
        self._clock = clock
        self._boot_id = boot_id
        self._flushed_ns = clock.monotonic_ns()
        self._samples: Feed[Sample] = Feed()
        self._lateness_ns = settings.lateness_ns
        self.looked = False
        """Whether the driver has been asked for devices, and has answered."""
        self._unread_ns = self._unread_until_ns = 0

    def set_lateness(self, asked_ns: int) -> None:
        """How late events may come at most, if that is more than the usual.

        As long as it is, windows that nobody told of yet may be running: devices are
        sampled as if they were open.
        """
        self._lateness_ns = max(self.settings.lateness_ns, asked_ns)
        for device in self.registry.devices.values():
            self.set_pace(device)

    def release(self) -> None:
        """What bridges a restart is closed: nothing will be told of it any more."""
        for uuid, device in list(self.registry.devices.items()):
            device.ledger.timeline.held = False
            if device.found:
                continue
            if device.ledger.busy:
                self.lost(uuid, "not found since greend was started again")
            else:
                del self.registry.devices[uuid]  # it is not there any more

    def found(self, info: DeviceInfo) -> None:
        """A device answers (again)."""
        self.registry.driver_error = None
        device = self.registry.devices.get(info.uuid)
        if device is None:
            record = self._remembered.get(info.uuid)
            ledger = DeviceLedger(
                info.uuid,
                self._clock.monotonic_ns(),
                has_counter=info.capabilities.energy_counter,
                remembered_floor_mw={} if record is None else record.floors_mw(),
                set_floor_mw=self.settings.floors_mw.get(info.uuid, {}),
            )
            device = MeteredDevice(info, ledger, self._clock.unix_ns)
            self.registry.devices[info.uuid] = device
            log.info("found %s (%s)", info.uuid, info.name)
        else:
            device.info = info
            device.lost_reason = None
            device.since_unix_ns = self._clock.unix_ns
            log.info("%s is back", info.uuid)
        device.found = True
        device.measured_ns = self._clock.monotonic_ns()
        device.fast_until_ns = device.measured_ns + self.settings.fast_after_ns
        device.interval_ns = 0
        self.set_pace(device)
        self._collect(device)
        self._saver.save([device.record(self._clock.unix_ns)])

    def missing(self, reasons: Sequence[str]) -> None:
        """What the driver knows and cannot be opened."""
        if list(reasons) != self.registry.missing:
            for reason in reasons:
                log.warning("trying again: %s", reason)
        self.registry.missing = list(reasons)
        self.looked = True

    def driver_failed(self, reason: str) -> None:
        """There is no driver."""
        if reason != self.registry.driver_error:
            log.warning("no GPU yet, trying again: %s", reason)
        self.registry.driver_error = reason
        self.looked = True

    def lost(self, uuid: str, reason: str) -> None:
        """A device does not answer any more."""
        device = self.registry.devices[uuid]
        device.lost_reason = reason
        device.since_unix_ns = self._clock.unix_ns
        self._windows.device_lost(uuid)
        log.error("lost %s: %s", uuid, reason)

    def sampled(self, samples: Sequence[Sample]) -> None:
        """Readings have come."""
        now_ns, offset_ns = self._clock.monotonic_ns(), self._clock.offset_ns
        for sample in samples:
            device = self.registry.devices[sample.device]
            before, device.latest = device.latest, sample
            if sample.energy_mj is not None or sample.power_mw is not None:
                device.measured_ns = sample.monotonic_ns
            self._samples.publish(sample)
            device.put_off.append(sample)
            # A counter that stands still must be found silent in time.
            advanced = before is not None and sample.energy_mj != before.energy_mj
            if not advanced or not self._at_rest(device):
                self._book(device, now_ns, offset_ns)
            self._set_pace(device, now_ns)

    def catch_up(self, device: MeteredDevice) -> None:
        """Books the samples that were put off, as of the last: before anything depends on them.

        While no window is open on a device its samples are booked many at a time, which
        costs far less than one a second: code and data are cold by then.
        """
        if device.put_off:
            self._book(device, device.put_off[-1].monotonic_ns, self._clock.offset_ns)

    def states_seen(self, states: Sequence[tuple[DeviceInfo, bool | None]]) -> None:
        """What devices are by now, and whether a compute context lives there."""
        for info, context_alive in states:
            device = self.registry.devices[info.uuid]
            if info.instances != device.info.instances:
                log.info("%s has %d MIG instances now", info.uuid, len(info.instances))
            device.info = info
            floor = device.ledger.floor
            if context_alive is not None and context_alive != floor.context_alive:
                self.catch_up(device)
                floor.context_alive = context_alive

    @property
    def interval_ns(self) -> int:
        """The mean time between samples of the device that is sampled most often."""
        intervals = (device.interval_ns for device in self.registry.devices.values())
        return min(filter(None, intervals), default=self.settings.slow_interval_ns)

    def tick(self) -> None:
        """Once a second: closes what waits for silent devices, writes the ledger."""
        now_ns, offset_ns = self._clock.monotonic_ns(), self._clock.offset_ns
        self.registry.beat(now_ns)
        for device in self.registry.devices.values():
            if now_ns - device.measured_ns < NS_PER_S:
                continue  # booked with its samples, or put off
            self._book(device, now_ns, offset_ns)
        soon = any(
            device.ledger.busy or not device.anchored for device in self.registry.devices.values()
        )
        if now_ns - self._flushed_ns >= (FLUSH_NS if soon else IDLE_FLUSH_NS):
            self.flush()

    def collect(self) -> None:
        """Hands what was booked to the saver; it is written with the next flush."""
        for device in self.registry.devices.values():
            self.catch_up(device)
            self._collect(device)

    def flush(self) -> "asyncio.Future[object]":
        """Writes what was booked; the future is done when it is committed."""
        self._flushed_ns = self._clock.monotonic_ns()
        self.collect()
        now_unix_ns = self._clock.unix_ns
        busy = [item.ledger for item in self.registry.devices.values() if item.ledger.busy]
        return self._saver.save(
            [device.record(now_unix_ns) for device in self.registry.devices.values()],
            Run(self._boot_id, self._flushed_ns),
            min((ledger.closed_until_ns for ledger in busy), default=self._flushed_ns),
        )

    def _collect(self, device: MeteredDevice) -> None:
        """Hands over to the saver what was booked, and where the ledger is by that."""
        ledger = device.ledger
        self._saver.add((), ledger.take_bookings())
        claims = {
            claim_id.partition("#")[0]: encode(claim)
            for claim_id, claim in ledger.take_touched(self._windows.goes_on)
        }
        self._saver.keep(device.info.uuid, anchor_of(device), claims)
        device.anchored = ledger.timeline.place is not None

    def set_pace(self, device: MeteredDevice) -> None:
        """Fast while a window is not final, may be told of later, or someone watches, and a
        while after (DESIGN.md, rule 12)."""
        self._set_pace(device, self._clock.monotonic_ns())

    def _set_pace(self, device: MeteredDevice, now_ns: int) -> None:
        settings = self.settings
        awaiting = self._lateness_ns > settings.lateness_ns
        if device.ledger.busy or device.watchers or awaiting:
            device.fast_until_ns = now_ns + settings.fast_after_ns
        if now_ns >= device.fast_until_ns:
            interval_ns = settings.slow_interval_ns
            device.sharpen_until_ns = 0
        else:
            interval_ns = settings.fast_interval_ns
            device.sharpen_until_ns = device.sharpen_until_ns or now_ns + settings.fast_after_ns
            if now_ns < device.sharpen_until_ns and not device.ledger.timeline.sharp:
                interval_ns = min(settings.first_interval_ns, interval_ns)
        if interval_ns != device.interval_ns:
            device.interval_ns = interval_ns
            self._pace.set_interval(device.info.uuid, interval_ns)

    @contextmanager
    def watch(self, uuids: Sequence[str]) -> Iterator[AsyncIterator[Sample]]:
        """Samples of the devices named (all if none is), for as long as the block lasts.

        Raises NotFound for an unknown device.
        """
        watched = self.registry.named(uuids)
        for device in watched:
            device.watchers += 1
            self.set_pace(device)
        keys = {device.info.uuid for device in watched}
        try:
            with self._samples.watch() as samples:
                yield (sample async for sample in samples if not uuids or sample.device in keys)
        finally:
            for device in watched:
                device.watchers -= 1

    def _at_rest(self, device: MeteredDevice) -> bool:
        return device.interval_ns >= self.settings.slow_interval_ns and not device.ledger.busy

    def _book(self, device: MeteredDevice, now_ns: int, offset_ns: int) -> None:
        samples, device.put_off = device.put_off, []
        begun_ns = self._clock.monotonic_ns()
        unread_ns = self._unread_ns if begun_ns < self._unread_until_ns else 0
        try:
            for sample in samples:
                device.ledger.add(sample)
            settled = device.ledger.close(now_ns, self._lateness_ns + unread_ns, offset_ns)
            finals = self._windows.settled(device, settled)
            if finals:
                # With their minutes, so that windows and ledger agree in every commit.
                self._saver.add(finals, (), self._windows.parents_of(finals))
                for uuid in {uuid for window in finals for uuid in window.shares}:
                    # One of before a restart may not be there any more.
                    if uuid in self.registry.devices:
                        self._collect(self.registry.devices[uuid])
                self._saver.save()
        except Exception:  # one bad device is one bad device
            log.exception("booking samples of %s failed", device.info.uuid)
        done_ns = self._clock.monotonic_ns()
        if done_ns - begun_ns > LONG_NS:
            # Meanwhile nobody read what clients told, and that takes as long again. It is not
            # late by it.
            unread_ns += 2 * (done_ns - begun_ns)
            self._unread_ns = min(unread_ns, LONGEST_UNREAD_NS)
            self._unread_until_ns = done_ns + self._lateness_ns + 2 * self._unread_ns
