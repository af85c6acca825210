"""Iterations: batch executions with a cost for each window (DESIGN.md, rule 6)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.model import NS_PER_MS, NS_PER_S, Flag
from tests.energy.world import (
    BUSY_W,
    FLOOR_W,
    Device,
    Span,
    Told,
    assert_conserved,
    iteration,
    run,
)

START = 3 * NS_PER_S
MS = NS_PER_MS
ABOVE_W = BUSY_W - FLOOR_W


def _driven(name: str, start_ns: int, stop_ns: int, weight: float = 1.0) -> Span:
    return Span(name, start_ns, stop_ns, weight, iteration_driven=True)


def test_members_share_by_cost_and_the_floor_by_weight() -> None:
    stop = START + NS_PER_S
    spans = [_driven("a", START, stop), _driven("b", START, stop)]
    events = [
        iteration(at, at + 100 * MS, {"a": 3.0, "b": 1.0}) for at in range(START, stop, 100 * MS)
    ]
    outcome = run(Device([(START, stop)]), spans, events=events, until_ns=6 * NS_PER_S)
    a, b = outcome.shares["a"], outcome.shares["b"]
    assert a.active_mj == pytest.approx(ABOVE_W * 750, rel=0.02)
    assert b.active_mj == pytest.approx(ABOVE_W * 250, rel=0.02)
    assert a.idle_mj == pytest.approx(b.idle_mj, rel=1e-9)
    assert a.idle_mj == pytest.approx(FLOOR_W * 500, rel=0.03)
    assert_conserved(outcome)


def test_who_waits_claims_the_floor_alone() -> None:
    """A driven window outside iterations gets nothing of another process's work."""
    stop = START + 2 * NS_PER_S
    middle = START + NS_PER_S
    spans = [_driven("a", START, stop), Span("other", START, middle)]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[iteration(middle, stop, {"a": 1.0})],
        until_ns=8 * NS_PER_S,
    )
    assert outcome.shares["other"].active_mj == pytest.approx(ABOVE_W * 1000, rel=0.02)
    assert outcome.shares["a"].active_mj == pytest.approx(ABOVE_W * 1000, rel=0.02)
    assert outcome.shares["a"].idle_mj == pytest.approx(FLOOR_W * 1500, rel=0.03)
    assert_conserved(outcome)


def test_a_plain_window_of_another_session_shares_with_an_iteration_by_weight() -> None:
    """Two members of weight 1 beside one plain window: they have two thirds, split by cost."""
    stop = START + NS_PER_S
    spans = [_driven("a", START, stop), _driven("b", START, stop), Span("plain", START, stop)]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[iteration(START, stop, {"a": 9.0, "b": 1.0})],
        until_ns=6 * NS_PER_S,
    )
    active = {name: share.active_mj for name, share in outcome.shares.items()}
    assert active["plain"] == pytest.approx(ABOVE_W * 1000 / 3, rel=0.02)
    assert active["a"] == pytest.approx(9 * active["b"], rel=1e-9)
    assert active["a"] + active["b"] == pytest.approx(2 * active["plain"], rel=1e-9)
    assert_conserved(outcome)


def test_overlapping_iterations_share_by_the_weights_of_their_members() -> None:
    """Asynchronous scheduling: the next batch begins before the last has ended."""
    stop = START + NS_PER_S
    spans = [_driven(name, START, stop) for name in "abc"]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[
            iteration(START, stop, {"a": 1.0, "b": 3.0}),
            iteration(START, stop, {"c": 5.0}),
        ],
        until_ns=6 * NS_PER_S,
    )
    active = {name: share.active_mj for name, share in outcome.shares.items()}
    assert active["c"] == pytest.approx(ABOVE_W * 1000 / 3, rel=0.02)
    assert active["a"] + active["b"] == pytest.approx(2 * active["c"], rel=1e-9)
    assert active["b"] == pytest.approx(3 * active["a"], rel=1e-9)
    assert_conserved(outcome)


def test_a_window_named_in_an_iteration_is_driven_from_then_on() -> None:
    stop = START + 2 * NS_PER_S
    middle = START + NS_PER_S
    spans = [Span("a", START, stop), Span("b", START, stop)]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[iteration(middle, middle + 10 * MS, {"a": 1.0})],
        until_ns=8 * NS_PER_S,
    )
    assert outcome.shares["a"].active_mj == pytest.approx(ABOVE_W * 505, rel=0.03)
    assert outcome.shares["b"].active_mj == pytest.approx(ABOVE_W * 1495, rel=0.03)
    assert_conserved(outcome)


def test_who_leaves_within_an_iteration_leaves_its_part_to_the_others() -> None:
    stop = START + NS_PER_S
    spans = [_driven("a", START, START + 500 * MS), _driven("b", START, stop)]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[(START, lambda ledger: ledger.iterate(START, stop, {"a": 1.0, "b": 1.0}))],
        until_ns=6 * NS_PER_S,
    )
    assert outcome.shares["a"].active_mj == pytest.approx(ABOVE_W * 250, rel=0.03)
    assert outcome.shares["b"].active_mj == pytest.approx(ABOVE_W * 750, rel=0.03)
    assert_conserved(outcome)


