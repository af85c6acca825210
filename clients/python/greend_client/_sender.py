"""The way of windows' events to the daemon: one thread, one bounded queue.

This is the seam between windows and how their events travel. `Sender` takes events
at once and never raises; what becomes of a window is told by
`Sender.result` and `Sender.delivered` alone.
"""

import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from greend_client import _fork
from greend_client._encoding import Encoder
from greend_client._errors import GreendError, ResultUnavailable
from greend_client._queue import EventQueue
from greend_client._record import Event, Iteration, Kind, Record
from greend_client._stream import Ended, Stream
from greend_client._waiting import Outcome, Waiting, settle
from greend_proto.v1 import metering_pb2, types_pb2

logger = logging.getLogger("greend_client")

CAPACITY = 50_000
"""Events that are kept while the daemon does not take them."""

USUAL_LATENESS_S = 0.25
"""The allowance that the daemon gives to all; for more it has to be asked in time."""

_BATCH = 200  # events a message
_IN_FLIGHT = 4  # messages that are not acknowledged
_RETRY_S = (0.1, 2.0)  # first and longest wait between attempts
_ANSWER_S = 10.0  # a daemon that takes longer does not answer
WAIT_S = 5.0
"""A call that waits for a result looks this often whether it still can come."""

GetWindow = Callable[[metering_pb2.GetWindowRequest, float], types_pb2.Window]
"""Calls GetWindow with a timeout in seconds; raises GreendError."""


