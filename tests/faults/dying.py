"""A client as a process that is killed at one point of the protocol, by its own hand.

python -m tests.faults.dying ADDRESS JOURNAL POINT
"""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.faults.journal import Pen
from tests.faults.teller import channel
from tests.integration.recording import Stream, begin, change, end

POINTS = (
    "connected",
    "opened",
    "start is sent",
    "start is acknowledged",
    "phase is acknowledged",
    "a call waits for its answer",
    "stop is sent",
    "stop is acknowledged",
    "result is there",
    "close is sent",
)


class Dying:
    """Goes through a window's life, and dies at its point."""

    def __init__(self, point: str, pen: Pen) -> None:
        assert point in POINTS, point
        self._point = point
        self._pen = pen
        self._window_id = str(uuid.uuid4())

    def at(self, point: str) -> None:
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)

    def live(self, stub: metering_pb2_grpc.MeteringServiceStub) -> None:
        stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        self.at("connected")
        stream = Stream(stub, session_token=uuid.uuid4().hex)
        self.at("opened")
        self._tell(stub, stream)
        self.at("result is there")
        stream.send_message(close=pb.CloseSession())
        time.sleep(0.05)
        self.at("close is sent")

    def _tell(self, stub: metering_pb2_grpc.MeteringServiceStub, stream: Stream) -> None:
        at_ns = time.monotonic_ns()
        self._pen.write(
            "start",
            window_id=self._window_id,
            request_id="dying",
            tags={},
            start_ns=at_ns,
            start_sequence=1,
        )
        start = begin(1, at_ns, self._window_id, request_id="dying")
        stream.send(start)
        time.sleep(0.05)  # gRPC's thread writes it
        self.at("start is sent")
        stream.tell(start)
        self._pen.write("acknowledged", sequence=1)
        self.at("start is acknowledged")
        stream.tell(change(2, time.monotonic_ns(), self._window_id, phase="decode"))
        self.at("phase is acknowledged")
        asking = stub.GetWindow.future(pb.GetWindowRequest(window_id=self._window_id, wait_s=60))
        time.sleep(0.05)
        assert not asking.done()
        self.at("a call waits for its answer")
        stop_ns = time.monotonic_ns()
        stop = end(3, stop_ns, self._window_id)
        stream.send(stop)
        time.sleep(0.05)
        self.at("stop is sent")
        stream.tell(stop)
        self._pen.write("stop", window_id=self._window_id, stop_ns=stop_ns, stop_sequence=3)
        self._pen.write("acknowledged", sequence=3)
        self.at("stop is acknowledged")
        stream.final(self._window_id)


def main() -> None:
    address, path, point = sys.argv[1:]
    with channel(address) as connection:
        stub = metering_pb2_grpc.MeteringServiceStub(connection)
        Dying(point, Pen(Path(path))).live(stub)


if __name__ == "__main__":
    main()
