"""What is on its way to the daemon, and who waits for what becomes of it."""

import logging
import threading
import time
import weakref
from collections.abc import Callable

import grpc

from greend_client._errors import GreendError
from greend_client._inbox import Inbox
from greend_client._queue import EventQueue
from greend_client._record import Event, Happening, Kind, Record
from greend_client._stats import Stats
from greend_client._stream import Stream
from greend_client._waiting import Waiting, left
from greend_proto.v1 import metering_pb2

logger = logging.getLogger("greend_client")

LINGER_S = 0.02
"""What happens so soon after something else is not worth a message of its own."""


class Outbox:
    """What the callers' threads and those that deliver have in common.

    Whoever touches it holds ``work``; but anybody may put into ``inbox``.
    """

    def __init__(self, capacity: int, called: Callable[[], None]) -> None:
        # Re-entrant: a signal handler or destructor may end a window while its
        # thread is in here.
        self.work = threading.RLock()
        self.inbox = Inbox(called)
        self.events = EventQueue(capacity)
        self.bound(capacity)
        self.waiting = Waiting()
        # Stopped windows whose result somebody may still ask for, by id.
        self.unsettled: weakref.WeakValueDictionary[str, Record] = weakref.WeakValueDictionary()
        self.lost = 0  # windows that were given up
        self._delivered = self._refused = 0
        self.stream: Stream | None = None  # the connection that there is
        self.attempt = 0  # number of the latest one
        self.hurry = False  # somebody waits for the next one
        self.paused = False  # there must be none
        self.ended: GreendError | None = None  # why nothing is taken any more
        self._warned: set[str] = set()
        self._collecting = False
        self._turn = threading.Lock()  # of those who deliver, one waits

    def bound(self, capacity: int) -> None:
        """Keep at most so many events."""
        self.events.capacity, self.inbox.limit = capacity, capacity // 10

    # What comes in.

    def collect(self) -> int:
        """Take what callers handed over; return how much that was."""
        if self._collecting:  # by a signal handler or destructor in the midst of it
            return 0
        self._collecting = True
        count = 0
        try:
            while (item := self.inbox.take()) is not None:
                self._take(item)
                count += 1
        finally:
            self._collecting = False
        return count

    def _take(self, item: Happening) -> None:
        kind, at_ns, record, value = item
        if record is None:
            self._put(kind, at_ns, None, value)
            return
        if kind == "start" and isinstance(record.parent, Record):
            record.parent = record.parent.window_id  # its parent's may go, and theirs
        elif kind == "stop":
            if record.first_token_ns is not None:
                self._put("first_token", record.first_token_ns, record)
            if record.usage:
                self._put("usage", at_ns, record, record.usage)
            self.unsettled[record.window_id] = record
        self._put(kind, at_ns, record, value)

    def _put(self, kind: Kind, at_ns: int, record: Record | None, value: object = None) -> None:
        """Take an event, if there is room, and its window is not lost."""
        if record is not None and record.error is not None:
            return
        if self.ended is not None:
            if record is not None:
                self.lose(record, self.ended)
            return
        full = len(self.events) + len(self.inbox) >= self.events.capacity
        if not full or self._make_room(kind, record):
            self.events.add(kind, at_ns, record, value)

    def _make_room(self, kind: Kind, record: Record | None) -> bool:
        """Whether an event may come in, though as many are kept as may be."""
        error = GreendError(
            "this window was given up: more happened than the daemon took in time",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        oldest = self.events.make_room()
        if oldest is not None:
            self.lose(oldest, error)
            return True
        # Every event kept is of a window that the daemon has, or that still runs. What ends
        # one may come in: there is no more of it than of windows kept.
        if kind in ("first_token", "usage", "stop"):
            return True
        if kind == "start" and record is not None:
            self.lose(record, error)
        else:
            self.warn("lost", f"a window's {kind} is not told: {error}")
        return False

    # What comes back.

    def receive(self, stream: Stream, response: metering_pb2.RecordWindowsResponse) -> None:
        """Take what the daemon told on a connection."""
        held_up = stream.held_up
        stream.heard(response.acknowledged_sequence)
        for refusal in response.refusals:
            event = self.events.find(refusal.sequence)
            if event is not None:  # or it was told before
                self.refused(event, GreendError(refusal.message, _code(refusal.code)))
        for event in self.events.acknowledge(response.acknowledged_sequence):
            if event.kind == "stop" and event.record is not None:
                event.record.acknowledged_on = stream.number
                self._delivered += event.record.error is None
        for window in response.windows:
            record = self.unsettled.pop(window.window_id, None)
            if record is not None and record.error is None:
                record.answer = window
                self.waiting.tell(record)
        if held_up and not stream.held_up:
            self.inbox.ring()

    def refused(self, event: Event, error: GreendError) -> None:
        """An event is never taken: the first and the last one cost the window its result."""
        record = event.record
        if record is not None and record.error is not None:
            return
        if record is not None and event.kind in ("start", "stop"):
            self.refuse(record, error)
        else:
            self.warn("refused", f"a window's {event.kind.replace('_', ' ')} is not told: {error}")

    def cut(self, stream: Stream) -> None:
        """A connection has ended: results that were to come on it will not."""
        stream.ended = True
        self.stream = None
        self.tell_cut()
        self.inbox.ring()

    def tell_cut(self) -> None:
        """Tell those whose results will not come by themselves any more: they may ask."""
        if not self.paused:  # or they would, in the midst of a fork
            self.waiting.tell_all(filter(self.is_cut, list(self.unsettled.values())))

    def is_cut(self, record: Record) -> bool:
        """Whether the connection has ended on which a window's result would have come.

        Not in the midst of a fork: nobody is to ask for it then.
        """
        if self.paused:
            return False
        number = 0 if self.stream is None else self.stream.number
        return record.acknowledged_on not in (0, number)

    # What is lost.

    def lose(self, record: Record, error: GreendError) -> None:
        """A window is given up: it will never have a result."""
        self.lost += 1
        self._spoil(record, error, "lost")

    def refuse(self, record: Record, error: GreendError) -> None:
        """A window is wrong in itself, and will never have a result."""
        self._refused += 1
        self._spoil(record, error, "refused")

    def lose_all(self, error: GreendError) -> None:
        """Nothing of what is kept will be sent."""
        kept = [record for record in self.events.clear() if record.error is None]
        records = [record for record in kept if record.answer is None]
        self._delivered += len(kept) - len(records)  # but for the acknowledgement
        for record in records:
            record.error = error
            self.waiting.tell(record)
        self.lost += len(records)
        if records:
            logger.warning("greend: %d windows are lost: %s", len(records), error)

    def warn(self, kind: str, message: str) -> None:
        """Log a warning, but only one of its kind in the client's life."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("greend: %s", message)

    def stats(self) -> Stats:
        """Return what became of the windows so far."""
        self.collect()
        kept = sum(record.error is None for record in self.events.windows())
        return Stats(self._delivered, kept, self.lost, self._refused)

    def _spoil(self, record: Record, error: GreendError, kind: str) -> None:
        record.error = error
        self.warn(kind, f"a window is not measured: {error}")
        self.waiting.tell(record)

    # For the threads that deliver: without `work`, which a condition is looked at with.

    def wait_for(self, condition: Callable[[], object], timeout_s: float | None = None) -> None:
        """Wait until a condition holds, and take meanwhile what callers hand over.

        It is looked at whenever something came, or the bell was rung.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._turn:
            while True:
                with self.work:
                    came = self.collect()
                    if condition():
                        return
                rest_s = left(deadline)
                if rest_s == 0:
                    return
                if came:
                    self.inbox.doze(LINGER_S if rest_s is None else min(LINGER_S, rest_s))
                else:
                    self.inbox.sleep(rest_s)

    def linger(self) -> None:
        """Wait for more, as long as that is worth it."""
        with self._turn:
            self.inbox.doze(LINGER_S)


def _code(number: int) -> grpc.StatusCode:
    codes = (code for code in grpc.StatusCode if code.value[0] == number)
    return next(codes, grpc.StatusCode.UNKNOWN)
