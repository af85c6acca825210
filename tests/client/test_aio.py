"""The asyncio client: the same surface; what is cancelled ends at once."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest

import greend_client
from greend_client import GreendError, ResultUnavailable, aio, current_window
from greend_proto.v1 import metering_pb2, types_pb2
from tests.client.memory_daemon import (
    GPU_0,
    GPU_1,
    POWER_W,
    MemoryDaemon,
    Stop,
    sample,
    serving,
    until,
)


def within(test: Callable[[aio.Client], Coroutine[Any, Any, None]], address: str) -> None:
    async def main() -> None:
        async with aio.Client(address) as client, asyncio.timeout(30):
            await test(client)

    asyncio.run(main())


def test_it_is_loaded_when_it_is_named() -> None:
    code = """
import sys, greend_client
assert not {"greend_client.aio", "greend_client._asyncio"} & set(sys.modules)
assert greend_client.aio.Client
try:
    greend_client.nothing
except AttributeError:
    print("good")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "good\n"


def test_every_method_of_the_client_is_there() -> None:
    hooks = {"call", "control", "stream", "stub"}
    hooks |= {"window_filter", "ledger_request", "summary_request", "summarize"}
    surface = {name for name in dir(greend_client.Client) if not name.startswith("_")} - hooks
    assert surface == {name for name in dir(aio.Client) if not name.startswith("_")}


def test_windows_are_entered_either_way_and_nest(address: str, daemon: MemoryDaemon) -> None:
    async def test(client: aio.Client) -> None:
        async with client.window("outer", model="llama") as outer:
            assert current_window() is outer
            with client.window("inner") as inner:
                inner.tokens(output=3)
        result = await inner.result(timeout=10)
        assert (result.parent_id, result.output_tokens) == (outer.window_id, 3)
        assert (await outer.result()).tags == {"model": "llama"}
        now = time.monotonic_ns()
        told = client.record("told", start_ns=now - 10**9, stop_ns=now, output_tokens=1)
        assert (await told.result(10)).energy_j == POWER_W

    within(test, address)


def test_a_window_decorates_coroutine_functions(address: str, daemon: MemoryDaemon) -> None:
    async def test(client: aio.Client) -> None:
        @client.window("call")
        async def work() -> aio.Window:
            window = current_window()
            assert isinstance(window, aio.Window)
            return window

        first, second = await asyncio.gather(work(), work())
        assert first.window_id != second.window_id
        assert (await first.result(10)).request_id == "call"
        await second.result(10)

    within(test, address)


def test_reading_is_awaited(address: str, daemon: MemoryDaemon) -> None:
    daemon.groups = [metering_pb2.SummarizeWindowsResponse.Group(count=2)]
    daemon.ledger = [types_pb2.LedgerRow(device=GPU_0)]
    for n in range(1200):
        daemon.windows[str(n)] = types_pb2.Window(window_id=str(n), start_unix_ns=n)

    async def test(client: aio.Client) -> None:
        assert (await client.status()).version == "1.2.3"
        assert [device.uuid for device in await client.devices()] == [GPU_0, GPU_1]
        assert (await client.summary("model", since="1h", model="x"))[0].count == 2
        assert daemon.time_left_s[metering_pb2.SummarizeWindowsRequest] > 50
        assert (await client.ledger(since="1h"))[0].device == GPU_0
        assert (await client.snapshot(devices=1))[0].device == GPU_1
        assert len([window async for window in client.history(since=0)]) == 1200
        with pytest.raises(GreendError, match='no GPU "9"'):
            await client.ledger(devices=9)

    within(test, address)


def test_a_result_that_is_known_needs_no_time(address: str) -> None:
    async def test(client: aio.Client) -> None:
        with client.window() as window:
            pass
        known = await window.result(timeout=5)
        assert await window.result(timeout=0) == known

    within(test, address)


