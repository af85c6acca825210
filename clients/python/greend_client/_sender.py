"""The way of windows' events to the daemon: one thread, one bounded queue.

This is the seam between windows and how their events travel. `Sender.put` takes what
happens at once and never raises; what becomes of a window is told by
`Sender.result` and `Sender.delivered` alone.
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from greend_client import _fork
from greend_client._delivery import ANSWER_S, Delivery
from greend_client._errors import GreendError, ResultUnavailable, forked_error
from greend_client._outbox import Outbox
from greend_client._record import Happening, Record
from greend_client._stats import Stats
from greend_client._waiting import Outcome, left, settle
from greend_proto.v1 import metering_pb2, types_pb2

CAPACITY = 50_000
"""Events that are kept while the daemon does not take them."""

USUAL_LATENESS_S = 0.25
"""The allowance that the daemon gives to all; for more it has to be asked in time."""

_CUT_S = 0.2  # of the time that closing may take
_CONNECTS_S = 0.5  # of which a fork does not get in the midst
WAIT_S = 5.0
"""Who waits for a result looks this often whether it still can come."""

GetWindow = Callable[[metering_pb2.GetWindowRequest, float], types_pb2.Window]
"""Calls GetWindow with a timeout in seconds; raises GreendError."""


class Sender:
    """Delivers windows to the daemon at ``address`` from a thread of its own.

    Thread-safe. ``put`` takes what happens: it is the inbox's, for in the caller's path
    nothing stands between. The thread starts with the first event, or at once where more than the
    usual lateness is to be asked for. What the daemon has not acknowledged is kept and
    sent again, up to ``capacity`` events; then the windows that finished first are lost
    first.
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
        # One secret for all windows: nobody else changes them.
        self._opening = metering_pb2.OpenSession(
            session_token=secrets.token_hex(16),
            boot_id=_boot_id(),
            lateness_s=lateness_s,
            uid=os.getuid(),
            pid=os.getpid(),
        )
        self._delivery: Delivery | None = None
        self._make_outbox(capacity)
        _fork.register(self)
        if _fork.broken():
            self._outbox.ended = _broken_error()
        elif lateness_s > USUAL_LATENESS_S:
            with self._outbox.work:
                self._run_thread()

    def _make_outbox(self, capacity: int) -> None:
        self._outbox = Outbox(capacity, self._called)
        self.put: Callable[[Happening], None] = self._outbox.inbox.put

    # In the caller's path.

    def _called(self) -> None:
        """Appending was not enough: the thread sleeps, is far behind, or is not there."""
        outbox = self._outbox
        far_behind = len(outbox.inbox) > outbox.inbox.limit
        if self._delivery is not None and outbox.ended is None and not far_behind:
            outbox.inbox.asleep = False
            outbox.inbox.ring()
            return
        with outbox.work:
            outbox.collect()
            if self._delivery is None and outbox.ended is None:
                self._run_thread()

    def refuse(self, record: Record, error: GreendError) -> None:
        """Give a window up that cannot be told to the daemon, before its start is."""
        with self._outbox.work:
            self._outbox.refuse(record, error)

    def warn_of(self, error: GreendError, what: str = "a window is not measured") -> None:
        """Log a caller's mistake that costs something to be measured; the first one."""
        with self._outbox.work:
            self._outbox.warn("refused", f"{what}: {error}")

    def stats(self) -> Stats:
        """Return what became of the windows so far."""
        with self._outbox.work:
            return self._outbox.stats()

    def _run_thread(self) -> None:
        stays = self._opening.lateness_s > USUAL_LATENESS_S
        delivery = Delivery(self._address, self._opening, self._outbox, stays=stays)
        try:
            delivery.start()
        except RuntimeError as error:
            # No more threads, or the interpreter shuts down: the next event tries again.
            self._outbox.warn("no thread", f"windows cannot be sent: {error}")
        else:
            self._delivery = delivery

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
        future, outbox = Outcome(), self._outbox
        with outbox.work:
            outbox.collect()
            if record.answer is not None or record.error is not None or outbox.is_cut(record):
                settle(future, record.answer, record.error)
                return future
            outbox.waiting.add(record, future, outbox.attempt + 1)
            future.add_done_callback(lambda _: self._forget(record, future))
            outbox.hurry = True
        outbox.inbox.ring()
        return future

    def is_overdue(self, record: Record, since_s: float) -> bool:
        """Whether the daemon is to be asked for a window that was waited for since then.

        To be asked now and then by those who wait: a daemon that does not answer them is
        taken for none.
        """
        now_s = time.monotonic()
        with self._outbox.work:
            stream = self._outbox.stream
            if record.acknowledged_on:
                return now_s - since_s > WAIT_S + self._opening.lateness_s
        if stream is not None and now_s - stream.owing_since_s(now_s) > ANSWER_S:
            stream.cut_unanswered()
        return False

    def _forget(self, record: Record, future: Outcome) -> None:
        with self._outbox.work:
            self._outbox.waiting.forget(record, future)

    # The end, and forks.

    def close(self, timeout_s: float) -> None:
        """Deliver what is kept, for at most ``timeout_s``; what is left is lost."""
        outbox, error = self._outbox, _closed_error()
        with outbox.work:
            outbox.collect()
            outbox.ended = outbox.ended or error
        outbox.inbox.ring()
        if self._delivery is not None:
            self._delivery.join(timeout_s - _CUT_S)
            with outbox.work:
                stream = outbox.stream
            if stream is not None:
                stream.cut(error)
            self._delivery.join(_CUT_S)
        with outbox.work:
            outbox.lose_all(error)
            outbox.inbox.asleep = True  # from now on, what comes is lost at once
            outbox.collect()

    def before_fork(self) -> None:
        """Disconnect, and hold still: a call in flight would hang the child."""
        outbox = self._outbox
        with outbox.work:
            outbox.paused = True
            stream = outbox.stream
        if stream is not None:
            stream.tried.wait(_CONNECTS_S)
        outbox.inbox.ring()
        if stream is not None:
            stream.cut(_closed_error())
        if self._delivery is not None:
            self._delivery.parked.wait(_fork.PATIENCE_S)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._outbox.work:
            self._outbox.paused = False
            self._outbox.tell_cut()
        self._outbox.inbox.ring()

    def after_fork_in_child(self) -> None:
        """Neither thread nor connection came along.

        The child's windows are lost, with one warning; a client of its own is what it needs.
        """
        before, error = self._outbox, forked_error()
        self._delivery = None
        self._make_outbox(before.events.capacity)
        self._outbox.ended = error
        for record in before.events.clear() + before.inbox.windows():
            record.error = error


def not_final(record: Record, timeout: float | None) -> ResultUnavailable:
    """Return the error for a window that is not final when ``timeout`` is over."""
    return ResultUnavailable(
        f"window {record.window_id} is not final after {timeout} s: ask again later",
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


def _closed_error() -> GreendError:
    return GreendError("the client was closed before", grpc.StatusCode.CANCELLED)


def _broken_error() -> GreendError:
    return GreendError(
        "this process was forked from one that had called the daemon, and gRPC had been imported"
        " there without GRPC_ENABLE_FORK_SUPPORT=1: set that in its environment, or import"
        " greend_client first",
        grpc.StatusCode.FAILED_PRECONDITION,
    )


def _boot_id() -> str:
    """This boot of this host; empty where nothing tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
