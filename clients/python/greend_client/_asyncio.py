"""gRPC's calls, awaited: on the ordinary channel, so that no event loop owns it.

``grpc.aio`` would be a second connection, bound to the loop that it was made on.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, TypeVar

import grpc

from greend_client._errors import GreendError, from_rpc
from greend_client._watch import Watch

if TYPE_CHECKING:
    Request = TypeVar("Request")
    Response = TypeVar("Response")

Item = TypeVar("Item")

_AHEAD = 16
"""Items of a feed that are read before they are asked for."""


async def call(
    method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
    request: "Request",
    address: str,
    *,
    timeout_s: float = 10.0,
    wait_for_daemon: bool = False,
) -> "Response":
    """Make a unary call, as ``Door.call`` does. Cancelled, it takes the call with it."""
    try:
        pending = method.future(request, timeout=timeout_s, wait_for_ready=wait_for_daemon)
    except ValueError as error:  # gRPC's answer on a closed channel
        raise _closed_error() from error
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    pending.add_done_callback(tell)
    try:
        await done.wait()
    finally:
        pending.cancel()  # without effect where it is done
    try:
        return pending.result()
    except grpc.RpcError as error:
        raise from_rpc(error, address) from error
    except grpc.FutureCancelledError as error:  # the channel was closed meanwhile
        raise _closed_error() from error


async def items(watch: Watch[Item]) -> AsyncGenerator[Item, None]:
    """Iterate over a feed, which a thread reads, little ahead; close it at the end."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Item] | GreendError | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def read() -> None:
        end: GreendError | None = None
        try:
            while room.acquire():
                tell((next(watch),))
        except StopIteration:
            pass
        except GreendError as error:
            end = error
        tell(end)

    def tell(news: tuple[Item] | GreendError | None) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, news)
        except RuntimeError:  # the loop was closed: nobody listens
            watch.close()

    try:
        threading.Thread(target=read, name="greend-client-watch", daemon=True).start()
        while (news := await queue.get()) is not None:
            if isinstance(news, GreendError):
                raise news
            room.release()
            yield news[0]
    finally:
        watch.close()
        room.release()


def _closed_error() -> GreendError:
    return GreendError("the client was closed", grpc.StatusCode.CANCELLED)
