"""Calls through one door; what gRPC raises becomes a GreendError."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from greend_client import _fork
from greend_client._channel import open_channel
from greend_client._errors import GreendError, from_rpc
from greend_client._watch import Watch

if TYPE_CHECKING:
    Request = TypeVar("Request")
    Response = TypeVar("Response")
    Value = TypeVar("Value")


class Calls:
    """A connection to the door at ``address``; ``control`` says which one it is."""

    def __init__(self, address: str, *, control: bool = False) -> None:
        self.address = address
        self._control = control
        self._channel = open_channel(address)
        self._closed = False
        self._in_flight = InFlight()

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: "Request",
        *,
        timeout_s: float = 10.0,
        wait_for_daemon: bool = False,
    ) -> "Response":
        """Make a unary call of ``stub``.

        With ``wait_for_daemon`` the time until a daemon is there counts as part of
        ``timeout_s``; without, a missing daemon is an error at once.

        Raises:
            GreendError: The daemon's error, or UNAVAILABLE where there is none.
        """
        try:
            return self._in_flight.call(method, request, timeout_s, wait_for_daemon)
        except grpc.RpcError as error:
            raise self._told(error) from error
        except ValueError as error:  # gRPC's answer on a closed channel
            raise GreendError("the client was closed", grpc.StatusCode.CANCELLED) from error

    def stream(
        self,
        method: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: "Request",
        convert: "Callable[[Response], Value]",
    ) -> "Watch[Value]":
        """Make a call of ``stub`` that answers with a stream; raises GreendError."""
        return Watch(lambda: method(request), convert, self._told, lambda: self._closed)

    def _told(self, error: grpc.RpcError) -> GreendError:
        return from_rpc(error, self.address, control=self._control)


class InFlight:
    """Unary calls, and how they get over a fork."""

    def __init__(self) -> None:
        self._fork = threading.Condition()
        self._forking = False
        self._pending: set[Any] = set()
        _fork.register(self)

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: "Request",
        timeout_s: float,
        wait_for_daemon: bool,
    ) -> "Response":
        """Make a call; raises what gRPC raises, ValueError on a closed channel."""
        while True:
            pending = self._begin(method, request, timeout_s, wait_for_daemon)
            try:
                response: Response = pending.result()
                return response
            except grpc.FutureCancelledError as error:
                if not self._forked(pending):
                    raise ValueError from error
            finally:
                pending.cancel()  # without effect where it is done
                self._pending.discard(pending)

    def _begin(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: "Request",
        timeout_s: float,
        wait_for_daemon: bool,
    ) -> Any:
        with self._fork:
            self._fork.wait_for(lambda: not self._forking)
            pending = method.future(request, timeout=timeout_s, wait_for_ready=wait_for_daemon)
            self._pending.add(pending)
            return pending

    def _forked(self, pending: Any) -> bool:
        """Whether a fork cancelled a call, which is to be made again then."""
        with self._fork:
            return pending not in self._pending

    def before_fork(self) -> None:
        """Cancel the calls in flight, which would hang the child; they are made again."""
        with self._fork:
            self._forking = True
            pending, self._pending = self._pending, set()
        for call in pending:
            call.cancel()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._fork:
            self._forking = False
            self._fork.notify_all()

    def after_fork_in_child(self) -> None:
        """Nobody came along who waited for a call."""
        self._fork = threading.Condition()
        self._forking = False
        self._pending = set()
