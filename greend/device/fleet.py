"""All devices of the host: finds them, reads them, and finds them again after a loss."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from greend.device.protocol import Device, Driver, DriverError
from greend.device.worker import Worker
from greend.model import NS_PER_S, DeviceInfo, Sample

log = logging.getLogger(__name__)

STATE_INTERVAL_NS = 10 * NS_PER_S
# How long until what is missing is looked for again, and what may have been added.
RETRY_S, RESCAN_S = 5.0, 10.0


class FleetListener(Protocol):
    """Who is told of devices; called from other threads."""

    def found(self, info: DeviceInfo) -> None:
        """A device answers; samples follow."""

    def missing(self, reasons: Sequence[str]) -> None:
        """What the driver knows and does not answer; it will be tried again. Told after all
        that were found."""

    def driver_failed(self, reason: str) -> None:
        """There is no driver; it will be tried again."""

    def sampled(self, samples: Sequence[Sample]) -> None:
        """Readings, one a device."""

    def states_seen(self, states: Sequence[tuple[DeviceInfo, bool | None]]) -> None:
        """What devices are by now, and whether a compute context lives there; None: no telling."""

    def lost(self, uuid: str, reason: str) -> None:
        """A device is gone; it will be looked for."""


class Fleet:
    """The devices that answer. `start` does not wait for the driver."""

    def __init__(self, driver: Driver, listener: FleetListener, *, interval_ns: int) -> None:
        self._driver = driver
        self._listener = listener
        self._interval_ns = interval_ns
        self._sampler: Worker[Sample] = Worker(
            "sampler", lambda device: device.read(), listener.sampled, self._lose
        )
        # The list of processes costs milliseconds: it must not hold up the sampler.
        self._states: Worker[tuple[DeviceInfo, bool | None]] = Worker(
            "states",
            lambda device: (device.renew(), device.context_alive()),
            listener.states_seen,
            self._lose,
        )
        self._changed = threading.Condition()
        self._present: set[str] = set()
        # Every device seen in this run: one that is not present is looked for, as is
        # one that has never answered.
        self._known: set[str] = set()
        self._incomplete = True
        self._stopping = False
        # The search has a thread of its own: a driver can hang while it is opened.
        self._thread = threading.Thread(target=self._search, name="device-search", daemon=True)

    def start(self) -> None:
        """Starts looking for devices."""
        self._thread.start()

    def set_interval(self, uuid: str, interval_ns: int) -> None:
        """The mean time between samples of a device, if it is there."""
        self._sampler.set_interval(uuid, interval_ns)

    def relieve(self) -> None:
        """Samples are overdue: a device that hangs must not delay the others."""
        self._sampler.relieve()
        self._states.relieve()

    @property
    def alive(self) -> bool:
        """Whether devices are read, apart from those in which a call hangs."""
        return self._sampler.alive

    def stop(self, timeout_s: float) -> bool:
        """Ends all threads; False if one of them hangs in the driver."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        deadline_s = time.monotonic() + timeout_s
        ended = [
            worker.stop(max(deadline_s - time.monotonic(), 0))
            for worker in (self._sampler, self._states)
        ]
        if self._thread.is_alive():
            self._thread.join(max(deadline_s - time.monotonic(), 0))
        if not all(ended) or self._thread.is_alive():
            return False
        self._driver.close()
        return True

    def _lose(self, uuid: str, reason: str) -> None:
        with self._changed:
            if uuid not in self._present:
                return
            self._present.discard(uuid)
            self._sampler.remove(uuid)
            self._states.remove(uuid)
            self._changed.notify()
        self._listener.lost(uuid, reason)

    def _search(self) -> None:
        while True:
            self._open()
            with self._changed:
                if self._complete():
                    self._changed.wait(RESCAN_S)
                # A lost GPU takes a while to come back.
                if not self._stopping and not self._complete():
                    self._changed.wait(RETRY_S)
                if self._stopping:
                    return

    def _complete(self) -> bool:
        return (
            bool(self._known)
            and not self._incomplete
            and not self._stopping
            and self._known == self._present
        )

    def _open(self) -> None:
        with self._changed:
            known = set(self._present)
        try:
            devices, missing = self._driver.open(known)
        except DriverError as error:
            self._listener.driver_failed(str(error))
            return
        except Exception as error:
            log.exception("opening the driver failed")
            self._listener.driver_failed(f"{type(error).__name__}; see the daemon's log")
            return
        with self._changed:
            self._incomplete = bool(missing)
        for device in devices:
            self._add(device)
        self._listener.missing(missing)

    def _add(self, device: Device) -> None:
        uuid = device.info.uuid
        with self._changed:
            if self._stopping or uuid in self._present:
                return
            self._present.add(uuid)
            self._known.add(uuid)
        self._listener.found(device.info)
        self._sampler.add(device, self._interval_ns)
        self._states.add(device, STATE_INTERVAL_NS)
