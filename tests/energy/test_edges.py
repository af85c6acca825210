"""Where a counter's steps lie, seen through polls only."""

import random
from bisect import bisect_right
from itertools import count, pairwise
from statistics import fmean

import pytest

from greend.energy.edges import EdgeLocator, Interval
from greend.model import NS_PER_MS

MS = NS_PER_MS


def _polls(rng: random.Random, interval_ns: int, until_ns: int) -> list[int]:
    polls, at = [], 0
    while at < until_ns:
        at += round(interval_ns * rng.uniform(0.7, 1.3))
        polls.append(at)
    return polls


def _observe(
    locator: EdgeLocator, edges: list[int], polls: list[int]
) -> list[tuple[int, Interval]]:
    """Tells a locator what polls see; returns each step that was seen last, and where."""
    seen, changed = [], polls[0]
    for before, at in pairwise(polls):
        inside = edges[bisect_right(edges, before) : bisect_right(edges, at)]
        if not inside:
            locator.unchanged(at - changed)
        else:
            changed = at
            interval = Interval(max(before, at - locator.longest_period_ns), at)
            locator.advanced(interval)
            seen.append((inside[-1], interval))
    return seen


@pytest.mark.parametrize("period_ms", [60, 83, 100, 106, 149, 200])
@pytest.mark.parametrize("seed", range(5))
def test_steps_are_located_far_better_than_polls_see_them(period_ms: int, seed: int) -> None:
    """With 1 ms of jitter, polled at 10 ms and then at 40 ms."""
    rng = random.Random(seed)
    period, phase = period_ms * MS, rng.random()
    edges = [
        round((number + phase) * period + rng.uniform(-1, 1) * MS)
        for number in range(int(12_000 / period_ms))
    ]
    locator = EdgeLocator()
    polls = _polls(rng, 10 * MS, 2_000 * MS)
    polls += [polls[-1] + poll for poll in _polls(rng, 40 * MS, 8_000 * MS)]
    seen = _observe(locator, edges, polls)
    late = [(edge, locator.locate(interval)[0]) for edge, interval in seen[-20:]]
    errors = [abs(place.at_ns - edge) for edge, place in late]
    assert fmean(errors) < 2.5 * MS
    assert (
        sum(error <= 3 * place.sigma_ns for error, (_, place) in zip(errors, late, strict=True))
        >= 18
    )
    assert all(place.sigma_ns < 3 * MS for _, place in late)


def test_a_long_silence_is_told_as_less_known_and_soon_known_again() -> None:
    rng = random.Random(5)
    edges = [number * 100 * MS + rng.randrange(-MS, MS) for number in range(2_000)]
    locator = EdgeLocator()
    assert not locator.sharp
    _observe(locator, edges, _polls(rng, 10 * MS, 3_000 * MS))
    assert locator.sharp
    slow = [3_000 * MS + poll for poll in _polls(rng, 1_000 * MS, 60_000 * MS)]
    _observe(locator, edges, slow)
    assert not locator.sharp
    fast = [slow[-1] + poll for poll in _polls(rng, 10 * MS, 1_000 * MS)]
    seen = _observe(locator, edges, fast)
    assert locator.sharp
    edge, interval = seen[-1]
    assert locator.locate(interval)[0].at_ns == pytest.approx(edge, abs=3 * MS)


def test_another_grid_is_learnt_anew() -> None:
    """A driver that was loaded anew, or a sensor that changed its mind."""
    rng = random.Random(6)
    first = [number * 100 * MS for number in range(30)]
    second = [first[-1] + 37 * MS + number * 70 * MS for number in range(200)]
    locator = EdgeLocator()
    polls = _polls(rng, 15 * MS, 12_000 * MS)
    seen = _observe(locator, first + second, polls)
    errors = [abs(locator.locate(interval)[0].at_ns - edge) for edge, interval in seen[-10:]]
    assert max(errors) < 3 * MS


def test_without_a_grid_a_step_is_anywhere_between_its_polls() -> None:
    locator = EdgeLocator()
    (place,) = locator.locate(Interval(100 * MS, 140 * MS))
    assert place.at_ns == 120 * MS
    assert place.sigma_ns == pytest.approx(40 * MS / 12**0.5)


def test_steps_without_any_grid_are_never_far_from_what_polls_saw() -> None:
    rng = random.Random(8)
    edges = []
    at = 0
    for _ in count():
        at += rng.randrange(10, 200) * MS
        edges.append(at)
        if at > 20_000 * MS:
            break
    locator = EdgeLocator()
    for _, interval in _observe(locator, edges, _polls(rng, 20 * MS, 20_000 * MS)):
        (place,) = locator.locate(interval)
        assert interval.low <= place.at_ns <= interval.high
