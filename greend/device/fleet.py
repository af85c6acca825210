"""All devices of the host: finds them, and finds them again after a loss."""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from greend.device.protocol import Device, Driver, DriverError
from greend.device.worker import DeviceWorker, Listener
from greend.model import DeviceInfo

log = logging.getLogger(__name__)

RETRY_S = 5.0


class FleetListener(Listener, Protocol):
    """Who is told of devices; called from other threads."""

    def found(self, info: DeviceInfo) -> None:
        """A device answers; samples follow."""

    def missing(self, reasons: Sequence[str]) -> None:
        """What the driver knows and does not answer; it will be tried again."""

    def driver_failed(self, reason: str) -> None:
        """There is no driver; it will be tried again."""


class Fleet:
    """A worker for each device that answers. `start` does not wait for the driver."""

    def __init__(self, driver: Driver, listener: FleetListener, *, interval_ns: int) -> None:
        self._driver = driver
        self._listener = listener
        self._interval_ns = interval_ns
        self._workers: dict[str, DeviceWorker] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Every device seen in this run: one that has no worker is looked for, as is
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
        with self._lock:
            worker = self._workers.get(uuid)
        if worker is not None:
            worker.set_interval(interval_ns)

    def lost(self, uuid: str) -> None:
        """A worker has ended: its device is looked for from now on."""
        with self._changed:
            self._workers.pop(uuid, None)
            self._changed.notify()

    def stop(self, timeout_s: float) -> bool:
        """Ends all threads; False if one of them hangs in the driver."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            workers = list(self._workers.values())
        stopped = [worker.stop(timeout_s) for worker in workers]
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        ended = all(stopped) and not self._thread.is_alive()
        if ended:
            self._driver.close()
        return ended

    def _search(self) -> None:
        while True:
            self._open()
            with self._changed:
                # A lost GPU takes a while to come back; a complete host changes rarely.
                while not self._stopping and self._complete():
                    self._changed.wait()
                if not self._stopping:
                    self._changed.wait(RETRY_S)
                if self._stopping:
                    return

    def _complete(self) -> bool:
        return bool(self._known) and not self._incomplete and self._known == self._workers.keys()

    def _open(self) -> None:
        with self._lock:
            known = set(self._workers)
        try:
            devices, missing = self._driver.open(known)
        except DriverError as error:
            self._listener.driver_failed(str(error))
            return
        except Exception as error:
            log.exception("opening the driver failed")
            self._listener.driver_failed(f"{type(error).__name__}; see the daemon's log")
            return
        self._listener.missing(missing)
        with self._lock:
            self._incomplete = bool(missing)
        for device in devices:
            self._add(device)

    def _add(self, device: Device) -> None:
        with self._lock:
            if self._stopping or device.info.uuid in self._workers:
                return
            worker = DeviceWorker(device, self._listener, interval_ns=self._interval_ns)
            self._workers[device.info.uuid] = worker
            self._known.add(device.info.uuid)
        self._listener.found(device.info)
        worker.start()
