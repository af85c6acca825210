"""A window in the caller's hands."""

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from greend_client import _decorator, _environment, _requests
from greend_client._errors import GreendError, ResultUnavailable
from greend_client._gpus import Gpus
from greend_client._record import Record
from greend_client._sender import Sender
from greend_client._times import known_ns
from greend_client._values import WindowResult

Function = TypeVar("Function", bound=Callable[..., Any])

AHEAD_NS = 1_000_000_000
"""How far ahead an instant may be that the daemon takes."""

# What is said so soon after the start is of the whole window.
_AT_ONCE_NS = 1_000_000


class Measured:
    """What windows of both clients share: all but how a result is waited for."""

    __slots__ = ("_before", "_mistake", "_parent", "_phased", "_record", "_sender")

    def __init__(
        self,
        sender: Sender,
        request_id: object,
        gpus: Gpus,
        weight: float,
        parent: "Measured | str | None",
        tags: Mapping[str, object],
        iteration_driven: bool,
    ) -> None:
        self._sender = sender
        self._parent = parent
        self._before: Measured | None = None  # whose block this one's is in
        self._mistake: GreendError | None = None  # why there is no result, whatever was sent
        self._phased = False
        self._record = Record(request_id, gpus, weight, tags, iteration_driven)

    @property
    def window_id(self) -> str:
        """UUID of version 7, known before the window starts."""
        return self._record.window_id

    @property
    def started(self) -> bool:
        """Whether it began."""
        return self._record.start_ns is not None

    @property
    def stopped(self) -> bool:
        """Whether it ended."""
        return self._record.stop_ns is not None

    def start(self, at_ns: int | None = None) -> Self:
        """Begin now, or at an instant of CLOCK_MONOTONIC. A second call does nothing.

        What is no instant, here or at ``stop``, costs the window its result.
        """
        record = self._record
        if record.start_ns is None:
            self._settle_context()
            if at_ns is not None:
                self._start_at(at_ns)
                return self
            record.start_ns = now_ns = time.monotonic_ns()
            self._sender.put(("start", now_ns, record, None))
        return self

    def stop(self, at_ns: int | None = None) -> None:
        """End now, or at an instant of CLOCK_MONOTONIC.

        Without a start, or a second time, does nothing.
        """
        record = self._record
        if record.start_ns is not None and record.stop_ns is None:
            now_ns = time.monotonic_ns()
            if at_ns is not None or now_ns < record.start_ns:
                self._stop_at(now_ns if at_ns is None else at_ns)
                return
            record.stop_ns = now_ns
            self._sender.put(("stop", now_ns, record, None))

    def first_token(self) -> None:
        """Note that the first token is there now. A second call does nothing."""
        if self.started and not self.stopped and self._record.first_token_ns is None:
            self._record.first_token_ns = time.monotonic_ns()

    def phase(self, name: str) -> None:
        """Note that a phase of this name begins now; the one before ends.

        The first one, named at once after the start (within 1 ms), begins with it. At most
        64 of a window count. Without a start, or after the stop, does nothing.
        """
        if self.started and not self.stopped:
            at_ns, start_ns = time.monotonic_ns(), self._record.start_ns
            if start_ns is not None and not self._phased and at_ns - start_ns < _AT_ONCE_NS:
                at_ns = start_ns
            self._phased = True
            self._sender.put(("phase", at_ns, self._record, name))

    def set_weight(self, weight: float) -> None:
        """Change the claim on energy shared with other windows, 1e-3 to 1e6, from now on.

        Before the start it is what the window starts with; after the stop, does nothing.
        """
        if not self.started:
            self._record.weight = weight
        elif not self.stopped:
            self._sender.put(("weight", time.monotonic_ns(), self._record, weight))

    def tokens(
        self, *, prompt: int | None = None, cached: int | None = None, output: int | None = None
    ) -> None:
        """Note token counts, the last one of each kind holds.

        ``cached`` is the part of ``prompt`` that a cache supplied. They travel with
        the stop: after it, this does nothing.
        """
        record = self._record
        if record.stop_ns is None:
            usage = record.usage
            if usage is None:
                usage = record.usage = {}
            if prompt is not None:
                usage["prompt_tokens"] = prompt
            if cached is not None:
                usage["cached_tokens"] = cached
            if output is not None:
                usage["output_tokens"] = output

    def __call__(self, function: Function) -> Function:
        """Decorate a function: each of its calls gets a window of its own.

        The window is like this one, has an id of its own, begins with the call and
        ends with it, by a return or an exception; calls within calls are its
        children. A coroutine function's window ends when what it awaits is done.
        Inside, ``current_window()`` is the window.

        Raises:
            TypeError: It is a generator function: it runs when somebody iterates, and
                the time between belongs to them. Use ``with`` inside it.
        """
        return _decorator.decorate(self._again, function)

    def __enter__(self) -> Self:
        self.start()
        before = _current.get()
        if before is not None:
            before = _running(before)
            if before is not None:  # blocks left out of order must not make a chain that grows
                before._before = _running(before._before)
        self._before = before
        _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        # Not ContextVar.reset, which raises where the block is left in another
        # context (a generator's) or blocks are left out of order.
        if _current.get() is self:
            _current.set(self._before)

    def __repr__(self) -> str:
        state = "stopped" if self.stopped else "running" if self.started else "not started"
        return f"<{type(self).__module__}.Window {self.window_id} {state}>"

    def _again(self) -> Self:
        """Return a new window with the same arguments."""
        record = self._record
        return self._new(
            record.request_id,
            record.gpus,
            record.weight,
            self._parent,
            record.tags,
            record.iteration_driven,
        )

    def _new(self, *arguments: Any) -> Self:
        return type(self)(self._sender, *arguments)

    def _require_stopped(self) -> None:
        if not self.stopped:
            raise ResultUnavailable(
                f"window {self.window_id} was not stopped", grpc.StatusCode.FAILED_PRECONDITION
            )
        if self._mistake is not None:
            raise ResultUnavailable(str(self._mistake), self._mistake.code)

    def _settle_context(self) -> None:
        """Take what the window inherits from where it starts: GPUs and parent."""
        record, parent = self._record, self._parent
        if isinstance(record.gpus, str) and record.gpus == "auto":
            record.environment = _environment.gpus()
        if parent is None:
            parent = _current.get()
            if parent is not None:
                parent = _running(parent)
            if parent is None:
                parent = _environment.parent()
        record.parent = parent._record if isinstance(parent, Measured) else parent

    def _start_at(self, at_ns: object) -> None:
        start_ns = known_ns(at_ns)
        if start_ns is None:
            self._sender.refuse(self._record, no_instant(at_ns))  # nothing of it is sent
            start_ns = time.monotonic_ns()
        self._record.start_ns = start_ns
        self._sender.put(("start", start_ns, self._record, None))

    def _stop_at(self, at_ns: object) -> None:
        start_ns, stop_ns = self._record.start_ns, known_ns(at_ns)
        if start_ns is None or self.stopped:
            return
        if stop_ns is None or not _can_be(start_ns, stop_ns):
            # It ends all the same: the daemon would refuse the stop, and keep it open.
            self._mistake = no_instant(at_ns)
            self._sender.warn_of(self._mistake)
            stop_ns = max(time.monotonic_ns(), start_ns)
        self._record.stop_ns = stop_ns
        self._sender.put(("stop", stop_ns, self._record, None))

    def _happened(self, start_ns: object, stop_ns: object, first_token_ns: object) -> None:
        """Say afterwards when all of it was, on the monotonic clock."""
        self._settle_context()
        first_ns = known_ns(start_ns if first_token_ns is None else first_token_ns)
        start, stop = known_ns(start_ns), known_ns(stop_ns)
        if start is None or stop is None or first_ns is None or not _can_be(start, stop):
            told = (start_ns, stop_ns, first_token_ns)
            self._sender.refuse(self._record, no_instant(told))
            start = stop = first_ns = time.monotonic_ns()
        self._start_at(start)
        if first_token_ns is not None:
            self._record.first_token_ns = first_ns
        self._stop_at(stop)


