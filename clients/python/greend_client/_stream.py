"""One connection to the daemon: a stream of RecordWindows, and the calls beside it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from greend_client import _fork
from greend_client._errors import GreendError, from_rpc
from greend_client._node import Device
from greend_proto.v1 import metering_pb2, metering_pb2_grpc

_CALL_TIMEOUT_S = 10.0
_OVER_S = 1.0  # for gRPC to be done with a call that is cancelled
_IN_FLIGHT = 4  # messages that are not acknowledged


class Ended(Exception):
    """The connection has ended before an answer came."""


class Stream:
    """A call of RecordWindows on ``channel``, used once; ``cut`` ends it, from any thread.

    ``number`` tells connections apart; ``established`` says that the daemon has answered
    on it, ``ended`` that nothing will come of it any more.
    """

    def __init__(self, channel: grpc.Channel, address: str, number: int) -> None:
        self.number = number
        self.established = False
        self.tried = threading.Event()  # to connect: the daemon has answered, or it ended
        self.ended = False
        self.position = 0  # number of the last event that was taken from the queue
        self.in_flight: deque[int] = deque()  # numbers of the last events of messages
        self._address = address
        _fork.connected()
        self._stub = metering_pb2_grpc.MeteringServiceStub(channel)
        self._calls: list[Any] = []
        self._reason: GreendError | None = None
        self._heard_s = time.monotonic()
        self._lock = threading.Lock()

    def talk(
        self, requests: Iterator[metering_pb2.RecordWindowsRequest]
    ) -> Iterator[metering_pb2.RecordWindowsResponse]:
        """Send requests and iterate over responses, both as they come.

        gRPC iterates over ``requests`` in a thread of its own.

        Raises:
            GreendError: It ended otherwise than after all requests.
        """
        try:
            call = self._begin(lambda: self._stub.RecordWindows(requests))
            over = threading.Event()
            if not call.add_callback(over.set):
                over.set()
            try:
                yield from call
            finally:
                # gRPC's threads get stuck where it is not yet over when a fork begins.
                over.wait(_OVER_S)
        except grpc.RpcError as error:
            raise self._reason or from_rpc(error, self._address) from error
        finally:
            self.tried.set()

    def sends(self, sequence: int) -> None:
        """Note that a message is sent; ``sequence`` is the number of its last event."""
        self.in_flight.append(sequence)
        if len(self.in_flight) == 1:
            self._heard_s = time.monotonic()

    def heard(self, acknowledged: int) -> None:
        """Note that the daemon has answered."""
        self.established = True
        self.tried.set()
        self._heard_s = time.monotonic()
        while self.in_flight and self.in_flight[0] <= acknowledged:
            self.in_flight.popleft()

    @property
    def held_up(self) -> bool:
        """Whether nothing may be sent until the daemon has answered."""
        return not self.established or len(self.in_flight) >= _IN_FLIGHT

    def owing_since_s(self, now_s: float) -> float:
        """Return since when an answer is owed; ``now_s`` if none is."""
        return self._heard_s if self.in_flight or not self.established else now_s

    def list_devices(self) -> list[Device]:
        """Return the daemon's devices. Raises Ended; then the stream ends, too."""
        request = metering_pb2.ListDevicesRequest()
        try:
            answer = self._begin(
                lambda: self._stub.ListDevices.future(request, timeout=_CALL_TIMEOUT_S)
            ).result()
        except grpc.RpcError as error:
            self.cut(from_rpc(error, self._address))
            raise Ended from error
        except (GreendError, grpc.FutureCancelledError, ValueError) as error:
            raise Ended from error  # cut, or its channel closed, just now
        return [Device.from_message(device) for device in answer.devices]

    def _begin(self, begin: Callable[[], Any]) -> Any:
        """Begin a call, which `cut` will cancel; raises GreendError after that."""
        with self._lock:
            if self._reason is not None:
                raise self._reason
            call = begin()
            self._calls.append(call)
            return call

    def cut(self, reason: GreendError) -> None:
        """End it now; ``reason`` is why."""
        with self._lock:
            self._reason = self._reason or reason
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def cut_unanswered(self) -> None:
        """End it: the daemon does not answer."""
        self.cut(
            GreendError(
                f"the daemon at {self._address} did not answer in time",
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
        )
