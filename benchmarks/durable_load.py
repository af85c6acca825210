"""The load of `scripts/bench durable`: one session that tells of many short windows.

Events go out as the raw stub's messages, so that the load costs less than what it loads.
Instants are those of the moment, a batch tells of what happened since the one before.

Run as `python -m benchmarks.durable_load ADDRESS PID RATE SECONDS`; at RATE 0 as fast as
batches are acknowledged. Prints a Report as JSON.
"""

import json
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from statistics import quantiles

import grpc
import psutil
import uuid6

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2

Event = pb.WindowEvent

BATCH_S = 0.01
# Of a run as fast as it goes.
BATCH_WINDOWS = 200
MOST_UNACKNOWLEDGED = 6_000
# A machine that is full keeps events waiting, and what is late takes other ways.
FULL_LATENESS_S = 5.0
LONGEST_SILENCE_S = 15.0
SHORTEST_NS, LONGEST_NS = 20_000_000, 200_000_000


@dataclass(frozen=True)
class Report:
    """What came of a run; `cpu_s` is of the server's process, until the last window was told."""

    windows: int
    told: int
    sent_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float


def tags(number: int) -> dict[str, str]:
    """100 bytes of them, as an engine's gateway sets them."""
    return {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "tenant": f"customer-{number % 50:04}",
        "route": "/v1/chat/completions",
        "tier": "interactive.0",
    }


class Load:
    """A session: what was told of it, and what came back."""

    def __init__(self, stub: metering_pb2_grpc.MeteringServiceStub, lateness_s: float) -> None:
        self._rng = random.Random(5)
        self._requests: queue.SimpleQueue[pb.RecordWindowsRequest | None] = queue.SimpleQueue()
        self._call = stub.RecordWindows(iter(self._requests.get, None))
        self._sequence = 0
        self._acknowledged = 0
        self._heard = threading.Condition()
        self._heard_s = time.monotonic()
        # Windows that run, by when they stop.
        self._running: list[tuple[int, str]] = []
        self._stops_ns: dict[str, int] = {}
        self.latencies_ms: list[float] = []
        token = os.urandom(16).hex()
        opening = pb.OpenSession(session_token=token, lateness_s=lateness_s)
        self._requests.put(pb.RecordWindowsRequest(open=opening))
        next(self._call)
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def batch(self, ids: Iterator[str], count: int, since_ns: int, now_ns: int) -> None:
        """Tells of `count` windows that began since, and of those that ended."""
        events = []
        for number in range(count):
            window_id, at_ns = next(ids), since_ns + (now_ns - since_ns) * number // count
            start = Event.Start(
                request_id=f"cmpl-{self._rng.getrandbits(96):024x}", tags=tags(number)
            )
            events.append(
                Event(sequence=self._next(), monotonic_ns=at_ns, window_id=window_id, start=start)
            )
            length_ns = self._rng.randrange(SHORTEST_NS, LONGEST_NS)
            heappush(self._running, (at_ns + length_ns, window_id))
        self._stop_until(now_ns, events)
        self._send(events)

    def end(self) -> None:
        """Lets what runs come to its end, and waits until all of it was told."""
        while self._running:
            time.sleep(BATCH_S)
            events: list[Event] = []
            self._stop_until(time.monotonic_ns(), events)
            self._send(events)
        with self._heard:
            self._heard.wait_for(
                lambda: not self._stops_ns or not self._alive(), LONGEST_SILENCE_S * 4
            )
        self._requests.put(pb.RecordWindowsRequest(close=pb.CloseSession()))
        self._requests.put(None)
        self._listener.join()

    def wait_for_room(self) -> None:
        """Until not too much is unacknowledged."""
        with self._heard:
            room = self._heard.wait_for(
                lambda: self._sequence - self._acknowledged < MOST_UNACKNOWLEDGED,
                LONGEST_SILENCE_S,
            )
        assert room, "nothing was acknowledged"

    def _alive(self) -> bool:
        return time.monotonic() - self._heard_s < LONGEST_SILENCE_S

    def _stop_until(self, now_ns: int, events: list[Event]) -> None:
        while self._running and self._running[0][0] <= now_ns:
            stop_ns, window_id = heappop(self._running)
            self._stops_ns[window_id] = stop_ns
            usage = types_pb2.Usage(prompt_tokens=812, output_tokens=164)
            for what in (Event(usage=usage), Event(stop=Event.Stop())):
                what.sequence, what.monotonic_ns, what.window_id = self._next(), stop_ns, window_id
                events.append(what)

    def _send(self, events: list[Event]) -> None:
        if events:
            self._requests.put(pb.RecordWindowsRequest(batch=pb.EventBatch(events=events)))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _listen(self) -> None:
        for response in self._call:
            now_ns = time.monotonic_ns()
            assert not response.refusals, response.refusals[0].message
            for window in response.windows:
                stop_ns = self._stops_ns.pop(window.window_id, None)
                if stop_ns is not None:  # told twice counts once
                    self.latencies_ms.append((now_ns - stop_ns) / 1e6)
            with self._heard:
                self._acknowledged = response.acknowledged_sequence
                self._heard_s = time.monotonic()
                self._heard.notify_all()


def main(address: str, pid: int, rate: float, seconds: float) -> None:
    """Runs it."""
    most = round((rate or 30_000) * (seconds + 1))
    ids = iter([str(uuid6.uuid7()) for _ in range(most)])
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(20)
        load = Load(
            metering_pb2_grpc.MeteringServiceStub(channel), 0.0 if rate else FULL_LATENESS_S
        )
        process = psutil.Process(pid)
        cpu_s = sum(process.cpu_times()[:2])
        begun_ns = since_ns = time.monotonic_ns()
        sent = 0
        while since_ns < begun_ns + seconds * 1e9:
            load.wait_for_room()
            if rate:
                time.sleep(BATCH_S)
            now_ns = time.monotonic_ns()
            count = round(rate * (now_ns - begun_ns) / 1e9) - sent if rate else BATCH_WINDOWS
            count = min(count, BATCH_WINDOWS)
            load.batch(ids, count, since_ns, now_ns)
            sent, since_ns = sent + count, now_ns
        sent_s = (since_ns - begun_ns) / 1e9
        load.end()
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
    places = quantiles(load.latencies_ms, n=100)
    report = Report(sent, len(load.latencies_ms), sent_s, cpu_s, places[49], places[98])
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    address, *numbers = sys.argv[1:]
    pid, rate, seconds = map(float, numbers)
    main(address, int(pid), rate, seconds)
