"""What is on its way to the daemon, and who waits for what becomes of it."""

import logging
import threading
import weakref

import grpc

from greend_client._errors import GreendError
from greend_client._queue import EventQueue
from greend_client._record import Event, Kind, Record
from greend_client._stream import Stream
from greend_client._waiting import Waiting
from greend_proto.v1 import metering_pb2

logger = logging.getLogger("greend_client")


class Outbox:
    """What the callers' threads and the one that delivers have in common.

    Whoever touches it holds ``work``, and notifies it of what others wait for.
    """

    def __init__(self, capacity: int) -> None:
        # Re-entrant: a signal handler or destructor may end a window while its
        # thread is in here.
        self.work = threading.Condition(threading.RLock())
        self.events = EventQueue(capacity)
        self.waiting = Waiting()
        # Stopped windows whose result somebody may still ask for, by id.
        self.unsettled: weakref.WeakValueDictionary[str, Record] = weakref.WeakValueDictionary()
        self.stream: Stream | None = None  # the connection that there is
        self.attempt = 0  # number of the latest one
        self.hurry = False  # somebody waits for the next one
        self.paused = False  # there must be none
        self.ended: GreendError | None = None  # why nothing is taken any more
        self._warned: set[str] = set()

    def put(self, kind: Kind, at_ns: int, record: Record | None, value: object) -> bool:
        """Take an event, if there is room, and its window is not lost."""
        if record is not None and record.error is not None:
            return False
        if self.ended is not None:
            if record is not None:
                self.lose(record, self.ended)
            return False
        if self.events.full and not self._make_room(kind, record):
            return False
        self.events.add(kind, at_ns, record, value)
        self.work.notify_all()
        return True

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
            self.warn("no daemon", f"a window's {kind} is not told: {error}")
        return False

    def receive(self, stream: Stream, response: metering_pb2.RecordWindowsResponse) -> None:
        """Take what the daemon told on a connection."""
        stream.heard(response.acknowledged_sequence)
        for refusal in response.refusals:
            event = self.events.find(refusal.sequence)
            if event is not None:  # or it was told before
                self.refused(event, GreendError(refusal.message, _code(refusal.code)))
        for event in self.events.acknowledge(response.acknowledged_sequence):
            if event.kind == "stop" and event.record is not None:
                event.record.acknowledged_on = stream.number
        for window in response.windows:
            record = self.unsettled.pop(window.window_id, None)
            if record is not None and record.error is None:
                record.answer = window
                self.waiting.tell(record)
        self.work.notify_all()

    def refused(self, event: Event, error: GreendError) -> None:
        """An event is never taken: the first and the last one cost the window its result."""
        record = event.record
        if record is not None and record.error is not None:
            return
        if record is not None and event.kind in ("start", "stop"):
            self.lose(record, error, "refused")
        else:
            self.warn("refused", f"a window's {event.kind.replace('_', ' ')} is not told: {error}")

    def cut(self, stream: Stream) -> None:
        """A connection has ended: results that were to come on it will not."""
        stream.ended = True
        self.stream = None
        self.waiting.tell_all(
            record for record in self.unsettled.values() if record.acknowledged_on == stream.number
        )
        self.work.notify_all()

    def is_cut(self, record: Record) -> bool:
        """Whether the connection has ended on which a window's result would have come."""
        number = 0 if self.stream is None else self.stream.number
        return record.acknowledged_on not in (0, number)

    def lose(self, record: Record, error: GreendError, kind: str = "no daemon") -> None:
        """A window will never have a result."""
        record.error = error
        self.warn(kind, f"a window is not measured: {error}")
        self.waiting.tell(record)

    def lose_all(self, error: GreendError) -> None:
        """Nothing of what is kept will be sent."""
        for record in self.events.clear():
            self.lose(record, error)

    def warn(self, kind: str, message: str) -> None:
        """Log a warning, but only one of its kind in the client's life."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("greend: %s", message)


def _code(number: int) -> grpc.StatusCode:
    codes = (code for code in grpc.StatusCode if code.value[0] == number)
    return next(codes, grpc.StatusCode.UNKNOWN)
