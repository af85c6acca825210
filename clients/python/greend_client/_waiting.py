"""Who waits for what became of windows."""

import time
from collections.abc import Iterable
from concurrent.futures import Future

from greend_client._errors import GreendError, ResultUnavailable
from greend_client._record import Record
from greend_proto.v1 import types_pb2

Outcome = Future[types_pb2.Window | None]
"""The final window, or None: the daemon has its stop, and is to be asked for the rest."""


class Waiting:
    """Futures by window; each fails with an attempt to reach the daemon that fails.

    Not thread-safe: its owner has a lock. Whoever is told must not wait.
    """

    def __init__(self) -> None:
        # With the number of the first attempt that counts.
        self._futures: dict[str, dict[Outcome, int]] = {}

    @property
    def empty(self) -> bool:
        """Whether nobody waits."""
        return not self._futures

    def add(self, record: Record, future: Outcome, attempt: int) -> None:
        """Let a future wait; an attempt of this number or a later one may fail it."""
        self._futures.setdefault(record.window_id, {})[future] = attempt

    def forget(self, record: Record, future: Outcome) -> None:
        """Let it wait no longer."""
        waiting = self._futures.get(record.window_id, {})
        waiting.pop(future, None)
        if not waiting:
            self._futures.pop(record.window_id, None)

    def tell(self, record: Record) -> None:
        """Tell those who wait for a window what became of it, as far as is known."""
        for future in self._futures.pop(record.window_id, {}):
            settle(future, record.answer, record.error)

    def tell_all(self, records: Iterable[Record]) -> None:
        """Tell those who wait for any of these windows."""
        for record in records:
            if record.window_id in self._futures:
                self.tell(record)

    def tell_failed(self, attempt: int, why: GreendError) -> None:
        """Tell those who wait for an attempt that it failed."""
        for waiting in list(self._futures.values()):
            for future, first in list(waiting.items()):
                if attempt >= first:
                    settle(future, None, why)


def settle(future: Outcome, window: types_pb2.Window | None, error: GreendError | None) -> None:
    """Give a future its outcome, unless it has one or was cancelled."""
    if future.done() or not future.set_running_or_notify_cancel():
        return
    if error is not None and window is None:
        future.set_exception(ResultUnavailable(str(error), error.code))
    else:
        future.set_result(window)


def left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, if there is one; 0 when it is over."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