def test_short_gaps_between_iterations_belong_to_the_one_before() -> None:
    stop = START + NS_PER_S
    spans = [_driven("a", START, stop)]
    events = [
        iteration(at, at + 18 * MS, {"a": 1.0}) for at in range(START, stop - 20 * MS, 20 * MS)
    ]
    outcome = run(Device([(START, stop)]), spans, events=events, until_ns=6 * NS_PER_S)
    assert outcome.shares["a"].active_mj == pytest.approx(ABOVE_W * 1000, rel=0.03)
    assert outcome.total("unattributed_mj") < 0.03 * ABOVE_W * 1000
    assert_conserved(outcome)


def test_an_iteration_told_late_takes_what_nobody_had() -> None:
    stop = START + 2 * NS_PER_S
    middle = START + NS_PER_S
    spans = [_driven("a", START, stop), _driven("b", START, stop)]
    outcome = run(
        Device([(START, middle)]),
        spans,
        events=[iteration(START, middle, {"a": 3.0, "b": 1.0}, told_ns=middle + 800 * MS)],
        until_ns=9 * NS_PER_S,
    )
    a, b = outcome.shares["a"], outcome.shares["b"]
    assert Flag.LATE in a.flags
    assert a.active_mj == pytest.approx(3 * b.active_mj, rel=1e-6)
    assert a.active_mj + b.active_mj == pytest.approx(ABOVE_W * 1000, rel=0.05)
    assert_conserved(outcome)


ITERATION = st.tuples(
    st.integers(0, 3_000),
    st.integers(1, 80),
    st.dictionaries(st.sampled_from(["w0", "w1", "w2", "w3"]), st.floats(0.001, 1e6), min_size=1),
    st.integers(0, 2_000),
)
WINDOW = st.tuples(st.integers(0, 2_000), st.integers(0, 2_000), st.booleans())


@settings(max_examples=60)
@given(
    st.lists(WINDOW, min_size=1, max_size=4),
    st.lists(ITERATION, max_size=20),
    st.integers(0, 3),
)
def test_every_joule_is_booked_once_whatever_iterations_say(
    drawn: list[tuple[int, int, bool]],
    iterations: list[tuple[int, int, dict[str, float], int]],
    parent: int,
) -> None:
    """Overlapping, of windows that come and go, told late, with children."""
    spans = [
        Span(
            f"w{place}",
            START + begin * MS,
            START + (begin + length) * MS,
            iteration_driven=driven,
            parent=f"w{parent}" if parent < place else "",
        )
        for place, (begin, length, driven) in enumerate(drawn)
    ]
    events: list[Told] = [
        iteration(
            START + begin * MS,
            START + (begin + length) * MS,
            costs,
            told_ns=START + (begin + length + late) * MS,
        )
        for begin, length, costs, late in iterations
    ]
    device = Device([(START + begin * MS, START + (begin + 30) * MS) for begin, *_ in iterations])
    outcome = run(device, spans, events=events, until_ns=START + 12 * NS_PER_S)
    assert set(outcome.shares) == {span.name for span in spans}
    assert_conserved(outcome)
    for share in outcome.shares.values():
        assert share.idle_mj >= -1e-6
        assert share.active_mj >= -1e-6


def test_the_order_in_which_iterations_are_told_does_not_matter() -> None:
    rng = random.Random(3)
    stop = START + 2 * NS_PER_S
    spans = [_driven(f"w{number}", START, stop) for number in range(5)]
    device = Device([(START, stop)])
    plan = []
    at = START
    while at < stop:
        length = rng.randrange(10, 60) * MS
        plan.append((at, at + length, {span.name: rng.random() for span in spans}))
        at += length - rng.randrange(3) * MS
    in_time = run(device, spans, events=[iteration(*item) for item in plan], until_ns=8 * NS_PER_S)
    delayed = [iteration(*item, told_ns=item[1] + rng.randrange(150) * MS) for item in plan]
    later = run(device, spans, events=delayed, until_ns=8 * NS_PER_S)
    for name, share in in_time.shares.items():
        assert later.shares[name].own_mj == pytest.approx(share.own_mj, rel=1e-9)


def test_an_iteration_that_names_a_window_which_just_ended_gives_it_nothing() -> None:
    """Engines that schedule ahead tell of windows whose work only falls off."""
    stop = START + NS_PER_S
    spans = [Span("a", START, stop), Span("b", START, stop + NS_PER_S)]
    late = [iteration(stop + MS, stop + 20 * MS, {"a": 1.0, "b": 1.0})]
    alone = [iteration(stop + MS, stop + 20 * MS, {"b": 1.0})]
    device = Device([(START, stop + NS_PER_S)])
    for told in (spans, spans[:1]):
        outcome = run(device, told, events=late, until_ns=8 * NS_PER_S)
        expected = run(device, told, events=alone, until_ns=8 * NS_PER_S)
        assert outcome.shares == expected.shares
        assert not outcome.ledger.busy
        assert_conserved(outcome)


def test_an_iteration_told_late_gives_nothing_to_whom_it_came_before() -> None:
    before, stop = START - NS_PER_S, START + 2 * NS_PER_S
    late = [iteration(before, before + 500 * MS, {"a": 1.0}, told_ns=START + NS_PER_S)]
    outcome = run(
        Device([(before, before + 500 * MS)]),
        [_driven("a", START, stop)],
        events=late,
        until_ns=8 * NS_PER_S,
    )
    assert outcome.shares["a"].active_mj == 0
    assert Flag.LATE in outcome.shares["a"].flags
    assert_conserved(outcome)
