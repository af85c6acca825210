"""Who calls the devices: one thread for all, in rounds; one that hangs is left behind.

A thread a device would wake the host once for each (`scripts/bench cost`). Whoever
waits for results says when they are overdue: then the device in whose call the thread
hangs keeps that thread, and another one goes on with the rest.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from greend.device.protocol import Device, DeviceLostError
from greend.model import NS_PER_MS, NS_PER_S

log = logging.getLogger(__name__)

T = TypeVar("T")

# A call that takes longer hangs. Calls take microseconds, some of them milliseconds.
HANGS_NS = 100 * NS_PER_MS
# Intervals vary by this much around their mean: polls at a fixed fraction of the
# counter's period would see the same phases again and again (energy/edges.py).
SPREAD = 0.3
GOLDEN = 0.6180339887498949
# What is due within this part of its interval comes along with a round.
EARLY = 0.25


@dataclass(slots=True)
class _Seat:
    """A device's place in the rounds; `away` while a thread hangs in it."""

    device: Device
    interval_ns: int
    due_ns: int
    away: bool = False


@dataclass(slots=True)
class _Stint(Generic[T]):
    """A thread's time of making the rounds; `over` once another thread makes them."""

    results: list[T] = field(default_factory=list)
    seat: _Seat | None = None
    since_ns: int = 0
    over: bool = False


class Worker(Generic[T]):
    """Calls `call` for each device at its pace; any thread may use this.

    `deliver` is given the results of a round, `lost` the device whose call raised
    DeviceLostError (or anything unexpected) and why; it is no longer called then. Both
    are called from the worker's threads.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[Device], T],
        deliver: Callable[[list[T]], None],
        lost: Callable[[str, str], None],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._name = name
        self._call = call
        self._deliver = deliver
        self._lost = lost
        self._clock = clock
        self._wake = threading.Condition()
        self._seats: dict[str, _Seat] = {}
        self._rounds = itertools.count()
        self._threads: list[threading.Thread] = []
        self._stint: _Stint[T] | None = None
        self._stopping = False

    def add(self, device: Device, interval_ns: int) -> None:
        """Calls this device, too, from now on."""
        with self._wake:
            self._seats[device.info.uuid] = _Seat(device, interval_ns, self._clock())
            if self._stint is None and not self._stopping:
                self._begin_stint()
            self._wake.notify_all()

    def remove(self, uuid: str) -> None:
        """Calls this device no more."""
        with self._wake:
            self._seats.pop(uuid, None)

    def set_interval(self, uuid: str, interval_ns: int) -> None:
        """The mean time between calls of a device, if it is there; a shorter one calls at once."""
        with self._wake:
            seat = self._seats.get(uuid)
            if seat is None:
                return
            if interval_ns < seat.interval_ns:
                seat.due_ns = self._clock()
                self._wake.notify_all()
            seat.interval_ns = interval_ns

    def relieve(self) -> None:
        """Leaves a thread that hangs to its device, and begins another one for the rest."""
        with self._wake:
            stint = self._stint
            if stint is None or stint.seat is None or self._stopping:
                return
            if self._clock() - stint.since_ns < HANGS_NS:
                return
            stint.over = stint.seat.away = True
            log.warning("a call to %s hangs: it is left behind", stint.seat.device.info.uuid)
            results, stint.results = stint.results, []
            self._begin_stint()
        if results:
            self._deliver(results)

    @property
    def alive(self) -> bool:
        """Whether a thread makes the rounds, or there is nothing to do."""
        with self._wake:
            return self._stint is None or self._threads[-1].is_alive()

    def stop(self, timeout_s: float) -> bool:
        """Ends all threads; False if one of them hangs in the driver."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            threads = list(self._threads)
        deadline_s = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(deadline_s - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in threads)

    def _begin_stint(self) -> None:
        self._stint = stint = _Stint[T]()
        thread = threading.Thread(target=self._run, args=(stint,), name=self._name, daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def _run(self, stint: _Stint[T]) -> None:
        while seats := self._due(stint):
            for seat in seats:
                self._visit(stint, seat)
                if stint.over:
                    return
            results, stint.results = stint.results, []
            if results:
                self._deliver(results)

    def _due(self, stint: _Stint[T]) -> list[_Seat]:
        """Waits for the next round; nothing when there is none any more."""
        with self._wake:
            while not self._stopping and not stint.over:
                seats = [seat for seat in self._seats.values() if not seat.away]
                now_ns = self._clock()
                left_ns = min((seat.due_ns for seat in seats), default=None)
                if left_ns is None:
                    self._wake.wait()
                elif left_ns > now_ns:
                    self._wake.wait((left_ns - now_ns) / NS_PER_S)
                else:
                    return self._take(seats, now_ns)
            return []

    def _take(self, seats: list[_Seat], now_ns: int) -> list[_Seat]:
        factor = 1 + SPREAD * (2 * (next(self._rounds) * GOLDEN % 1) - 1)
        taken = [seat for seat in seats if seat.due_ns - now_ns <= seat.interval_ns * EARLY]
        for seat in taken:
            seat.due_ns = now_ns + round(seat.interval_ns * factor)
        return taken

    def _visit(self, stint: _Stint[T], seat: _Seat) -> None:
        # In this order: who finds a seat must find since when.
        stint.since_ns = self._clock()
        stint.seat = seat
        try:
            results = [self._call(seat.device)]
            reason = ""
        except DeviceLostError as error:
            results, reason = [], str(error)
        except Exception as error:
            log.exception("calling %s failed", seat.device.info.uuid)
            results, reason = [], f"{type(error).__name__}; see the daemon's log"
        uuid = seat.device.info.uuid
        with self._wake:
            stint.seat = None
            current = self._seats.get(uuid) is seat
            if current and not stint.over:
                stint.results += results
            if reason and current:
                del self._seats[uuid]
        if reason and current:
            self._lost(uuid, reason)
        elif stint.over and current:
            # What the call said at last; only then is the device called again.
            self._deliver(results)
            with self._wake:
                seat.away = False
                self._wake.notify_all()