def _can_be(start_ns: int, stop_ns: int) -> bool:
    """Whether the daemon takes a stop."""
    return start_ns <= stop_ns <= time.monotonic_ns() + AHEAD_NS


def no_instant(told: object) -> GreendError:
    """Return the error for instants that cannot be."""
    return GreendError(
        f"{told!r}: a start, or a stop after it and not in the future, is an integer of"
        " time.monotonic_ns()",
        grpc.StatusCode.INVALID_ARGUMENT,
    )


class Window(Measured):
    """A tagged interval on one or more GPUs, made by ``Client.window``.

    Use it as a context manager, as a decorator, or call ``start`` and ``stop`` by
    hand, several at once in any order. Nothing here but ``result`` blocks or raises:
    what the daemon refuses is told by ``result`` and once in the log.

    Inside its ``with`` block it is the parent of windows that start there.
    """

    __slots__ = ()

    def result(self, timeout: float | None = None) -> WindowResult:
        """Wait for the final energy, at most ``timeout`` seconds (None: no limit).

        May be called any time after the stop, from any thread, again and again.
        It does not wait for a daemon that is not there: the window is kept, and
        can be asked for again when there is one.

        Raises:
            ResultUnavailable: There is no result, or none yet; ``code`` tells which.
        """
        self._require_stopped()
        timeout = _requests.timeout_s(timeout)
        return WindowResult.from_message(self._sender.result(self._record, timeout))


def current_window() -> Measured | None:
    """Return the window in whose block, or decorated call, this runs; None outside."""
    return _running(_current.get())


def _running(window: Measured | None) -> Measured | None:
    """Return the innermost window that still runs, from ``window`` outward.

    A task may outlive the block that it was started in.
    """
    while window is not None and window.stopped:
        window = window._before
    return window


_current: ContextVar[Measured | None] = ContextVar("greend_client_window", default=None)
