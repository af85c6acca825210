"""What callers do wrong costs their own windows only."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from greend_client import Client, GreendError, ResultUnavailable, aio
from tests.client.memory_daemon import MemoryDaemon, Start, Stop

NOW_NS = time.monotonic_ns()


class Hostile:
    def __index__(self) -> int:
        raise KeyError

    def __repr__(self) -> str:
        return "hostile"


@pytest.mark.parametrize("wrong", [None, 1.5, "1", Hostile(), NOW_NS - 10**9, NOW_NS + 10**15])
def test_a_stop_at_what_is_no_instant_ends_the_window_without_a_result(
    client: Client, daemon: MemoryDaemon, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        window = client.window(gpus=[0]).start()
        window.stop(at_ns=wrong)
        if wrong is None:  # now
            assert window.result(10).state == "final"
            continue
        with pytest.raises(ResultUnavailable, match="monotonic_ns") as error:
            window.result(10)
        assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
    client.close()
    assert {window.state for window in daemon.windows.values()} == {"final"}
    assert len(caplog.messages) == (wrong is not None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_ns": None},
        {"stop_ns": None},
        {"start_ns": 1.5},
        {"first_token_ns": "x"},
        {"start_ns": Hostile()},
        {"start_ns": NOW_NS + 1},  # after its stop
        {"stop_ns": NOW_NS + 10**15},
    ],
)
def test_a_window_told_with_wrong_instants_is_not_sent_and_warned_of_once(
    client: Client, daemon: MemoryDaemon, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        told = client.record(**{"start_ns": NOW_NS, "stop_ns": NOW_NS} | wrong, gpus=[0])
        assert told.stopped
        with pytest.raises(ResultUnavailable, match="monotonic_ns") as error:
            told.result(10)
        assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
    right = client.record(start_ns=NOW_NS, stop_ns=NOW_NS, first_token_ns=NOW_NS, gpus=[0])
    assert right.result(10).state == "final"
    assert len(daemon.seen(Start)) == len(daemon.seen(Stop)) == 1
    assert len(caplog.messages) == 1


def test_a_start_at_what_is_no_instant_is_not_sent(client: Client, daemon: MemoryDaemon) -> None:
    with client.window(gpus=[0]).start(at_ns="soon") as window:  # type: ignore[arg-type]
        pass
    with pytest.raises(ResultUnavailable, match="soon"):
        window.result(10)
    assert daemon.windows == {}


WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.summary(by=[1]), "by=1"),
    (lambda c: c.summary(by=1), "by=1"),
    (lambda c: c.summary(bucket_s="1h"), "bucket_s='1h'.*seconds"),
    (lambda c: c.summary(bucket_s=math.nan), "bucket_s=nan"),
    (lambda c: c.summary(idle=True), "idle=True"),
    (lambda c: c.summary(request_id=5), "request_id=5: it has to be a string"),
    (lambda c: c.ledger(devices=object()), "devices=.*index, a UUID"),
    (lambda c: c.ledger(devices=[0, 1.5]), "devices=1.5"),
    (lambda c: c.snapshot(devices={0: 1}), "devices="),
]
WRONG_FEEDS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.history(request_id=5), "request_id=5"),
    (lambda c: c.history(states=[1]), "states=1"),
    (lambda c: c.watch_windows(states=5), "states=5"),
    (lambda c: c.watch_samples(interval_s="often"), "interval_s='often'"),
]


@pytest.mark.parametrize(("ask", "words"), WRONG + WRONG_FEEDS)
def test_a_question_with_a_wrong_type_is_refused_with_its_name(
    client: Client, ask: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(GreendError, match=words) as error:
        ask(client)
    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_so_is_one_that_is_awaited(address: str) -> None:
    async def main() -> None:
        async with aio.Client(address) as client:
            for ask, words in WRONG:
                with pytest.raises(GreendError, match=words):
                    await ask(client)
            for ask, words in WRONG_FEEDS:
                with pytest.raises(GreendError, match=words):
                    await anext(ask(client))

    asyncio.run(main())


@pytest.mark.parametrize("limit", [math.inf, 1e12])
def test_a_result_may_be_waited_for_without_end(address: str, client: Client, limit: float) -> None:
    with client.window(gpus=[0]) as window:
        pass
    assert window.result(timeout=limit).state == "final"

    async def main() -> None:
        async with aio.Client(address) as client, client.window(gpus=[0]) as window:
            pass
        assert (await window.result(timeout=limit)).state == "final"

    asyncio.run(main())
    with pytest.raises(GreendError, match="timeout='5 s'"):
        window.result(timeout="5 s")  # type: ignore[arg-type]
