"""Clients that want too much: they wait or lose, the daemon and others do not."""

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.daemon import Daemon, daemon
from tests.integration.recording import Event, Stream, begin, end, new_id, now_ns, session

Stub = metering_pb2_grpc.MeteringServiceStub
Flood = Callable[[Daemon, threading.Event], None]

# What a polite client may wait for on a busy machine; unbounded queues take far longer.
LONGEST_MEDIAN_S, LONGEST_S = 2.0, 10.0


def flood_events(running: Daemon, over: threading.Event) -> None:
    """Windows in batches of the largest size, as fast as the daemon lets them in."""
    sequences = itertools.count(1)
    with running.stub() as stub:
        stream = Stream(stub, session_token="flood")
        while not over.is_set():
            at = now_ns()
            ids = [new_id() for _ in range(5_000)]
            batch = [event(next(sequences), at, one) for one in ids for event in (begin, end)]
            stream.send(*batch)
            while stream.acknowledged < batch[-1].sequence - 10_000:
                stream.read()
        stream.cut()


def flood_open_windows(running: Daemon, over: threading.Event) -> None:
    """100 000 windows that are not closed, twice as many as one session may have."""
    with running.stub() as stub:
        stream = Stream(stub, session_token="many")
        for first in range(1, 100_001, 1_000):
            if over.is_set():
                break
            numbers = range(first, first + 1_000)
            stream.send(*(begin(number, now_ns(), new_id()) for number in numbers))
            while stream.acknowledged < first:
                stream.read()
        stream.cut()


def flood_calls(running: Daemon, over: threading.Event) -> None:
    """Thousands of calls in flight."""
    with running.stub() as stub:
        while not over.is_set():
            calls = [stub.StartWindow.future(pb.StartWindowRequest()) for _ in range(2_000)]
            for call in calls:
                with suppress(grpc.RpcError):  # there may be too many open
                    opened = call.result()
                    stub.StopWindow.future(pb.StopWindowRequest(window_id=opened.window_id))


