from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.demo.workload import (
    IDLE,
    MAX_BATCH,
    MODELS,
    PREFILL,
    Event,
    decode_activity,
    draw_requests,
    peak,
    plan,
)

COUNTS = st.integers(1, 60)
SEEDS = st.integers(0, 2**32)


def of_gpu(events: list[Event], gpu: int) -> list[Event]:
    return [event for event in events if event.gpu == gpu]


def running_by_event(events: list[Event]) -> list[int]:
    running, counts = 0, []
    for event in events:
        running += len(event.starts) - len(event.stops)
        counts.append(running)
    return counts


@given(COUNTS, SEEDS)
def test_every_request_starts_gets_its_first_token_and_stops_once_in_this_order(
    count: int, seed: int
) -> None:
    requests = draw_requests(count, 8.0, seed)
    starts: dict[str, float] = {}
    firsts: dict[str, float] = {}
    stops: dict[str, float] = {}
    for event in plan(requests):
        for happened, members in (
            (starts, event.starts),
            (firsts, event.first_tokens),
            (stops, event.stops),
        ):
            for request in members:
                assert request.request_id not in happened
                assert request.gpu == event.gpu
                happened[request.request_id] = event.at_s
    assert starts.keys() == firsts.keys() == stops.keys() == {r.request_id for r in requests}
    for request in requests:
        name = request.request_id
        assert request.arrival_s <= starts[name] < firsts[name] < stops[name]


@given(COUNTS, SEEDS)
def test_a_batch_never_exceeds_its_room_and_a_gpu_works_exactly_while_requests_run(
    count: int, seed: int
) -> None:
    events = list(plan(draw_requests(count, 8.0, seed)))
    for gpu in range(len(MODELS)):
        mine = of_gpu(events, gpu)
        for event, running in zip(mine, running_by_event(mine), strict=True):
            assert 0 <= running <= MAX_BATCH
            assert (event.activity == IDLE) == (running == 0)
            assert event.activity in (IDLE, PREFILL, decode_activity(max(1, running)))


@given(COUNTS, SEEDS)
def test_events_come_in_order_of_time_and_take_time(count: int, seed: int) -> None:
    events = list(plan(draw_requests(count, 8.0, seed)))
    assert all(first.at_s <= second.at_s for first, second in pairwise(events))
    for gpu in range(len(MODELS)):
        assert all(a.at_s < b.at_s for a, b in pairwise(of_gpu(events, gpu)))


def test_the_demo_as_it_comes_is_lively_and_lasts_about_8_seconds() -> None:
    requests = draw_requests(40, 8.0)
    events = plan(requests)
    assert requests == draw_requests(40, 8.0)
    assert 12 <= peak(events) <= 16
    assert 6.0 < events[-1].at_s < 9.0
    assert {request.model for request in requests} == set(MODELS)


def test_activity_of_decoding_grows_with_the_batch() -> None:
    activities = [decode_activity(batch).sm for batch in range(1, MAX_BATCH + 1)]
    assert activities == sorted(activities)
    assert activities[0] == 0.3
    assert activities[-1] == pytest.approx(0.5)
