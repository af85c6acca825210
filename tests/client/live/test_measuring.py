"""Windows through the client and a real daemon, against the simulator's truth."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from greend_client import Client, ResultUnavailable, Window, WindowResult, aio, current_window
from tests.client.live.conftest import POWER_W, Gpu
from tests.daemon import sleep_until

MS = 1_000_000
LATER_NS = 200 * MS  # until a load is told, and what came before it is over


def spent(client: Client, seconds: float = 0.02, **arguments: Any) -> Window:
    with client.window(**arguments) as window:
        time.sleep(seconds)
    return window


def test_a_window_has_the_energy_that_its_gpu_used(client: Client, gpu: Gpu, run: str) -> None:
    start_ns = time.monotonic_ns() + LATER_NS
    stop_ns = start_ns + 600 * MS
    gpu.work(start_ns, stop_ns)
    sleep_until(start_ns)
    window = client.window("request-7", gpus=0, run=run, model="llama").start(at_ns=start_ns)
    window.first_token()
    window.tokens(prompt=512, cached=128)
    sleep_until(stop_ns)
    window.tokens(output=128)
    window.stop(at_ns=stop_ns)
    result = window.result(timeout=10)
    assert isinstance(result, WindowResult)
    assert (result.window_id, result.request_id) == (window.window_id, "request-7")
    assert result.tags == {"run": run, "model": "llama"}
    assert (result.state, result.source) == ("final", "energy_counter")
    assert result.devices == (gpu.uuid,)
    assert (result.weight, result.parent_id, result.phases) == (1, None, ())
    assert (result.prompt_tokens, result.cached_tokens, result.output_tokens) == (512, 128, 128)
    assert result.stop_unix_ns is not None
    assert result.stop_unix_ns - result.start_unix_ns == 600 * MS
    assert result.duration_s == pytest.approx(0.6)
    assert result.ttft_s is not None
    assert 0 < result.ttft_s < 0.6
    assert result.flags == ("simulated",)
    truth_j = gpu.true_energy_j(result.start_unix_ns, result.stop_unix_ns)
    assert truth_j == pytest.approx(0.6 * POWER_W, rel=0.1)
    assert result.energy_j == pytest.approx(truth_j, rel=0.05)
    assert result.idle_energy_j is not None
    assert result.active_energy_j is not None
    assert result.energy_j == pytest.approx(result.idle_energy_j + result.active_energy_j)
    assert result.active_energy_j > result.idle_energy_j > 0
    assert result.device_energy_j == pytest.approx(truth_j, rel=0.05)
    assert result.energy_j is not None
    assert result.joules_per_output_token == pytest.approx(result.energy_j / 128)
    assert result.avg_power_w == pytest.approx(POWER_W, rel=0.05)
    assert result.sm_clock_mhz is not None
    assert result.sm_clock_mhz > 0
    assert window.result() == result


def test_two_at_once_by_hand_share_by_weight(client: Client, gpu: Gpu, run: str) -> None:
    start_ns = time.monotonic_ns() + LATER_NS
    stop_ns = start_ns + 400 * MS
    gpu.work(start_ns, stop_ns)
    sleep_until(start_ns)
    heavy = client.window("heavy", gpus=[gpu.uuid], weight=3, run=run).start(at_ns=start_ns)
    light = client.window("light", gpus=0, run=run).start(at_ns=start_ns)
    sleep_until(stop_ns)
    heavy.stop(at_ns=stop_ns)
    light.stop(at_ns=stop_ns)
    most, least = heavy.result(10), light.result(10)
    assert most.energy_j is not None
    assert least.energy_j is not None
    assert most.energy_j == pytest.approx(3 * least.energy_j, rel=0.01)
    truth_j = gpu.true_energy_j(most.start_unix_ns, most.stop_unix_ns or 0)
    assert most.energy_j + least.energy_j == pytest.approx(truth_j, rel=0.05)


def test_a_window_inside_anothers_block_is_its_part(client: Client, run: str) -> None:
    with client.window("outer", gpus=[0], run=run) as outer:
        time.sleep(0.2)
        inner = spent(client, 0.3, request_id="inner", gpus=[0], run=run)
    whole, part = outer.result(10), inner.result(10)
    assert part.parent_id == outer.window_id
    assert whole.energy_j is not None
    assert part.energy_j is not None
    assert whole.energy_j > part.energy_j > 0
    assert whole.energy_j == pytest.approx(whole.device_energy_j, rel=0.01)


def test_auto_means_both_gpus(client: Client, run: str) -> None:
    assert spent(client, run=run).result(10).devices == tuple(d.uuid for d in client.devices())


def test_each_call_of_a_decorated_function_is_measured(client: Client, run: str) -> None:
    @client.window("generate", gpus=0, run=run)
    def generate(tokens: int) -> Any:
        window = current_window()
        assert window is not None
        time.sleep(0.01)
        window.tokens(output=tokens)
        return window

    first, second = (generate(tokens).result(10) for tokens in (3, 4))
    assert first.window_id != second.window_id
    assert (first.output_tokens, second.output_tokens) == (3, 4)


def test_a_window_told_afterwards_has_its_own_instants(client: Client, gpu: Gpu, run: str) -> None:
    start_ns = time.monotonic_ns() + LATER_NS
    stop_ns = start_ns + 300 * MS
    gpu.work(start_ns, stop_ns)
    sleep_until(stop_ns + 50 * MS)  # less than what a step waits for latecomers
    told = client.record(
        "request-8",
        start_ns=start_ns,
        stop_ns=stop_ns,
        first_token_ns=start_ns + 100 * MS,
        prompt_tokens=7,
        output_tokens=9,
        gpus=[0],
        run=run,
    )
    result = told.result(10)
    assert result.duration_s == pytest.approx(0.3)
    assert result.ttft_s == pytest.approx(0.1)
    assert (result.prompt_tokens, result.cached_tokens, result.output_tokens) == (7, None, 9)
    truth_j = gpu.true_energy_j(result.start_unix_ns, result.stop_unix_ns or 0)
    if "late" not in result.flags:  # a machine that stood still tells later than it meant to
        assert result.energy_j == pytest.approx(truth_j, rel=0.1)


def test_many_threads_measure_at_once_and_nothing_is_lost(client: Client, run: str) -> None:
    def work(number: int) -> str:
        return spent(client, 0, request_id=f"r-{number}", gpus=number % 2, run=run).window_id

    with ThreadPoolExecutor(8) as workers:
        ids = set(workers.map(work, range(200)))
    assert len(ids) == 200
    client._sender.close(20)
    assert {result.window_id for result in client.history(run=run)} == ids


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"tags": {f"k{n}": n for n in range(33)}}, "INVALID_ARGUMENT", "tags: 3"),
        ({"tags": {"Model": "x"}}, "INVALID_ARGUMENT", "tags"),
        ({"weight": 0}, "INVALID_ARGUMENT", "weight"),
        ({"gpus": [9]}, "NOT_FOUND", 'no GPU "9"'),
        ({"gpus": "GPU-none"}, "NOT_FOUND", "GPU-none"),
        ({"parent": "7"}, "INVALID_ARGUMENT", "parent_id"),
    ],
)
def test_what_the_daemon_refuses_is_told_by_the_result_alone(
    client: Client, arguments: dict[str, Any], code: str, words: str, run: str
) -> None:
    tags = {"run": run, **arguments.pop("tags", {})}
    window = spent(client, 0, **arguments, **tags)
    with pytest.raises(ResultUnavailable, match=words) as error:
        window.result(10)
    assert error.value.code is grpc.StatusCode[code]
    assert spent(client, 0, run=run).result(10).state == "final"


def test_awaited_windows_are_measured_the_same(address: str, gpu: Gpu, run: str) -> None:
    async def main() -> None:
        async with aio.Client(address) as client:

            @client.window("call", gpus=0, run=run)
            async def call() -> aio.Window:
                await asyncio.sleep(0.01)
                window = current_window()
                assert isinstance(window, aio.Window)
                return window

            start_ns = time.monotonic_ns() + LATER_NS
            stop_ns = start_ns + 400 * MS
            gpu.work(start_ns, stop_ns)
            sleep_until(start_ns)
            async with client.window("outer", gpus=[0], run=run) as outer:
                inner = await call()
                await asyncio.sleep((stop_ns - time.monotonic_ns()) / 1e9)
            whole, part = await outer.result(10), await inner.result(10)
            assert part.parent_id == whole.window_id
            truth_j = gpu.true_energy_j(whole.start_unix_ns, whole.stop_unix_ns or 0)
            assert whole.energy_j == pytest.approx(truth_j, rel=0.05)
            told = client.record(start_ns=start_ns, stop_ns=stop_ns, gpus=0, run=run)
            assert (await told.result(10)).duration_s == pytest.approx(0.4)
            with client.window(weight=-1, run=run) as refused:
                pass
            with pytest.raises(ResultUnavailable, match="weight"):
                await refused.result(10)

    asyncio.run(main())