class Sender:
    """Delivers windows to the daemon at ``address`` from a thread of its own.

    Thread-safe. The thread starts with the first event (at once, where more than the
    usual lateness is to be asked for) and sends events in the order in which they
    happened. What the daemon has not acknowledged is kept and sent again, up to
    ``capacity`` events; then the windows that finished first are lost first.
    """

    def __init__(
        self,
        address: str,
        get_window: GetWindow,
        lateness_s: float = USUAL_LATENESS_S,
        capacity: int = CAPACITY,
    ) -> None:
        self._address = address
        self._get_window = get_window
        self._capacity = capacity
        # One secret for all windows: nobody else changes them.
        self._opening = metering_pb2.OpenSession(
            session_token=secrets.token_hex(16),
            boot_id=_boot_id(),
            lateness_s=lateness_s,
            uid=os.getuid(),
            pid=os.getpid(),
        )
        self._stays = lateness_s > USUAL_LATENESS_S
        self._reset()
        _fork.register(self)
        if self._stays:
            with self._work:
                self._run_thread()

    def _reset(self) -> None:
        # Re-entrant: a signal handler or destructor may end a window while its
        # thread is in here.
        self._work = threading.Condition(threading.RLock())  # something has changed
        self._events = EventQueue(self._capacity)
        self._waiting = Waiting()
        # Stopped windows whose result somebody may still ask for, by id.
        self._unsettled: weakref.WeakValueDictionary[str, Record] = weakref.WeakValueDictionary()
        self._stream: Stream | None = None
        self._attempt = 0  # number of the latest connection
        self._hurry = False
        self._closed = False
        self._paused = False
        self._parked = False
        self._warned: set[str] = set()
        self._thread: threading.Thread | None = None
        self._end_error = _closed_error()

    # In the caller's path.

    def start(self, record: Record) -> None:
        """Take the start of a window."""
        assert record.start_ns is not None
        self.happened("start", record.start_ns, record)

    def stop(self, record: Record) -> None:
        """Take the stop of a window, with what is known of its usage."""
        assert record.stop_ns is not None
        with self._work:
            if record.first_token_ns is not None:
                self.happened("first_token", record.first_token_ns, record)
            if record.usage:
                self.happened("usage", record.stop_ns, record, dict(record.usage))
            self._unsettled[record.window_id] = record
            self.happened("stop", record.stop_ns, record)

    def iterate(self, start_ns: int, iteration: Iteration) -> None:
        """Take a batch execution."""
        self.happened("iteration", start_ns, None, iteration)

    def happened(self, kind: Kind, at_ns: int, record: Record | None, value: object = None) -> None:
        """Take an event."""
        with self._work:
            if record is not None and record.error is not None:
                return
            if self._closed:
                if record is not None:
                    self._lose(record, self._end_error)
                return
            if self._events.full and not self._make_room(kind, record):
                return
            self._events.add(kind, at_ns, record, value)
            if self._thread is None:
                self._run_thread()
            self._work.notify_all()

    def refuse(self, record: Record, error: GreendError) -> None:
        """Give a window up that cannot be told to the daemon, before its start is."""
        with self._work:
            self._lose(record, error, "refused")

    def warn_of(self, error: GreendError, what: str = "a window is not measured") -> None:
        """Log a caller's mistake that costs something to be measured; the first one."""
        with self._work:
            self._warn("refused", f"{what}: {error}")

    def _make_room(self, kind: Kind, record: Record | None) -> bool:
        """Whether an event may come in, though as many are kept as may be."""
        error = GreendError(
            "this window was given up: more happened than the daemon took in time",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        oldest = self._events.make_room()
        if oldest is not None:
            self._lose(oldest, error)
            return True
        # Every event kept is of a window that the daemon has, or that still runs. What ends
        # one may come in: there is no more of it than of windows kept.
        if kind in ("first_token", "usage", "stop"):
            return True
        if kind == "start" and record is not None:
            self._lose(record, error)
        else:
            self._warn("no daemon", f"a window's {kind} is not told: {error}")
        return False

    def _run_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="greend-client-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # No more threads, or the interpreter shuts down: the next event tries again.
            self._warn("no thread", f"windows cannot be sent: {error}")
        else:
            self._thread = thread

    def _lose(self, record: Record, error: GreendError, kind: str = "no daemon") -> None:
        record.error = error
        self._warn(kind, f"a window is not measured: {error}")
        self._waiting.tell(record)

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, but only one of its kind in the client's life."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("greend: %s", message)

    # Results.

    def result(self, record: Record, timeout: float | None) -> types_pb2.Window:
        """Wait for the final answer about a window that was stopped.

        Raises:
            ResultUnavailable: It was lost or refused, no daemon answers an attempt
                made after this call began, or ``timeout`` seconds are over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        window = self._outcome(record, deadline)
        while window is None or window.state != "final":
            rest = left(deadline)
            if rest == 0:
                raise not_final(record, timeout)
            wait_s = WAIT_S if rest is None else min(WAIT_S, rest)
            request = metering_pb2.GetWindowRequest(window_id=record.window_id, wait_s=wait_s)
            try:
                window = self._get_window(request, wait_s + 1)
            except GreendError as error:
                raise ResultUnavailable(str(error), error.code) from error
        record.answer = window
        return window

    def _outcome(self, record: Record, deadline: float | None) -> types_pb2.Window | None:
        future, since = self.delivered(record), time.monotonic()
        try:
            while True:
                rest = left(deadline)
                try:
                    return future.result(WAIT_S if rest is None else min(WAIT_S, rest))
                except TimeoutError:
                    if left(deadline) == 0 or self.is_overdue(record, since):
                        return None
        finally:
            future.cancel()

    def delivered(self, record: Record) -> Outcome:
        """Return what becomes of a stopped window, once that is known; never waits.

        The outcome is None where the daemon has the stop, but is to be asked for the
        window. The future fails with ResultUnavailable where the window was lost or
        refused, or no daemon answers an attempt made after this call. It may be
        cancelled.
        """
        future: Outcome = Outcome()
        with self._work:
            if record.answer is not None or record.error is not None or self._is_cut(record):
                settle(future, record.answer, record.error)
                return future
            self._waiting.add(record, future, self._attempt + 1)
            future.add_done_callback(lambda _: self._forget(record, future))
            self._hurry = True
            self._work.notify_all()
        return future

    def is_overdue(self, record: Record, since_s: float) -> bool:
        """Whether the daemon is to be asked for a window that was waited for since then.

        To be asked now and then by those who wait: a daemon that does not answer them is
        taken for none.
        """
        now_s = time.monotonic()
        with self._work:
            stream = self._stream
            if record.acknowledged_on:
                return now_s - since_s > WAIT_S + self._opening.lateness_s
        if stream is not None and now_s - stream.owing_since_s(now_s) > _ANSWER_S:
            stream.cut(
                GreendError(
                    f"the daemon at {self._address} did not answer in time",
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )
            )
        return False

    def _is_cut(self, record: Record) -> bool:
        """Whether the connection has ended on which its result would have come."""
        number = 0 if self._stream is None else self._stream.number
        return record.acknowledged_on not in (0, number)

    def _forget(self, record: Record, future: Outcome) -> None:
        with self._work:
            self._waiting.forget(record, future)

    # The end, and forks.

    def close(self, timeout_s: float) -> None:
        """Deliver what is kept, for at most ``timeout_s``; what is left is lost."""
        with self._work:
            self._closed = True
            self._work.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
            with self._work:
                stream = self._stream
            if stream is not None:
                stream.cut(_closed_error())
            self._thread.join(1)
        with self._work:
            for record in self._events.clear():
                self._lose(record, _closed_error())

    def before_fork(self) -> None:
        """Disconnect, and hold still: a call in flight would hang the child."""
        with self._work:
            self._paused = True
            stream = self._stream
            self._work.notify_all()
        if stream is not None:
            stream.cut(_closed_error())
        with self._work:
            self._work.wait_for(lambda: self._thread is None or self._parked, 1)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._work:
            self._paused = False
            self._work.notify_all()

    def after_fork_in_child(self) -> None:
        """Neither thread nor connection came along.

        The child's windows are lost, with one warning; a client of its own is what it needs.
        """
        records = self._events.clear()
        self._reset()
        self._closed = True
        self._end_error = _forked_error()
        for record in records:
            record.error = self._end_error

    # On the thread.

    def _run(self) -> None:
        retry_s = _RETRY_S[0]
        while (stream := self._next_stream()) is not None:
            try:
                self._talk(stream)
            except GreendError as reason:
                if stream.established:
                    retry_s = _RETRY_S[0]
                self._failed(reason, retry_s)
                retry_s = min(retry_s * 2, _RETRY_S[1])
            except Exception:  # ours; it must not end the thread
                logger.exception("greend: sending windows failed")
                self._failed(GreendError("windows could not be sent"), _RETRY_S[1])

    def _next_stream(self) -> Stream | None:
        """Wait until there is something to connect for; None at the end."""
        with self._work:
            self._parked = True
            self._work.notify_all()
            self._work.wait_for(
                lambda: self._closed or (not self._paused and (self._events or self._stays))
            )
            self._parked = False
            if self._closed and not self._events:
                return None
            self._attempt += 1
            self._stream = stream = Stream(self._address, self._attempt)
            return stream

    def _talk(self, stream: Stream) -> None:
        try:
            for response in stream.talk(self._requests(stream)):
                self._receive(stream, response)
        finally:
            with self._work:
                stream.ended = True
                self._stream = None
                cut = [r for r in self._unsettled.values() if r.acknowledged_on == stream.number]
                self._waiting.tell_all(cut)
                self._work.notify_all()
            stream.close()
        with self._work:
            if not self._paused and (self._events or not self._closed):
                raise GreendError("the daemon went away", grpc.StatusCode.UNAVAILABLE)

    def _failed(self, reason: GreendError, retry_s: float) -> None:
        """Tell who waited for a connection that it failed, and wait before the next one."""
        with self._work:
            if self._paused:
                return
            self._waiting.tell_failed(self._attempt, reason)
            if self._closed:
                for record in self._events.clear():
                    self._lose(record, reason)
            elif self._events or self._stays:
                self._warn("no daemon", f"{reason}; until then windows have no results")
                self._work.wait_for(lambda: self._hurry or self._closed or self._paused, retry_s)
            self._hurry = False

    def _receive(self, stream: Stream, response: metering_pb2.RecordWindowsResponse) -> None:
        with self._work:
            stream.heard(response.acknowledged_sequence)
            for refusal in response.refusals:
                self._refused(refusal)
            for event in self._events.acknowledge(response.acknowledged_sequence):
                if event.kind == "stop" and event.record is not None:
                    event.record.acknowledged_on = stream.number
            for window in response.windows:
                record = self._unsettled.pop(window.window_id, None)
                if record is not None and record.error is None:
                    record.answer = window
                    self._waiting.tell(record)
            self._work.notify_all()

    def _refused(self, refusal: metering_pb2.RecordWindowsResponse.Refusal) -> None:
        event = self._events.find(refusal.sequence)
        if event is None:
            return  # told before
        codes = (code for code in grpc.StatusCode if code.value[0] == refusal.code)
        code = next(codes, grpc.StatusCode.UNKNOWN)
        self._costs(event, GreendError(refusal.message, code))

    def _costs(self, event: Event, error: GreendError) -> None:
        """An event will never be taken: the first and the last one cost the window its result."""
        record = event.record
        if record is not None and record.error is not None:
            return
        if record is not None and event.kind in ("start", "stop"):
            self._lose(record, error, "refused")
        else:
            self._warn("refused", f"a window's {event.kind.replace('_', ' ')} is not told: {error}")

    # On gRPC's thread, which asks for what is to be sent.

    def _requests(self, stream: Stream) -> Iterator[metering_pb2.RecordWindowsRequest]:
        yield metering_pb2.RecordWindowsRequest(open=self._opening)
        encoder = Encoder(stream.list_devices)
        while True:
            with self._work:
                self._work.wait_for(lambda: self._may_send(stream))
                if stream.ended or self._paused:
                    return
                events = self._events.after(stream.position, _BATCH)
                if not events:
                    break  # closed
                stream.position = events[-1].sequence
                self._events.sent(stream.position)
            try:
                messages = self._messages(encoder, events)
            except Ended:
                return
            if messages:
                stream.sends(messages[-1].sequence)
                batch = metering_pb2.EventBatch(events=messages)
                yield metering_pb2.RecordWindowsRequest(batch=batch)
        yield metering_pb2.RecordWindowsRequest(close=metering_pb2.CloseSession())

    def _may_send(self, stream: Stream) -> bool:
        if stream.ended or self._paused:
            return True
        if not stream.established or len(stream.in_flight) >= _IN_FLIGHT:
            return False
        return self._closed or bool(self._events.after(stream.position, 1))

    def _messages(self, encoder: Encoder, events: list[Event]) -> list[metering_pb2.WindowEvent]:
        """Events as messages, without those that cannot be sent; raises Ended."""
        messages: list[metering_pb2.WindowEvent] = []
        for event in events:
            lost = event.record is not None and event.record.error is not None
            try:
                message = None if lost else encoder.message(event)
            except GreendError as error:
                with self._work:
                    self._costs(event, error)
                message = None
            if message is not None:
                messages.append(message)
            else:
                with self._work:
                    self._events.discard(event)
        return messages


def left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, if there is one; 0 when it is over."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def not_final(record: Record, timeout: float | None) -> ResultUnavailable:
    """Return the error for a window that is not final when ``timeout`` is over."""
    return ResultUnavailable(
        f"window {record.window_id} is not final after {timeout} s: ask again later",
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


def _closed_error() -> GreendError:
    return GreendError("the client was closed before", grpc.StatusCode.CANCELLED)


def _forked_error() -> GreendError:
    return GreendError(
        "the client was made before this process was forked: make one in the child",
        grpc.StatusCode.FAILED_PRECONDITION,
    )


def _boot_id() -> str:
    """This boot of this host; empty where nothing tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
