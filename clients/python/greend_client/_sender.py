"""The way of windows' events to the daemon: one thread, one bounded queue.

This is the seam between windows and how their events travel. `Sender` takes events
at once and never raises; what becomes of a window is told by
`Sender.result` and `Sender.delivered` alone.
"""

import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import grpc

from greend_client._delivery import Delivery, NotTaken, Record
from greend_client._errors import GreendError, ResultUnavailable
from greend_proto.v1 import metering_pb2, types_pb2

logger = logging.getLogger("greend_client")

CAPACITY = 10_000
"""Events that are kept while the daemon does not take them."""

_RETRY_S = (0.1, 2.0)  # first and longest wait between attempts
WAIT_S = 5.0
"""A call that waits for a result asks again this often."""

GetWindow = Callable[[metering_pb2.GetWindowRequest, float], types_pb2.Window]
"""Calls GetWindow with a timeout in seconds; raises GreendError."""


class Sender:
    """Delivers windows to the daemon at ``address`` from a thread of its own.

    Thread-safe. The thread starts with the first event and sends events in the
    order in which they happened. While no daemon takes them, ``capacity`` of them
    are kept; then the windows that finished first are lost first.
    """

    def __init__(self, address: str, get_window: GetWindow, capacity: int = CAPACITY) -> None:
        self._delivery = Delivery(address)
        self._get_window = get_window
        self._capacity = capacity
        self._reset()
        _senders.add(self)

    def _reset(self) -> None:
        # Re-entrant: a signal handler or destructor may end a window while its
        # thread is in here.
        lock = threading.RLock()
        self._work = threading.Condition(lock)  # for the thread: something to do
        # Who waits for answers, by window id: with the attempt that has to be made first.
        self._waiting: dict[str, dict[Future[types_pb2.Window], int]] = {}
        # By window id and whether it is the stop, in the order in which they happened.
        self._events: OrderedDict[tuple[str, bool], Record] = OrderedDict()
        self._finished: OrderedDict[str, Record] = OrderedDict()  # those with a stop in _events
        self._attempt = 0  # number of the latest attempt to deliver an event
        self._failed = 0  # number of the latest one that has to be made again
        self._trouble: GreendError | None = None  # why
        self._hurry = False
        self._sending = ""  # the window whose event is under way
        self._closed = False
        self._forked = False
        self._warned: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self, record: Record) -> None:
        """Take the start of a window."""
        self._put(record, stop=False)

    def stop(self, record: Record) -> None:
        """Take the stop of a window, with what is known of its usage."""
        self._put(record, stop=True)

    def refuse(self, record: Record, error: GreendError) -> None:
        """Give a window up that cannot be told to the daemon, before its start is."""
        with self._work:
            self._lose(record, error, "refused")

    def warn_of(self, error: GreendError) -> None:
        """Log a caller's mistake that costs a window its result; the first one."""
        with self._work:
            self._warn("refused", f"a window is not measured: {error}")

    def result(self, record: Record, timeout: float | None) -> types_pb2.Window:
        """Wait for the final answer about a window that was stopped.

        Raises:
            ResultUnavailable: It was lost or refused, no daemon answers an attempt
                made after this call began, or ``timeout`` seconds are over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        window = self._answer(record, timeout)
        while window.state != "final":
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

    def delivered(self, record: Record) -> "Future[types_pb2.Window]":
        """Return the answer to a window's stop, once there is one; never waits.

        The future fails with ResultUnavailable where the window was lost or refused,
        or no daemon answers an attempt made after this call. It may be cancelled.
        """
        future: Future[types_pb2.Window] = Future()
        with self._work:
            if record.answer is not None or record.error is not None:
                _settle(future, record.answer, record.error)
                return future
            self._waiting.setdefault(record.window_id, {})[future] = self._attempt + 1
            future.add_done_callback(lambda done: self._forget(record.window_id, done))
            self._hurry = True
            self._work.notify_all()
        return future

    def _answer(self, record: Record, timeout: float | None) -> types_pb2.Window:
        future = self.delivered(record)
        try:
            return future.result(timeout)
        except TimeoutError:
            raise not_final(record, timeout) from None
        finally:
            future.cancel()

    def close(self, timeout_s: float) -> None:
        """Deliver what is kept, for at most ``timeout_s``; what is left is lost."""
        with self._work:
            self._closed = True
            self._work.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._delivery.cut()
            self._thread.join(1)
        with self._work:
            for record in self._events.values():
                self._lose(record, _closed_error())
            self._events.clear()
            self._finished.clear()

    def after_fork(self) -> None:
        """In a forked child: neither thread nor connection came along.

        The child's windows are lost, with one warning; a client of its own is what it needs.
        """
        records = list(self._events.values())
        self._reset()
        self._closed = self._forked = True
        for record in records:
            record.error = _forked_error()

    # In the caller's path.

    def _put(self, record: Record, *, stop: bool) -> None:
        with self._work:
            if record.error is not None:
                return
            if self._closed:
                self._lose(record, _forked_error() if self._forked else _closed_error())
                return
            if len(self._events) >= self._capacity and not self._make_room(record, stop=stop):
                return
            self._events[record.window_id, stop] = record
            if stop:
                self._finished[record.window_id] = record
            if self._thread is None:
                self._run_thread()
            self._work.notify_all()

    def _make_room(self, record: Record, *, stop: bool) -> bool:
        error = GreendError(
            "this window was given up: more happened than the daemon took in time",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        # Not one whose start the daemon has: without its stop it would stay open there.
        # Those are few, as events go in order.
        for window_id, oldest in self._finished.items():
            if (window_id, False) in self._events and self._sending != window_id:
                del self._events[window_id, False], self._events[window_id, True]
                del self._finished[window_id]
                self._lose(oldest, error)
                return True
        # Every event kept is of a window that the daemon has, or that still runs. Its stop
        # may come in: there are no more of those than of windows kept.
        if not stop:
            self._lose(record, error)
        return stop

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
        self._tell(record)

    def _tell(self, record: Record) -> None:
        """Tell those who wait for a window what became of it."""
        for future in self._waiting.pop(record.window_id, {}):
            _settle(future, record.answer, record.error)

    def _tell_failed(self) -> None:
        """Tell those who have waited for an attempt that it failed."""
        for waiting in list(self._waiting.values()):
            for future, attempt in list(waiting.items()):
                if self._failed >= attempt:
                    _settle(future, None, self._trouble)

    def _forget(self, window_id: str, future: "Future[types_pb2.Window]") -> None:
        with self._work:
            waiting = self._waiting.get(window_id, {})
            waiting.pop(future, None)
            if not waiting:
                self._waiting.pop(window_id, None)

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, but only one of its kind in the client's life."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("greend: %s", message)

    # On the thread.

    def _run(self) -> None:
        retry_s = _RETRY_S[0]
        while True:
            with self._work:
                self._work.wait_for(lambda: self._events or self._closed)
                if not self._events:
                    break
                (window_id, stop), record = next(iter(self._events.items()))
                self._attempt += 1
                self._sending = window_id
            try:
                answer = self._deliver(record, stop=stop)
            except NotTaken as trouble:
                if not self._wait_to_retry(trouble.reason, retry_s):
                    break
                retry_s = min(retry_s * 2, _RETRY_S[1])
                continue
            retry_s = _RETRY_S[0]
            with self._work:
                self._events.pop((window_id, stop), None)
                if stop:
                    self._finished.pop(window_id, None)
                    record.answer = answer
                    self._tell(record)
        self._delivery.disconnect()

    def _deliver(self, record: Record, *, stop: bool) -> types_pb2.Window | None:
        """Send an event, unless its window is lost already; raises NotTaken."""
        if record.error is None:
            try:
                if stop:
                    return self._delivery.stop(record)
                self._delivery.start(record)
            except NotTaken:
                raise
            except GreendError as error:
                with self._work:
                    self._lose(record, error, "refused")
            except Exception as error:  # ours; it costs this window, and no other
                logger.exception("greend: sending a window failed")
                with self._work:
                    told = GreendError(f"it could not be sent: {error!r}", grpc.StatusCode.INTERNAL)
                    self._lose(record, told, "failed")
        return None

    def _wait_to_retry(self, reason: GreendError, retry_s: float) -> bool:
        """Wait after an attempt that has to be made again; False: give up."""
        with self._work:
            self._failed, self._trouble = self._attempt, reason
            self._tell_failed()
            if self._closed:
                return False
            self._warn("no daemon", f"{reason}; until then windows have no results")
            self._work.wait_for(lambda: self._hurry or self._closed, retry_s)
            self._hurry = False
            return True


def left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, if there is one; 0 when it is over."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def not_final(record: Record, timeout: float | None) -> ResultUnavailable:
    """Return the error for a window that is not final when ``timeout`` is over."""
    return ResultUnavailable(
        f"window {record.window_id} is not final after {timeout} s: ask again later",
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


def _settle(
    future: "Future[types_pb2.Window]", window: types_pb2.Window | None, error: GreendError | None
) -> None:
    if future.done() or not future.set_running_or_notify_cancel():
        return
    if window is not None:
        future.set_result(window)
    elif error is not None:
        future.set_exception(ResultUnavailable(str(error), error.code))


def _closed_error() -> GreendError:
    return GreendError("the client was closed before", grpc.StatusCode.CANCELLED)


def _forked_error() -> GreendError:
    return GreendError(
        "the client was made before this process was forked: make one in the child",
        grpc.StatusCode.FAILED_PRECONDITION,
    )


_senders: "weakref.WeakSet[Sender]" = weakref.WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.after_fork()


os.register_at_fork(after_in_child=_after_fork)
