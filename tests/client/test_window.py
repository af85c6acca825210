import asyncio
import time
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from greend_client import Client, ResultUnavailable
from tests.client.memory_daemon import GPU_0, GPU_1, POWER_W, MemoryDaemon, Start, Stop


def test_a_window_gives_the_energy_of_its_block(client: Client) -> None:
    before_ns = time.time_ns()
    with client.window("request-7", model="llama", batch=3) as window:
        window.first_token()
        window.tokens(prompt=512, cached=0)
        window.tokens(output=128)
    after_ns = time.time_ns()
    result = window.result(timeout=10)
    assert result.state == "final"
    assert result.window_id == window.window_id
    assert result.request_id == "request-7"
    assert result.tags == {"model": "llama", "batch": "3"}
    assert result.devices == (GPU_0, GPU_1)
    assert (result.prompt_tokens, result.cached_tokens, result.output_tokens) == (512, 0, 128)
    assert result.stop_unix_ns is not None
    assert result.duration_s is not None
    assert before_ns - 10**6 <= result.start_unix_ns <= result.stop_unix_ns <= after_ns + 10**6
    assert result.energy_j == pytest.approx(POWER_W * result.duration_s)
    assert result.source == "energy_counter"
    # What the daemon does not say is unknown, not 0.
    assert result.idle_energy_j is None
    assert result.ttft_s is None
    assert result.parent_id is None


def test_the_first_token_and_usage_travel_with_the_stop(
    client: Client, daemon: MemoryDaemon
) -> None:
    with client.window() as window:
        window.first_token()
        window.first_token()
        window.tokens(output=2)
    window.tokens(output=9)
    window.result(10)
    (start,), (stop,) = daemon.seen(Start), daemon.seen(Stop)
    (first_token,) = daemon.events("first_token")
    assert start.monotonic_ns <= first_token.monotonic_ns <= stop.monotonic_ns
    (told,) = daemon.events("usage")
    assert told.usage.output_tokens == 2
    assert not told.usage.HasField("prompt_tokens")


def test_windows_by_hand_may_end_in_any_order(client: Client, daemon: MemoryDaemon) -> None:
    first, second = client.window("a").start(), client.window("b").start()
    first.stop()
    second.stop()
    assert second.result(10).request_id == "b"
    assert first.result(10).request_id == "a"
    assert all(start.parent_id == "" for start in daemon.seen(Start))
    order = [r.window_id for r in daemon.requests if isinstance(r, Start | Stop)]
    assert order == [first.window_id, second.window_id] * 2


def test_starting_and_stopping_again_changes_nothing(client: Client, daemon: MemoryDaemon) -> None:
    window = client.window()
    window.stop()  # before its start: nothing
    window.start().start()
    window.stop()
    window.stop()
    window.result(10)
    assert len(daemon.seen(Start)) == len(daemon.seen(Stop)) == 1


def test_an_exception_ends_the_window_and_passes_through(client: Client) -> None:
    with pytest.raises(KeyError), client.window() as window:
        raise KeyError
    assert window.result(10).state == "final"


def test_a_result_waits_until_it_is_final(client: Client, daemon: MemoryDaemon) -> None:
    daemon.finalize = False
    with client.window() as window:
        pass
    with pytest.raises(ResultUnavailable) as error:
        window.result(timeout=0.05)
    assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    daemon.wait_for(lambda: daemon.seen(Stop))
    daemon.make_final()
    assert window.result().state == "final"
    asked = len(daemon.requests)
    assert window.result().state == "final"
    assert len(daemon.requests) == asked  # what is final is not asked for again


def test_a_running_window_has_no_result(client: Client) -> None:
    with client.window() as window, pytest.raises(ResultUnavailable) as error:
        window.result()
    assert error.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_window_in_anothers_block_is_its_child(client: Client, daemon: MemoryDaemon) -> None:
    with client.window() as outer, client.window() as inner:
        by_hand = client.window().start()
        by_hand.stop()
        alone = client.window(parent="").start()
        alone.stop()
    after = client.window().start()
    after.stop()
    after.result(10)
    parents = {start.window_id: start.parent_id for start in daemon.seen(Start)}
    assert parents == {
        outer.window_id: "",
        inner.window_id: outer.window_id,
        by_hand.window_id: inner.window_id,
        alone.window_id: "",
        after.window_id: "",
    }


