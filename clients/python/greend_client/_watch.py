"""A live feed from the daemon."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from greend_client._errors import GreendError

Item = TypeVar("Item")


class Watch(Iterator[Item], Generic[Item]):
    """What the daemon tells as it happens, made by ``Client.watch_samples`` and the like.

    Iterate over it. The iteration ends where it was closed, from any thread, or
    its client was. Ctrl-C while it waits ends the feed on its way through; as a
    context manager it is closed however its block is left.

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
    ) -> None:
        self._convert = convert
        self._told = told
        self._client_closed = client_closed
        self._ended = threading.Event()
        try:
            self._call = open_call()
        except ValueError as error:  # gRPC's answer on a closed channel
            raise GreendError("the client was closed", grpc.StatusCode.CANCELLED) from error

    def __next__(self) -> Item:
        if self._ended.is_set():
            raise StopIteration
        try:
            return self._convert(next(self._call))
        except grpc.RpcError as error:
            if self._ended.is_set() or self._client_closed():
                raise StopIteration from None
            self.close()
            raise self._told(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the feed. May be repeated."""
        self._ended.set()
        self._call.cancel()

    def __enter__(self) -> "Watch[Item]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
