"""One thread a device: all calls to it in one order, a hung one delaying no other."""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from greend.device.protocol import Device, DeviceLostError
from greend.model import NS_PER_S, Sample

log = logging.getLogger(__name__)

CONTEXT_INTERVAL_NS = 10 * NS_PER_S
# Intervals vary by this much around their mean: polls at a fixed fraction of the
# counter's period would see the same phases again and again (energy/edges.py).
SPREAD = 0.3
GOLDEN = 0.6180339887498949


class Listener(Protocol):
    """Who is told; called from the worker's thread."""

    def sampled(self, sample: Sample) -> None:
        """A reading."""

    def context_seen(self, device: str, alive: bool) -> None:
        """Whether a compute context lives on the device."""

    def lost(self, device: str, reason: str) -> None:
        """The device is gone; its worker has ended."""


class DeviceWorker:
    """Samples a device until it is stopped or lost."""

    def __init__(
        self,
        device: Device,
        listener: Listener,
        *,
        interval_ns: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.info = device.info
        self._device = device
        self._listener = listener
        self._clock = clock
        self._interval_ns = interval_ns
        self._wake = threading.Condition()
        self._stopping = False
        self._read_now = False
        self._thread = threading.Thread(
            target=self._run, name=f"device-{device.info.index}", daemon=True
        )

    def start(self) -> None:
        """Starts sampling."""
        self._thread.start()

    def set_interval(self, interval_ns: int) -> None:
        """The mean time between samples; a shorter one reads at once."""
        if interval_ns == self._interval_ns:
            return
        with self._wake:
            self._read_now = interval_ns < self._interval_ns
            self._interval_ns = interval_ns
            self._wake.notify()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread; False if a call hangs in the driver."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        uuid = self.info.uuid
        context_due_ns = self._clock()
        try:
            for count in itertools.count():
                if self._stopping:
                    return
                self._listener.sampled(self._device.read())
                if self._clock() >= context_due_ns:
                    context_due_ns = self._clock() + CONTEXT_INTERVAL_NS
                    alive = self._device.context_alive()
                    if alive is not None:
                        self._listener.context_seen(uuid, alive)
                self._wait(1 + SPREAD * (2 * (count * GOLDEN % 1) - 1))
        except DeviceLostError as error:
            self._listener.lost(uuid, str(error))
        except Exception as error:
            log.exception("reading %s failed", uuid)
            self._listener.lost(uuid, f"{type(error).__name__} while reading; see the daemon's log")

    def _wait(self, factor: float) -> None:
        begun_ns = self._clock()
        with self._wake:
            while not self._stopping and not self._read_now:
                left_ns = begun_ns + self._interval_ns * factor - self._clock()
                if left_ns <= 0:
                    break
                self._wake.wait(left_ns / NS_PER_S)
            self._read_now = False
