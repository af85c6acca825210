"""A client as a process: windows told by the protocol itself, at a steady rate.

    python -m tests.faults.teller ADDRESS JOURNAL RATE [DEVICE...]

What is not acknowledged is sent again on the next connection, as `RecordWindows` asks for.
SIGTERM: no new windows; ends with status 0 when all are acknowledged and final.
"""

import heapq
import random
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2
from tests.faults.journal import Pen
from tests.integration.recording import begin, change, end

MS = 1_000_000
TICK_S = 0.02
BATCH = 100
END_S = 60.0
MODELS = ("llama-3-8b", "mixtral-8x7b", "qwen-72b")


def channel(address: str) -> grpc.Channel:
    """A connection of its own: what failed before does not slow it down."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


class Teller:
    """A session, for as long as it takes, over as many connections as it takes."""

    def __init__(self, address: str, pen: Pen, rate: float, devices: list[str]) -> None:
        self._address = address
        self._pen = pen
        self._rate = rate
        self._devices = devices
        self._token = uuid.uuid4().hex
        self._random = random.Random(self._token)
        self._sequence = 0
        self._running: list[tuple[int, str]] = []  # by their stop
        self._unsettled: set[str] = set()
        # Shared with the thread that hears; it holds `_news`.
        self._news = threading.Condition()
        self._unacknowledged: deque[pb.WindowEvent] = deque()
        self._sent = 0  # on this connection
        self._acknowledged = 0
        self._broken = False
        self._ending = False

    def run(self, is_over: Callable[[], bool]) -> None:
        """Tells windows until it is over, then waits for what is missing."""
        hearing = threading.Thread(target=self._connect_again_and_again, daemon=True)
        hearing.start()
        due = time.monotonic()
        owed = 0.0
        while not is_over():
            due += TICK_S
            time.sleep(max(due - time.monotonic(), 0))
            owed += self._rate * TICK_S
            self._tell(int(owed))
            owed -= int(owed)
        self._tell(0, everything=True)
        self._settle(time.monotonic() + END_S)
        with self._news:
            self._ending = True
            self._news.notify_all()
        hearing.join(END_S)
        self._pen.write("done")

    def _tell(self, count: int, *, everything: bool = False) -> None:
        now_ns = time.monotonic_ns()
        events: list[pb.WindowEvent] = []
        while self._running and (everything or self._running[0][0] <= now_ns):
            stop_ns, window_id = heapq.heappop(self._running)
            events += self._stop(window_id, min(stop_ns, now_ns))
        for _ in range(count):
            window_id = str(uuid.uuid4())
            events.append(self._start(window_id, now_ns))
            stop_ns = now_ns + self._random.randrange(5, 250) * MS
            heapq.heappush(self._running, (stop_ns, window_id))
        with self._news:
            self._unacknowledged.extend(events)
            self._news.notify_all()

    def _start(self, window_id: str, at_ns: int) -> pb.WindowEvent:
        self._sequence += 1
        self._unsettled.add(window_id)
        some = self._random.sample(self._devices, self._random.randint(0, len(self._devices)))
        told = {
            "request_id": f"request-{self._sequence}",
            "tags": {"model": self._random.choice(MODELS), "tenant": uuid.uuid4().hex * 2},
            "devices": some,
        }
        self._pen.write(
            "start", window_id=window_id, start_ns=at_ns, start_sequence=self._sequence, **told
        )
        return begin(self._sequence, at_ns, window_id, **told)

    def _stop(self, window_id: str, at_ns: int) -> list[pb.WindowEvent]:
        self._sequence += 2
        tokens = self._random.randint(1, 4000)
        self._pen.write(
            "stop",
            window_id=window_id,
            stop_ns=at_ns,
            stop_sequence=self._sequence,
            output_tokens=tokens,
        )
        usage = types_pb2.Usage(output_tokens=tokens)
        return [
            change(self._sequence - 1, at_ns, window_id, usage=usage),
            end(self._sequence, at_ns, window_id),
        ]

    # On the thread that hears

    def _connect_again_and_again(self) -> None:
        while not self._ending:
            self._broken, self._sent = False, 0
            with channel(self._address) as connection:
                stub = metering_pb2_grpc.MeteringServiceStub(connection)
                try:
                    for response in stub.RecordWindows(self._requests()):
                        self._hear(response)
                except grpc.RpcError:
                    pass
                finally:
                    with self._news:
                        self._broken = True
                        self._news.notify_all()
            time.sleep(0.0 if self._ending else 0.02)

    def _hear(self, response: pb.RecordWindowsResponse) -> None:
        for refusal in response.refusals:
            code = next(code for code in grpc.StatusCode if code.value[0] == refusal.code)
            self._pen.write(
                "refused", sequence=refusal.sequence, code=code.name, message=refusal.message
            )
        for window in response.windows:
            self._final(window)
        with self._news:
            if response.acknowledged_sequence > self._acknowledged:
                self._acknowledged = response.acknowledged_sequence
                self._pen.write("acknowledged", sequence=self._acknowledged)
            while self._unacknowledged and self._unacknowledged[0].sequence <= self._acknowledged:
                self._unacknowledged.popleft()
            self._news.notify_all()

    def _final(self, window: types_pb2.Window) -> None:
        self._unsettled.discard(window.window_id)
        self._pen.write(
            "final",
            window_id=window.window_id,
            start_unix_ns=window.start_unix_ns,
            stop_unix_ns=window.stop_unix_ns,
            energy_j=window.energy_j if window.HasField("energy_j") else None,
            flags=sorted(window.flags),
        )

    # On gRPC's thread

    def _requests(self) -> Iterator[pb.RecordWindowsRequest]:
        yield pb.RecordWindowsRequest(open=pb.OpenSession(session_token=self._token))
        self._pen.write("connected")
        while True:
            with self._news:
                self._news.wait_for(lambda: self._broken or self._ending or self._unsent())
                if self._broken:
                    return
                events = self._unsent()[:BATCH]
                if not events:
                    break
                self._sent = events[-1].sequence
            yield pb.RecordWindowsRequest(batch=pb.EventBatch(events=events))
        yield pb.RecordWindowsRequest(close=pb.CloseSession())

    def _unsent(self) -> list[pb.WindowEvent]:
        return [event for event in self._unacknowledged if event.sequence > self._sent]

    # At the end

    def _settle(self, deadline: float) -> None:
        """Waits for all acknowledgements; asks for results that came while nobody heard."""
        with self._news:
            assert self._news.wait_for(
                lambda: not self._unacknowledged, deadline - time.monotonic()
            ), f"{len(self._unacknowledged)} events are not acknowledged"
        while self._unsettled:
            assert time.monotonic() < deadline, f"{len(self._unsettled)} windows are not final"
            with channel(self._address) as connection:
                stub = metering_pb2_grpc.MeteringServiceStub(connection)
                for window_id in list(self._unsettled):
                    self._ask(stub, window_id)

    def _ask(self, stub: metering_pb2_grpc.MeteringServiceStub, window_id: str) -> None:
        try:
            window = stub.GetWindow(
                pb.GetWindowRequest(window_id=window_id, wait_s=2), timeout=4, wait_for_ready=True
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:  # its start was refused
                self._unsettled.discard(window_id)
            return
        if window.state == "final":
            self._final(window)


def main() -> None:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    address, path, rate, *devices = sys.argv[1:]
    Teller(address, Pen(Path(path)), float(rate), devices).run(over.is_set)


if __name__ == "__main__":
    main()
