"""The calls of one channel, and how they get over a fork.

A thread inside gRPC while the process is forked may hold a lock there that nobody releases
in the child, which then hangs. So all calls are cancelled before a fork and all threads
come out, and in the parent the calls are made again.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from greend_client import _fork
from greend_client._errors import forked_error


class InFlight:
    """Calls in flight, and threads that wait for them. Thread-safe."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._forking = self._forked = False
        self._inside = 0
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()
        _fork.register(self)

    @contextmanager
    def call(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """A call to wait for: the one that ``begin`` makes, or has made before.

        Raises GreendError in a child that was forked since.
        """
        with self._change:
            self._change.wait_for(lambda: not self._forking)
            if self._forked:
                raise forked_error()
            _fork.connected()
            call = begin()
            self._calls.add(call)
            self._inside += 1
        try:
            yield call
        finally:
            with self._change:
                self._inside -= 1
                self._change.notify_all()

    def cut(self, call: Any) -> bool:
        """Whether a fork cancelled a call."""
        with self._change:
            return call not in self._calls

    def cancel(self, call: Any) -> None:
        """Cancel a call that others may wait for."""
        with self._change:
            self._change.wait_for(lambda: not self._forking)
            call.cancel()

    def result(self, begin: Callable[[], Any]) -> Any:
        """Make a unary call; raises what gRPC raises, ValueError on a closed channel."""
        while True:
            with self.call(begin) as call:
                try:
                    return call.result()
                except grpc.FutureCancelledError as error:
                    if not self.cut(call):
                        raise ValueError from error
                finally:
                    call.cancel()  # without effect where it is done

    def before_fork(self) -> None:
        """Cancel the calls in flight; wait until no thread is inside gRPC."""
        with self._change:
            self._forking = True
            calls = list(self._calls)
            self._calls.clear()
        for call in calls:
            call.cancel()
        with self._change:
            self._change.wait_for(lambda: not self._inside, _fork.PATIENCE_S)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._change:
            self._forking = False
            self._change.notify_all()

    def after_fork_in_child(self) -> None:
        """Neither calls nor the channel came along: a client of its own is what it needs."""
        self._change = threading.Condition()
        self._forking, self._forked = False, True
        self._inside = 0