def test_without_a_daemon_only_what_is_awaited_raises(socket: Path) -> None:
    async def test(client: aio.Client) -> None:
        async with client.window() as window:
            pass
        with pytest.raises(ResultUnavailable) as error:
            await window.result()
        assert error.value.code is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(GreendError, match="greend serve"):
            await client.status()
        with pytest.raises(GreendError, match="greend serve"):
            _ = [sample async for sample in client.watch_samples()]

    within(test, f"unix://{socket}")


@pytest.mark.parametrize("delivered", [False, True])
def test_a_cancelled_result_ends_at_once_and_leaves_nothing(
    address: str, daemon: MemoryDaemon, delivered: bool
) -> None:
    daemon.finalize = False

    async def test(client: aio.Client) -> None:
        if not delivered:
            daemon.gate.clear()
        threads = threading.active_count()
        with client.window() as window:
            pass
        waiting = asyncio.create_task(window.result())
        kind = Stop if delivered else metering_pb2.RecordWindowsRequest
        while not daemon.seen(kind):
            await asyncio.sleep(0.001)
        waiting.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - began < 1
        assert client._client._sender._outbox.waiting.empty
        with pytest.raises(ResultUnavailable) as error:
            await window.result(timeout=0.01)
        assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert threading.active_count() <= threads + 16 + 3  # the daemon's, the sender's, gRPC's
        daemon.gate.set()
        while not daemon.seen(Stop):
            await asyncio.sleep(0.001)
        until(lambda: daemon.windows[window.window_id].state == "stopped", "stopped")
        daemon.make_final()
        assert (await window.result(10)).state == "final"

    within(test, address)


def test_a_cancelled_call_ends_at_once(address: str, daemon: MemoryDaemon) -> None:
    async def test(client: aio.Client) -> None:
        daemon.gate.clear()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.status()
        assert time.monotonic() - began < 2
        daemon.gate.set()

    within(test, address)


def feeds() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "greend-client-watch"]


def test_feeds_are_iterated_and_end_where_they_are_left(address: str, daemon: MemoryDaemon) -> None:
    async def test(client: aio.Client) -> None:
        async with contextlib.aclosing(client.watch_samples(devices=0)) as samples:
            async for read in samples:
                if read.power_w == 5:
                    break
                daemon.tell(*[sample(GPU_0, power_w=1)] * 50, sample(GPU_0, power_w=5))
        async with contextlib.aclosing(client.watch_windows(model="llama")) as windows:
            with client.window(model="llama") as window:
                pass
            assert (await anext(windows)).window_id == window.window_id

    within(test, address)
    until(lambda: not feeds(), "no thread is left")
    daemon.wait_for(lambda: daemon.watchers == 0)


def test_a_cancelled_feed_ends(address: str, daemon: MemoryDaemon) -> None:
    async def test(client: aio.Client) -> None:
        async def listen() -> None:
            async for _ in client.watch_samples():
                pass

        task = asyncio.create_task(listen())
        while not daemon.watchers:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    within(test, address)
    until(lambda: not feeds(), "no thread is left")
    daemon.wait_for(lambda: daemon.watchers == 0)


def test_closing_ends_feeds_and_calls(address: str, daemon: MemoryDaemon) -> None:
    async def main() -> None:
        client = aio.Client(address)
        samples = client.watch_samples()
        await anext(samples)
        await client.close()
        assert len([read async for read in samples]) <= len(daemon.samples)
        with pytest.raises(GreendError, match="closed"):
            await client.status()

    asyncio.run(main())


def test_a_client_serves_one_loop_after_another(address: str) -> None:
    client = aio.Client(address)
    for _ in range(2):
        assert asyncio.run(client.status()).state == "serving"
    asyncio.run(client.close())


def test_a_daemon_that_goes_away_is_an_error_of_the_feed(
    socket: Path, daemon: MemoryDaemon
) -> None:
    async def main() -> None:
        async with aio.Client(f"unix://{socket}") as client:
            with serving(daemon, socket):
                samples = client.watch_samples()
                await anext(samples)
            with pytest.raises(GreendError):
                _ = [read async for read in samples]

    asyncio.run(main())
