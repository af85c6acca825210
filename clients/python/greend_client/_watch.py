"""A live feed from the daemon."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from greend_client._errors import GreendError
from greend_client._in_flight import InFlight

Item = TypeVar("Item")


class Watch(Iterator[Item], Generic[Item]):
    """What the daemon tells as it happens, made by ``Client.watch_samples`` and the like.

    Iterate over it. The iteration ends where it was closed, from any thread, or
    its client was. Ctrl-C while it waits ends the feed on its way through; as a
    context manager it is closed however its block is left. Where the process forks, it
    misses what the daemon tells meanwhile, and goes on; the child's raises.

    Raises:
        GreendError: In the iteration: the daemon's error, or UNAVAILABLE where it
            went away.
    """

    def __init__(
        self,
        open_call: Callable[[], Any],
        convert: Callable[[Any], Item],
        told: Callable[[grpc.RpcError], GreendError],
        client_closed: Callable[[], bool],
        in_flight: InFlight,
    ) -> None:
        self._convert = convert
        self._told = told
        self._client_closed = client_closed
        self._open_call = open_call
        self._in_flight = in_flight
        self._ended = threading.Event()
        with in_flight.call(self._open) as call:
            self._call = call

    def __next__(self) -> Item:
        if self._ended.is_set():
            raise StopIteration
        try:
            return self._convert(self._next())
        except grpc.RpcError as error:
            if self._ended.is_set() or self._client_closed():
                raise StopIteration from None
            self.close()
            raise self._told(error) from error
        except BaseException:
            self.close()
            raise

    def _next(self) -> Any:
        while True:
            with self._in_flight.call(self._begun) as self._call:
                try:
                    return next(self._call)
                except grpc.RpcError:
                    if self._ended.is_set() or not self._in_flight.cut(self._call):
                        raise

    def _begun(self) -> Any:
        """The call; another one where a fork cancelled it."""
        cut = self._in_flight.cut(self._call) and not self._ended.is_set()
        return self._open() if cut else self._call

    def _open(self) -> Any:
        try:
            return self._open_call()
        except ValueError as error:  # gRPC's answer on a closed channel
            raise GreendError("the client was closed", grpc.StatusCode.CANCELLED) from error

    def close(self) -> None:
        """End the feed. May be repeated."""
        self._ended.set()
        self._in_flight.cancel(self._call)

    def __enter__(self) -> "Watch[Item]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
