"""Phases of a window, and weights that change while it is open."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.energy.claims import WEIGHT_UNIT, Claim
from greend.energy.placing import StepErrors
from greend.energy.running import Rates
from greend.energy.sharing import Sharing
from greend.model import NS_PER_MS, NS_PER_S, Flag
from tests.energy.world import (
    BUSY_W,
    Device,
    Span,
    assert_conserved,
    iteration,
    phase,
    reweigh,
    run,
)

START = 3 * NS_PER_S
MS = NS_PER_MS


def test_phases_are_in_order_and_sum_to_their_window() -> None:
    span = Span("a", START, START + NS_PER_S)
    prefill, decode = START + 200 * MS, START + 500 * MS
    outcome = run(
        Device([(span.start_ns, span.stop_ns)]),
        [span],
        events=[phase(prefill, "prefill"), phase(decode, "decode")],
        until_ns=6 * NS_PER_S,
    )
    phases = outcome.shares["a"].phases
    assert [(item.name, item.start_ns) for item in phases] == [
        ("", span.start_ns),
        ("prefill", prefill),
        ("decode", decode),
    ]
    energies = [item.idle_mj + item.active_mj for item in phases]
    assert energies == pytest.approx([BUSY_W * 200, BUSY_W * 300, BUSY_W * 500], rel=0.05)
    assert all(item.independent_mj > 0 for item in phases)
    assert_conserved(outcome)


def test_a_phase_from_the_start_leaves_nothing_unnamed() -> None:
    span = Span("a", START, START + NS_PER_S)
    outcome = run(
        Device([(span.start_ns, span.stop_ns)]),
        [span],
        events=[phase(START, "prefill"), phase(START + 300 * MS, "decode")],
        until_ns=6 * NS_PER_S,
    )
    assert [item.name for item in outcome.shares["a"].phases] == ["prefill", "decode"]
    assert_conserved(outcome)


def test_a_phase_told_late_begins_where_steps_are_open() -> None:
    span = Span("a", START, START + 2 * NS_PER_S)
    outcome = run(
        Device([(span.start_ns, span.stop_ns)]),
        [span],
        events=[phase(START + 200 * MS, "decode", told_ns=START + 1_500 * MS)],
        until_ns=8 * NS_PER_S,
    )
    share = outcome.shares["a"]
    assert Flag.LATE in share.flags
    assert [item.start_ns for item in share.phases] == [START, START + 200 * MS]
    assert share.phases[0].active_mj > share.phases[1].active_mj
    assert_conserved(outcome)


@pytest.mark.parametrize("what", ["stop", "iteration", "phase"])
def test_what_is_told_late_leaves_to_the_phases_what_they_had(what: str) -> None:
    middle, stop = START + NS_PER_S, START + 2 * NS_PER_S
    span = Span("a", START, stop, stop_told_ns=stop + NS_PER_S if what == "stop" else stop)
    late = {
        "stop": [],
        "iteration": [
            iteration(START + 500 * MS, START + 600 * MS, {"a": 1.0}, told_ns=START + 1_400 * MS),
            iteration(START + 1_200 * MS, stop, {"a": 1.0}),
        ],
        "phase": [phase(START, "early", told_ns=middle + 500 * MS)],
    }
    outcome = run(
        Device([(START, stop)]),
        [span],
        events=[phase(START, "prefill"), phase(middle, "decode"), *late[what]],
        until_ns=8 * NS_PER_S,
    )
    energies = [(item.name, item.idle_mj + item.active_mj) for item in outcome.shares["a"].phases]
    assert [name for name, _ in energies] == ["prefill", "decode"]
    assert [energy for _, energy in energies] == pytest.approx([BUSY_W * 1000] * 2, rel=0.1)
    assert_conserved(outcome)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2_000), max_size=6), st.lists(st.integers(0, 2_000), max_size=3))
def test_phases_sum_whatever_happens_meanwhile(phases: list[int], told_late: list[int]) -> None:
    """Among others, in iterations, around children; in time or late."""
    spans = [
        Span("a", START, START + 2 * NS_PER_S),
        Span("b", START + 300 * MS, START + NS_PER_S, parent="a"),
        Span("c", START + 1_700 * MS, START + 3 * NS_PER_S, weight=2.5),
    ]
    events = [phase(START + at * MS, f"p{at}") for at in phases]
    events += [
        phase(START + at * MS, f"l{at}", told_ns=START + at * MS + NS_PER_S)
        for at in told_late
        if at < 1_000
    ]
    begin, end = START + 1_200 * MS, START + 1_240 * MS
    events.append(iteration(begin, end, {"a": 1.0, "c": 3.0}))
    outcome = run(
        Device([(START, START + 2 * NS_PER_S)]), spans, events=events, until_ns=8 * NS_PER_S
    )
    starts = [item.start_ns for item in outcome.shares["a"].phases]
    assert len(starts) >= len(set(phases))
    assert_conserved(outcome)


def test_a_weight_that_changes_shares_by_the_weight_of_each_time() -> None:
    stop = START + 2 * NS_PER_S
    spans = [Span("a", START, stop), Span("b", START, stop)]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[reweigh(START + NS_PER_S, 3.0)],
        until_ns=8 * NS_PER_S,
    )
    a, b = outcome.shares["a"], outcome.shares["b"]
    assert a.own_mj == pytest.approx(BUSY_W * (500 + 750), rel=0.02)
    assert b.own_mj == pytest.approx(BUSY_W * (500 + 250), rel=0.02)
    assert_conserved(outcome)


def test_a_weight_set_while_a_child_is_open_holds_afterwards() -> None:
    stop = START + 3 * NS_PER_S
    spans = [
        Span("a", START, stop),
        Span("b", START, stop),
        Span("child", START + NS_PER_S, START + 2 * NS_PER_S, parent="a"),
    ]
    outcome = run(
        Device([(START, stop)]),
        spans,
        events=[reweigh(START + 1_500 * MS, 3.0)],
        until_ns=9 * NS_PER_S,
    )
    assert outcome.shares["a"].own_mj == pytest.approx(BUSY_W * (500 + 750), rel=0.02)
    assert outcome.shares["child"].own_mj == pytest.approx(BUSY_W * 500, rel=0.02)
    assert_conserved(outcome)


def test_weights_hold_over_the_whole_range_after_a_year() -> None:
    """An hour a step, two windows open all the year; then two of 10 ms beside them."""
    hour_ns = 3_600 * NS_PER_S
    sharing = Sharing()
    rates = Rates(floor=60e-6, rest=240e-6, device=60e-6)
    errors = StepErrors((0.0, 0.0), 0.0, 0.0, 0.0, 0.0)
    old = [
        Claim("old", "", round(1e-3 / WEIGHT_UNIT), 0),
        Claim("big", "", round(1e6 / WEIGHT_UNIT), 0),
    ]
    now = 0
    sharing.begin_step(now)
    for claim in old:
        sharing.start(claim)
    for _ in range(365 * 24):
        now += hour_ns
        sharing.advance(now)
        sharing.end_step(rates, errors, frozenset())
        sharing.rebase()
        sharing.begin_step(now)
    new = [
        Claim("light", "", round(1e-3 / WEIGHT_UNIT), now),
        Claim("heavy", "", round(1e6 / WEIGHT_UNIT), now),
    ]
    for claim in new:
        sharing.start(claim)
    sharing.advance(now + 10 * MS)
    for claim in new:
        sharing.stop(claim, now + 10 * MS)
    sharing.advance(now + hour_ns)
    settled = sharing.end_step(rates, errors, frozenset())
    assert {claim.window_id for claim in settled} == {"light", "heavy"}
    light, heavy = (claim.share() for claim in new)
    assert heavy.own_mj / light.own_mj == pytest.approx(1e9, rel=1e-9)
    assert heavy.own_mj + light.own_mj == pytest.approx(300e-6 * 10 * MS / 2, rel=1e-9)
    old_share, big_share = (sharing.peek(claim) for claim in old)
    assert big_share.own_mj / old_share.own_mj == pytest.approx(1e9, rel=1e-9)


def test_what_a_window_claimed_with_is_kept_as_long_as_late_events_can_ask() -> None:
    """A parent may have children for days."""
    claim = Claim("a", "", 1, 0)
    for at_s in range(10_000):
        claim.weighs(at_s * NS_PER_S, at_s % 2)
    assert len(claim.course) <= 1_202
    for begin_s, end_s in ((9_401, 9_501), (9_500, 9_600), (9_990, 20_000)):
        times = range(begin_s, end_s)
        expected_s = sum(at_s % 2 if at_s < 10_000 else 1 for at_s in times)
        assert claim.weight_ns(begin_s * NS_PER_S, end_s * NS_PER_S) == expected_s * NS_PER_S
    half_ns = NS_PER_S // 2
    assert claim.weight_ns(9_501 * NS_PER_S + half_ns, 9_503 * NS_PER_S) == half_ns
