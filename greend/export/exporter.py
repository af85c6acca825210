"""The exporter: what is recorded and what stands, told to whoever scrapes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from greend.errors import Unavailable
from greend.export.collector import Snapshot, make_registry
from greend.export.endpoint import Endpoint
from greend.export.host import HostReader
from greend.export.recorder import Recorder

T = TypeVar("T")

LONGEST_WAIT_S = 5.0


class Exporter:
    """A Prometheus endpoint over a meter.

    Made on the event loop, which owns all that is told: a scrape borrows the loop for one
    snapshot (no driver call, no query) and writes it out in its own thread. `collect` is
    called first, on the loop: it has bookings that wait in ledgers handed to `recorder`.
    Raises InvalidArgument if the address cannot be used.
    """

    def __init__(
        self, address: str, recorder: Recorder, host: HostReader, collect: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()

        def snapshot() -> Snapshot:
            collect()
            return Snapshot(host.read(), recorder.read())

        self._endpoint = Endpoint(address, make_registry(lambda: on_loop(loop, snapshot)))

    @property
    def address(self) -> str:
        """Where it listens, as HOST:PORT."""
        return self._endpoint.address

    def start(self) -> None:
        """Answers from now on."""
        self._endpoint.start()

    def stop(self, timeout_s: float) -> None:
        """Ends it; called from a thread or from the loop."""
        self._endpoint.stop(timeout_s)


def on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], T], timeout_s: float = LONGEST_WAIT_S
) -> T:
    """What a function returns that is called on the loop, from another thread.

    Raises Unavailable if the loop does not come to it in time, or has ended.
    """
    answer: Future[T] = Future()

    def call() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(function())
        except Exception as error:
            answer.set_exception(error)

    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        raise Unavailable("the daemon is stopping") from None
    try:
        return answer.result(timeout_s)
    except (TimeoutError, CancelledError):
        answer.cancel()
        raise Unavailable(f"the daemon's event loop was busy for {timeout_s:g} s") from None