def test_a_parent_can_be_given_as_a_window_an_id_or_by_the_environment(
    client: Client, daemon: MemoryDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREEND_PARENT_WINDOW", "from-outside")
    with client.window() as outer:
        pass
    with client.window(parent=outer):
        pass
    with client.window(parent="an-id") as last:
        pass
    last.result(10)
    parents = [start.parent_id for start in daemon.seen(Start)]
    assert parents == ["from-outside", outer.window_id, "an-id"]


def test_blocks_left_out_of_order_leave_no_parent_behind(
    client: Client, daemon: MemoryDaemon
) -> None:
    first, second = ExitStack(), ExitStack()
    outer = first.enter_context(client.window())
    inner = second.enter_context(client.window())
    first.close()
    within = client.window().start()
    second.close()
    after = client.window().start()
    for window in (within, after):
        window.stop()
        window.result(10)
    parents = {start.window_id: start.parent_id for start in daemon.seen(Start)}
    assert parents[inner.window_id] == outer.window_id
    assert parents[within.window_id] == inner.window_id
    assert parents[after.window_id] == ""


def test_concurrent_tasks_have_parents_of_their_own(client: Client, daemon: MemoryDaemon) -> None:
    async def request(name: str, ready: asyncio.Barrier) -> None:
        with client.window(name):
            await ready.wait()
            with client.window(f"{name}.child"):
                await ready.wait()

    async def both() -> None:
        ready = asyncio.Barrier(2)
        await asyncio.gather(request("a", ready), request("b", ready))

    asyncio.run(both())
    client.close()
    starts = {start.request_id: start for start in daemon.seen(Start)}
    for name in ("a", "b"):
        assert starts[f"{name}.child"].parent_id == starts[name].window_id


def test_a_window_may_be_told_afterwards(client: Client, daemon: MemoryDaemon) -> None:
    stop_ns = time.monotonic_ns()
    start_ns = stop_ns - 2_000_000_000
    window = client.record(
        "request-8",
        start_ns=start_ns,
        stop_ns=stop_ns,
        first_token_ns=start_ns + 500_000_000,
        prompt_tokens=7,
        output_tokens=9,
        gpus=[1],
        weight=2.5,
        model="llama",
    )
    result = window.result(10)
    assert result.duration_s == 2
    assert result.energy_j == 2 * POWER_W
    assert result.devices == (GPU_1,)
    assert result.weight == 2.5
    assert (result.prompt_tokens, result.cached_tokens, result.output_tokens) == (7, None, 9)
    assert abs(result.start_unix_ns - (time.time_ns() - time.monotonic_ns() + start_ns)) < 10**7
    (start,), (stop,) = daemon.seen(Start), daemon.seen(Stop)
    (first_token,) = daemon.events("first_token")
    assert (start.monotonic_ns, stop.monotonic_ns) == (start_ns, stop_ns)
    assert first_token.monotonic_ns == start_ns + 500_000_000


def test_ids_sort_by_time_and_one_secret_covers_a_client(
    client: Client, address: str, daemon: MemoryDaemon
) -> None:
    with client.window() as first:
        time.sleep(0.002)
    with client.window() as second:
        pass
    with Client(address) as other, other.window() as third:
        pass
    second.result(10)
    assert third.result is not None
    assert first.window_id[14] == second.window_id[14] == "7"
    assert first.window_id < second.window_id
    tokens = {request.window_id: request.session_token for request in daemon.seen(Start)}
    assert tokens[first.window_id] == tokens[second.window_id] != tokens[third.window_id]
    assert len(tokens[first.window_id]) == 32
    assert {r.session_token for r in daemon.seen(Stop)} == set(tokens.values())


def test_any_tag_name_that_is_no_argument_can_be_used(client: Client) -> None:
    tags: dict[str, Any] = {"self": "a", "app.name": "b", "since": "c"}
    with client.window(request_id="r", **tags) as window:
        pass
    assert window.result(10).tags == tags


def test_auto_is_what_the_environment_says_when_the_window_starts(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with client.window() as window:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert window.result(10).devices == (GPU_1,)
