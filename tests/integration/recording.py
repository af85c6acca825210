"""One end of RecordWindows, spoken by hand."""

import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2

Event = pb.WindowEvent
WAIT_S = 20.0


class Stream:
    """A stream of a session: what is sent, and what has come back so far."""

    def __init__(self, stub: metering_pb2_grpc.MeteringServiceStub, **opening: Any) -> None:
        self.acknowledged = 0
        self.responses = 0
        self.windows: dict[str, types_pb2.Window] = {}
        self.refusals: dict[int, tuple[grpc.StatusCode, str]] = {}
        self.refused_times: Counter[int] = Counter()
        self._requests: queue.SimpleQueue[pb.RecordWindowsRequest | None] = queue.SimpleQueue()
        self._call = stub.RecordWindows(iter(self._requests.get, None), timeout=60)
        if opening:
            self.send_message(open=pb.OpenSession(**opening))
            self.read()

    def send_message(self, **message: Any) -> None:
        self._requests.put(pb.RecordWindowsRequest(**message))

    def send(self, *events: Event) -> None:
        self.send_message(batch=pb.EventBatch(events=events))

    def tell(self, *events: Event) -> None:
        """Sends events, and waits until they are acknowledged."""
        self.send(*events)
        self.read_until(lambda: self.acknowledged >= events[-1].sequence)

    def refused(self, *events: Event) -> tuple[grpc.StatusCode, str]:
        """Sends events of which the last one is refused, and says how."""
        self.tell(*events)
        self.read_until(lambda: events[-1].sequence in self.refusals)
        return self.refusals[events[-1].sequence]

    def read(self) -> None:
        response = next(self._call)
        self.responses += 1
        self.acknowledged = response.acknowledged_sequence
        self.windows |= {window.window_id: window for window in response.windows}
        for refusal in response.refusals:
            code = next(code for code in grpc.StatusCode if code.value[0] == refusal.code)
            self.refusals[refusal.sequence] = code, refusal.message
            self.refused_times[refusal.sequence] += 1

    def read_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.read()

    def final(self, *window_ids: str) -> list[types_pb2.Window]:
        self.read_until(lambda: self.windows.keys() >= set(window_ids))
        return [self.windows[window_id] for window_id in window_ids]

    def error(self) -> tuple[grpc.StatusCode, str]:
        """What ends the stream."""
        with suppress(grpc.RpcError, StopIteration):
            while True:
                self.read()
        return self._call.code(), self._call.details() or ""

    def close(self) -> None:
        """Ends the session."""
        self.send_message(close=pb.CloseSession())
        self._requests.put(None)
        assert self.error() == (grpc.StatusCode.OK, "")

    def cut(self) -> None:
        """Ends the stream without a word."""
        self._call.cancel()
        self._requests.put(None)


@contextmanager
def session(
    stub: metering_pb2_grpc.MeteringServiceStub, token: str = "", **opening: Any
) -> Iterator[Stream]:
    """A stream of a session of its own, ended with the block."""
    stream = Stream(stub, session_token=token or uuid.uuid4().hex, **opening)
    yield stream
    stream.close()


def new_id() -> str:
    return str(uuid.uuid4())


def begin(sequence: int, at_ns: int, window_id: str, **fields: Any) -> Event:
    return Event(
        sequence=sequence, monotonic_ns=at_ns, window_id=window_id, start=Event.Start(**fields)
    )


def end(sequence: int, at_ns: int, window_id: str) -> Event:
    return Event(sequence=sequence, monotonic_ns=at_ns, window_id=window_id, stop=Event.Stop())


def change(sequence: int, at_ns: int, window_id: str, **what: Any) -> Event:
    return Event(sequence=sequence, monotonic_ns=at_ns, window_id=window_id, **what)


def ran(sequence: int, start_ns: int, stop_ns: int, costs: Mapping[str, float]) -> Event:
    iteration = Event.Iteration(stop_monotonic_ns=stop_ns, costs=costs)
    return Event(sequence=sequence, monotonic_ns=start_ns, iteration=iteration)


def now_ns() -> int:
    return time.monotonic_ns()
