"""greenctl and the client against a real daemon on simulated GPUs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import pytest

import greend_client
from tests.daemon import Daemon, daemon


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    with daemon("--simulate", "h100x2", devices=2) as running:
        yield running


def greenctl(running: Daemon, *arguments: str, status: int = 0) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "greenctl", *arguments],
        env=os.environ | {"GREEND_ADDRESS": running.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout


def test_run_measures_a_command_and_what_the_command_measures(running: Daemon) -> None:
    child = (
        "import greend_client, time\n"
        "with greend_client.Client() as client:\n"
        "    with client.window('inner', gpus=[0], model='m') as window: time.sleep(0.3)\n"
        "    print(window.result(timeout=10).energy_j)\n"
        "raise SystemExit(3)\n"
    )
    command = ["run", "--gpus", "0", "--tag", "job=a", "--", sys.executable, "-c", child]
    inner_j = float(greenctl(running, *command, status=3))
    windows = json.loads(greenctl(running, "windows", "--json"))["windows"]
    by_id = {window["request_id"]: window for window in windows}
    inner = by_id["inner"]
    (outer,) = (window for window in windows if window["window_id"] == inner["parent_id"])
    assert outer["tags"] == {"job": "a"}
    assert inner["energy_j"] == pytest.approx(inner_j)
    own_j = outer["device_energies"][0]["own_energy_j"]
    assert outer["energy_j"] == pytest.approx(own_j + inner_j)


def test_summary_and_history_agree(running: Daemon) -> None:
    with greend_client.Client(running.address) as client:
        for number in range(4):
            with client.window(f"r{number}", gpus=[number % 2], batch="ab"[number % 2]) as window:
                time.sleep(0.05)
                window.tokens(output=10)
            window.result(timeout=10)
        history = {tag: list(client.history(batch=tag)) for tag in "ab"}
        summary = {
            group.tags["batch"]: group for group in client.summary(by=["batch"]) if group.tags
        }
    for tag, windows in history.items():
        assert len(windows) == summary[tag].count == 2
        assert summary[tag].energy_j == pytest.approx(sum(item.energy_j or 0 for item in windows))
    document = json.loads(greenctl(running, "summary", "--by", "batch", "--json"))
    told = {group["tags"].get("batch"): group["energy_j"] for group in document["groups"]}
    assert told["a"] == pytest.approx(summary["a"].energy_j)
    assert "b" in greenctl(running, "summary", "--by", "batch", "--since", "1h")


def test_watch_follows_and_ends_with_its_reader(running: Daemon) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "greenctl", "watch", "--json"],
        env=os.environ | {"GREEND_ADDRESS": running.address},
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        try:
            assert watching.stdout is not None
            samples = [json.loads(watching.stdout.readline()) for _ in range(4)]
        finally:
            watching.terminate()
    assert {sample["device"][:4] for sample in samples} == {"GPU-"}
    assert all(sample["power_w"] > 0 for sample in samples)


def test_the_asyncio_client_measures_tasks_that_overlap(running: Daemon) -> None:
    async def main() -> list[greend_client.WindowResult]:
        client = greend_client.aio.Client(running.address)

        async def request(number: int) -> greend_client.WindowResult:
            async with client.window(f"task-{number}", gpus=[0]) as window:
                await asyncio.sleep(0.4)
            return await window.result(timeout=10)

        results = await asyncio.gather(*(request(number) for number in range(4)))
        await client.close()
        return results

    results = asyncio.run(main())
    energies = [result.energy_j for result in results]
    assert None not in energies
    whole = results[0].device_energy_j
    assert whole is not None
    assert sum(energy or 0 for energy in energies) == pytest.approx(whole, rel=0.1)
    assert all(result.parent_id is None for result in results), "tasks are no parents"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_ends_before_it_has_answered_is_said_to(number: signal.Signals) -> None:
    with (
        daemon("--simulate", "h100x1") as ending,
        greend_client.Client(ending.address) as client,
        client.watch_samples() as samples,
    ):
        next(samples)
        ending.stop(number)
        with pytest.raises(greend_client.GreendError, match="ended before it had answered") as told:
            list(samples)
        assert told.value.code is grpc.StatusCode.UNAVAILABLE
        assert ending.address in str(told.value)