@contextmanager
def own_stub(running: Daemon) -> Iterator[Stub]:
    """On a connection that no other client of this process shares, as in another process."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(running.address, options) as channel:
        yield metering_pb2_grpc.MeteringServiceStub(channel)


@contextmanager
def flooded(running: Daemon, *floods: Flood) -> Iterator[None]:
    over = threading.Event()
    with ThreadPoolExecutor(len(floods)) as pool:
        busy = [pool.submit(flood, running, over) for flood in floods]
        try:
            time.sleep(3)
            yield
        finally:
            over.set()
        for one in busy:
            with suppress(grpc.RpcError):  # it may not get through in its time
                one.result()


def test_a_polite_client_is_served_beside_those_that_flood() -> None:
    with (
        daemon("--simulate", "h100x1", devices=1) as running,
        own_stub(running) as stub,
        session(stub) as polite,
    ):
        with flooded(running, flood_events, flood_open_windows, flood_calls):
            acknowledged_s, final_s = [], []
            for number in range(1, 41, 2):
                one, begun_s = new_id(), time.monotonic()
                at = now_ns()
                polite.tell(begin(number, at, one), end(number + 1, now_ns(), one))
                acknowledged_s.append(time.monotonic() - begun_s)
                polite.final(one)
                final_s.append(time.monotonic() - begun_s)
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=LONGEST_S)
        assert polite.refusals == {}
        assert status.open_windows > 1_000, "nobody flooded"
        assert statistics.median(acknowledged_s) < LONGEST_MEDIAN_S, acknowledged_s
        assert max(acknowledged_s) < LONGEST_S, acknowledged_s
        assert statistics.median(final_s) < 2 * LONGEST_MEDIAN_S, final_s
        log = running.log.read_text()
        assert "Traceback" not in log, log


def test_more_events_a_second_than_allowed_wait_and_none_is_refused(tmp_path: Path) -> None:
    configuration = tmp_path / "greend.toml"
    configuration.write_text("[metering]\nmost_events_per_s = 1000\n")
    with (
        daemon("--simulate", "h100x1", "--config", str(configuration), devices=1) as running,
        running.stub() as stub,
        session(stub) as stream,
    ):
        ids = [new_id() for _ in range(2_000)]
        told = [event(now_ns(), one) for one in ids for event in (_begin, _end)]
        for number, event in enumerate(told, 1):
            event.sequence = number
        begun_s = time.monotonic()
        for first in range(0, len(told), 100):
            stream.send(*told[first : first + 100])
        stream.read_until(lambda: stream.acknowledged == len(told))
        took_s = time.monotonic() - begun_s
        assert took_s > 2.5, "a second's worth is taken at once, the rest in three"
        stream.final(*ids)
        assert stream.refusals == {}


def _begin(at_ns: int, window_id: str) -> Event:
    return begin(0, at_ns, window_id)


def _end(at_ns: int, window_id: str) -> Event:
    return end(0, at_ns, window_id)


def test_calls_beyond_those_of_a_connection_wait_and_none_is_refused() -> None:
    with daemon("--simulate", "h100x1", devices=1) as running, own_stub(running) as stub:
        for _ in range(3):
            calls = [stub.GetSnapshot.future(pb.GetSnapshotRequest()) for _ in range(1_500)]
            assert all(len(call.result().samples) == 1 for call in calls)


def test_a_request_that_is_too_large_is_refused_by_its_size() -> None:
    with daemon("--simulate", "h100x1", devices=1) as running, running.stub() as stub:
        tags = {f"key{number}": "v" * 250 for number in range(32)}
        stream = Stream(stub, session_token="large")
        at = now_ns()
        stream.send(*(begin(number, at, new_id(), tags=tags) for number in range(1, 1_000)))
        code, words = stream.error()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than" in words
        with session(stub, "large") as again:
            assert again.acknowledged == 0
            again.tell(begin(1, at, new_id(), tags=tags))


def test_a_slow_watcher_loses_windows_and_the_daemon_none() -> None:
    with daemon("--simulate", "h100x1", devices=1) as running, running.stub() as stub:
        slow = stub.WatchWindows(pb.WatchWindowsRequest())
        slow.initial_metadata()
        tags = {f"key{number}": "v" * 250 for number in range(8)}
        with session(stub) as stream:
            numbers = itertools.count(1)
            total = 0
            deadline = time.monotonic() + 60
            # gRPC's own buffers on the way grow to some MB.
            while "it loses the oldest" not in running.log.read_text():
                assert time.monotonic() < deadline, f"no loss after {total} windows"
                ids = [new_id() for _ in range(500)]
                for one in ids:
                    stream.send(
                        begin(next(numbers), now_ns(), one, tags=tags),
                        end(next(numbers), now_ns(), one),
                    )
                stream.final(*ids)
                total += len(ids)
            before_bytes = psutil.Process(running.pid).memory_info().rss
            for _ in range(4):
                ids = [new_id() for _ in range(500)]
                for one in ids:
                    stream.send(
                        begin(next(numbers), now_ns(), one, tags=tags),
                        end(next(numbers), now_ns(), one),
                    )
                stream.final(*ids)
            grown_bytes = psutil.Process(running.pid).memory_info().rss - before_bytes
            assert stream.refusals == {}
        assert grown_bytes < 20e6
        assert next(slow).state == "final", "it is not cut"
        slow.cancel()
        deadline = time.monotonic() + 10
        while "too slow is gone: it lost" not in running.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_batch_of_too_many_events_costs_no_memory() -> None:
    with daemon("--simulate", "h100x1", devices=1) as running, running.stub() as stub:
        before_bytes = psutil.Process(running.pid).memory_info().rss
        for _ in range(3):
            stream = Stream(stub, session_token=os.urandom(8).hex())
            stream.send(*(Event(sequence=number) for number in range(1, 400_000)))
            code, words = stream.error()
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "at most 10000" in words
        assert psutil.Process(running.pid).memory_info().rss - before_bytes < 150e6
