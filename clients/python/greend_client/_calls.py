"""Calls through one door; what gRPC raises becomes a GreendError."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from greend_client._channel import open_channel
from greend_client._errors import GreendError, from_rpc
from greend_client._in_flight import InFlight
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
            response: Response = self._in_flight.result(
                lambda: method.future(request, timeout=timeout_s, wait_for_ready=wait_for_daemon)
            )
            return response
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
        return Watch(
            lambda: method(request), convert, self._told, lambda: self._closed, self._in_flight
        )

    def _told(self, error: grpc.RpcError) -> GreendError:
        return from_rpc(error, self.address, control=self._control)
