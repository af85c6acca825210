"""What the client asks of a real daemon: the past, the present, live feeds."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from greend_client import Client, GreendError, aio

PAGE = 500


def told(client: Client, count: int, **arguments: Any) -> list[str]:
    """Tells of so many windows, one after the other; their ids, newest start first."""
    begin_ns = time.monotonic_ns() - 200_000_000
    windows = [
        client.record(
            f"r-{number}",
            start_ns=begin_ns + number * 100_000,
            stop_ns=begin_ns + (number + 1) * 100_000,
            output_tokens=number,
            gpus=number % 2,
            half="ab"[number % 2],
            **arguments,
        )
        for number in range(count)
    ]
    for window in windows:
        window.result(timeout=30)
    return [window.window_id for window in reversed(windows)]


def test_history_gives_every_page_newest_first(client: Client, run: str) -> None:
    ids = told(client, PAGE + 20, run=run)
    assert [result.window_id for result in client.history(run=run)] == ids


def test_history_chooses_by_all_conditions(client: Client, run: str) -> None:
    before_s = time.time() - 0.3
    told(client, 6, run=run)
    first, second = client.devices()

    def having(**conditions: Any) -> list[str]:
        return [result.request_id or "" for result in client.history(**conditions, run=run)]

    assert having() == [f"r-{number}" for number in (5, 4, 3, 2, 1, 0)]
    assert having(request_id="r-3") == ["r-3"]
    assert having(half="b") == having(devices=1) == ["r-5", "r-3", "r-1"]
    assert having(half="b", devices=[first.uuid]) == []
    assert len(having(devices=[0, second.uuid], states="final")) == 6
    assert having(states=["open", "stopped"]) == []
    assert having(until=before_s) == having(since=time.time() + 1) == []
    assert len(having(since=before_s, until="2200-01-01")) == len(having(since="24h")) == 6
    middle = next(client.history(run=run, request_id="r-3"))
    assert middle.output_tokens == 3
    with client.window("runs", run=run) as running:
        while having(states="open") != ["runs"]:
            time.sleep(0.01)
    assert running.result(10).state == "final"


def test_summaries_add_up(client: Client, run: str) -> None:
    told(client, 6, run=run)
    results = list(client.history(run=run))
    (everything,) = client.summary(since="1h", run=run)
    assert (everything.count, everything.output_tokens) == (6, 15)
    assert everything.energy_j == pytest.approx(sum(result.energy_j or 0 for result in results))
    assert everything.joules_per_request.mean == pytest.approx(everything.energy_j / 6)
    by_half = {group.tags["half"]: group for group in client.summary("half", run=run)}
    assert {half: group.count for half, group in by_half.items()} == {"a": 3, "b": 3}
    buckets = client.summary(by=["half"], bucket_s=3600, idle="exclude", run=run)
    assert sum(group.count for group in buckets) == 6
    assert all((group.start_unix_ns or 1) % (3600 * 10**9) == 0 for group in buckets)
    assert client.summary(run=run, request_id="none") == []


def test_every_measured_joule_is_booked(client: Client) -> None:
    rows = client.ledger(since="1h")
    assert {row.device for row in rows} == {device.uuid for device in client.devices()}
    for row in rows:
        booked_j = row.windows_j + row.idle_j + row.unattributed_j + row.gap_j
        assert booked_j == pytest.approx(row.measured_j, rel=1e-9)
        assert row.measured_j > 0
        assert row.unknown_s >= 0
        assert row.start_unix_ns < row.stop_unix_ns
    assert [row.device for row in client.ledger(devices=1)] == [client.devices()[1].uuid]


def test_the_node_is_told_as_it_is(client: Client) -> None:
    status = client.status()
    assert (status.state, status.devices_ok, status.devices_total) == ("serving", 2, 2)
    assert status.simulated
    assert {part.name: part.state for part in status.parts} == dict.fromkeys(
        ("driver", "devices", "store"), "ok"
    )
    for index, device in enumerate(client.devices()):
        assert (device.index, device.state, device.state_reason) == (index, "ok", None)
        assert device.energy_counter
        assert device.simulated
        assert device.floor_w == pytest.approx(120, rel=0.1)
        assert (device.min_sm_clock_mhz, device.max_sm_clock_mhz) == (210, 1980)
        assert device.power_limit_w == 700
    first, second = client.snapshot()
    assert second.device == client.devices()[1].uuid
    assert first.power_w is not None
    assert first.energy_counter_j is not None
    assert abs(first.unix_ns - time.time_ns()) < 5e9
    assert [sample.device for sample in client.snapshot(devices=0)] == [first.device]


def test_feeds_tell_what_happens(client: Client, run: str) -> None:
    with client.watch_samples(devices=1) as samples:
        seen = [next(samples) for _ in range(5)]
    assert {sample.device for sample in seen} == {client.devices()[1].uuid}
    times = [sample.monotonic_ns for sample in seen]
    assert times == sorted(set(times))
    with client.watch_windows(run=run) as windows:
        # Two: the feed may be there only after the first.
        for _ in range(2):
            with client.window(gpus=0, run=run) as window:
                pass
            window.result(10)
        assert next(windows).tags == {"run": run}
    assert list(windows) == []


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (lambda c: list(c.history(states="gone")), "INVALID_ARGUMENT", "states"),
        (lambda c: list(c.history(since="soon")), "INVALID_ARGUMENT", "24h"),
        (lambda c: list(c.history(No=1)), "INVALID_ARGUMENT", "tags"),
        (lambda c: list(c.history(devices=9)), "NOT_FOUND", "there are 0: GPU-"),
        (lambda c: list(c.history(devices="GPU-none")), "NOT_FOUND", "there are: GPU-"),
        (lambda c: c.summary(bucket_s=0), "INVALID_ARGUMENT", "bucket_s"),
        (lambda c: c.summary(by="No"), "INVALID_ARGUMENT", "by"),
        (lambda c: c.summary(idle="half"), "INVALID_ARGUMENT", "idle"),
        (lambda c: c.ledger(devices="GPU-none"), "NOT_FOUND", "there are: GPU-"),
        (lambda c: c.ledger(since=2, until=1), "INVALID_ARGUMENT", "until"),
        (lambda c: c.snapshot(devices="GPU-none"), "NOT_FOUND", "there are: GPU-"),
        (lambda c: next(c.watch_samples(interval_s=-1)), "INVALID_ARGUMENT", "interval_s"),
        (lambda c: next(c.watch_windows(states="gone")), "INVALID_ARGUMENT", "states"),
    ],
)
def test_errors_have_a_code_and_say_what_to_do(
    client: Client, ask: Callable[[Client], object], code: str, words: str
) -> None:
    with pytest.raises(GreendError, match=words) as error:
        ask(client)
    assert error.value.code is grpc.StatusCode[code]


def test_all_of_it_is_awaited_the_same(client: Client, address: str, run: str) -> None:
    ids = told(client, 4, run=run)

    async def main() -> None:
        async with aio.Client(address) as waiting:
            assert [result.window_id async for result in waiting.history(run=run)] == ids
            assert await waiting.summary("half", run=run) == client.summary("half", run=run)
            devices = [device.uuid for device in await waiting.devices()]
            assert devices == [device.uuid for device in client.devices()]
            assert (await waiting.status()).pid == client.status().pid
            assert len(await waiting.ledger(since="1h")) == 2
            assert [sample.device for sample in await waiting.snapshot(devices=1)] == [
                client.devices()[1].uuid
            ]
            async with contextlib.aclosing(waiting.watch_samples(devices=0)) as samples:
                assert (await anext(samples)).device == client.devices()[0].uuid
            async with contextlib.aclosing(waiting.watch_windows(run=run)) as windows:
                following = asyncio.ensure_future(anext(windows))
                while not following.done():
                    with waiting.window(gpus=0, run=run) as window:
                        await asyncio.sleep(0.01)
                    await window.result(10)
                assert following.result().tags == {"run": run}
            with pytest.raises(GreendError, match="there are: GPU-") as error:
                await waiting.ledger(devices="GPU-none")
            assert error.value.code is grpc.StatusCode.NOT_FOUND

    asyncio.run(main())
