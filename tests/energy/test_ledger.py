"""The laws of the ledger, on a device with a known truth."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.model import NS_PER_MS, NS_PER_S, Flag, Source
from tests.energy.world import (
    BUSY_W,
    FLOOR_W,
    Device,
    Span,
    assert_conserved,
    run,
)

QUIET_NS = 2 * NS_PER_S


def test_a_lone_window_gets_the_floor_of_its_time_and_all_the_work() -> None:
    span = Span("a", 3_037 * NS_PER_MS, 3_537 * NS_PER_MS)
    outcome = run(Device([(span.start_ns, span.stop_ns)]), [span], until_ns=6 * NS_PER_S)
    share = outcome.shares["a"]
    assert share.idle_mj == pytest.approx(FLOOR_W * 500, rel=0.03)
    assert share.active_mj == pytest.approx((BUSY_W - FLOOR_W) * 500, rel=0.02)
    assert share.device_mj == pytest.approx(BUSY_W * 500, rel=0.02)
    assert share.source is Source.ENERGY_COUNTER
    assert share.flags == frozenset()
    assert share.clock_mhz_ns / share.clock_ns == pytest.approx(1410)
    assert_conserved(outcome)


def test_two_equal_windows_over_the_same_time_share_equally() -> None:
    spans = [Span(name, 3 * NS_PER_S, 4 * NS_PER_S) for name in "ab"]
    outcome = run(Device([(3 * NS_PER_S, 4 * NS_PER_S)]), spans, until_ns=6 * NS_PER_S)
    a, b = outcome.shares["a"], outcome.shares["b"]
    assert (a.idle_mj, a.active_mj) == (b.idle_mj, b.active_mj)
    assert a.own_mj == pytest.approx(BUSY_W * 1000 / 2, rel=0.02)
    assert a.device_mj == pytest.approx(2 * a.own_mj, rel=1e-6)
    assert_conserved(outcome)


def test_weights_over_the_whole_allowed_range_share_in_proportion() -> None:
    spans = [
        Span("light", 3 * NS_PER_S, 4 * NS_PER_S, weight=1e-3),
        Span("heavy", 3 * NS_PER_S, 4 * NS_PER_S, weight=1e6),
    ]
    outcome = run(Device([(3 * NS_PER_S, 4 * NS_PER_S)]), spans, until_ns=6 * NS_PER_S)
    light, heavy = outcome.shares["light"], outcome.shares["heavy"]
    assert heavy.own_mj / light.own_mj == pytest.approx(1e9, rel=1e-9)


def test_without_a_floor_the_sum_is_told_and_the_split_is_not() -> None:
    span = Span("a", 50 * NS_PER_MS, 3 * NS_PER_S)
    outcome = run(Device([(0, 3 * NS_PER_S)]), [span], until_ns=5 * NS_PER_S)
    share = outcome.shares["a"]
    assert not share.floor_known
    assert Flag.FLOOR_UNKNOWN in share.flags
    assert share.own_mj == pytest.approx(BUSY_W * 2950, rel=0.05)


def test_a_floor_that_is_set_is_not_learnt() -> None:
    """A device that is never seen idle; what lies above the floor is nobody's."""
    outcome = run(
        Device([(0, 9 * NS_PER_S)], utilization=False),
        [Span("a", 4 * NS_PER_S, 5 * NS_PER_S)],
        until_ns=9 * NS_PER_S,
        floors_mw={False: 50_000.0, True: 50_000.0},
    )
    share = outcome.shares["a"]
    assert share.floor_known
    assert share.idle_mj == pytest.approx(50_000, rel=0.02)
    assert outcome.ledger.floor.floor_mw() == 50_000
    assert_conserved(outcome)


def test_work_that_no_window_covers_is_unattributed_and_flags_windows() -> None:
    """An untracked process at a steady load that starts before any window is open."""
    work = (2 * NS_PER_S, 20 * NS_PER_S)
    span = Span("a", 10 * NS_PER_S, 11 * NS_PER_S)
    outcome = run(Device([work]), [span], until_ns=14 * NS_PER_S)
    share = outcome.shares["a"]
    assert Flag.SHARED_WITH_UNTRACKED in share.flags
    assert share.own_mj == pytest.approx(FLOOR_W * 1000, rel=0.05)
    assert_conserved(outcome)


def test_more_than_the_device_can_draw_is_not_booked_to_a_window() -> None:
    """A 10 ms window in a step whose work took 80 ms cannot have used it all."""
    work = (3_010 * NS_PER_MS, 3_090 * NS_PER_MS)
    span = Span("a", 3_040 * NS_PER_MS, 3_050 * NS_PER_MS)
    outcome = run(Device([work]), [span], until_ns=6 * NS_PER_S)
    # 10 ms and the fall time of 5 ms, at most at 1.1 times the limit of 400 W.
    assert outcome.shares["a"].own_mj <= 440 * 15 + 1
    assert outcome.total("unattributed_mj") > 0.5 * 80 * (BUSY_W - FLOOR_W)
    assert_conserved(outcome)


SPAN = st.tuples(
    st.integers(0, 4_000), st.integers(0, 3_000), st.sampled_from([1e-3, 1.0, 2.5, 1e6])
)


def _spans(drawn: list[tuple[int, int, float]]) -> list[Span]:
    return [
        Span(
            f"w{place}",
            QUIET_NS + begin * NS_PER_MS,
            QUIET_NS + (begin + length) * NS_PER_MS,
            weight=weight,
        )
        for place, (begin, length, weight) in enumerate(drawn)
    ]


@settings(max_examples=40)
@given(st.lists(SPAN, max_size=12), st.data())
def test_every_joule_is_booked_once_whatever_comes_when(
    drawn: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    """Conservation under lateness of any degree, and with untracked work."""
    spans = []
    for span in _spans(drawn):
        start_told = span.start_ns + data.draw(st.integers(0, 3_000)) * NS_PER_MS
        stop_told = max(start_told, span.stop_ns) + data.draw(st.integers(0, 3_000)) * NS_PER_MS
        spans.append(
            Span(span.name, span.start_ns, span.stop_ns, span.weight, start_told, stop_told)
        )
    work = [(span.start_ns, span.stop_ns) for span in spans[::2]]
    work.append((QUIET_NS + 500 * NS_PER_MS, QUIET_NS + 900 * NS_PER_MS))
    device = Device(work, phase_ns=data.draw(st.integers(0, 99)) * NS_PER_MS)
    outcome = run(device, spans, until_ns=QUIET_NS + 16 * NS_PER_S)
    assert set(outcome.shares) == {span.name for span in spans}
    assert_conserved(outcome)
    for share in outcome.shares.values():
        assert share.idle_mj >= -1e-6
        assert share.active_mj >= -1e-6


@settings(max_examples=25)
@given(st.lists(SPAN, min_size=1, max_size=10), st.data())
def test_the_order_of_events_within_the_allowance_does_not_matter(
    drawn: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    spans = _spans(drawn)
    work = [(span.start_ns, span.stop_ns) for span in spans]
    in_time = run(Device(work), spans, until_ns=QUIET_NS + 9 * NS_PER_S)
    delayed = []
    for span in spans:
        start_told = span.start_ns + data.draw(st.integers(0, 200)) * NS_PER_MS
        stop_told = max(start_told, span.stop_ns + data.draw(st.integers(0, 200)) * NS_PER_MS)
        if stop_told > span.stop_ns + 200 * NS_PER_MS:
            stop_told = span.stop_ns + 200 * NS_PER_MS
            start_told = min(start_told, stop_told)
        delayed.append(
            Span(span.name, span.start_ns, span.stop_ns, span.weight, start_told, stop_told)
        )
    later = run(Device(work), delayed, until_ns=QUIET_NS + 9 * NS_PER_S)
    assert later.shares == in_time.shares


@settings(max_examples=25)
@given(st.integers(200, 3_000), st.integers(1, 199))
def test_a_window_split_in_two_keeps_its_energy(length: int, cut: int) -> None:
    start, stop = QUIET_NS, QUIET_NS + length * NS_PER_MS
    middle = start + cut * NS_PER_MS
    device = Device([(start, stop)])
    whole = run(device, [Span("a", start, stop)], until_ns=stop + 2 * NS_PER_S)
    parts = run(
        device,
        [Span("a", start, middle), Span("b", middle, stop)],
        until_ns=stop + 2 * NS_PER_S,
    )
    assert sum(share.own_mj for share in parts.shares.values()) == pytest.approx(
        whole.shares["a"].own_mj, rel=1e-9
    )


@settings(max_examples=25)
@given(st.integers(1, 40))
def test_n_equal_windows_get_equal_shares(count: int) -> None:
    start, stop = QUIET_NS, QUIET_NS + NS_PER_S
    spans = [Span(f"w{place}", start, stop) for place in range(count)]
    outcome = run(Device([(start, stop)]), spans, until_ns=stop + 2 * NS_PER_S)
    energies = {share.own_mj for share in outcome.shares.values()}
    assert len(energies) == 1
    assert_conserved(outcome)


def test_a_parent_claims_nothing_while_its_child_is_open() -> None:
    start, stop = 3 * NS_PER_S, 5 * NS_PER_S
    spans = [
        Span("parent", start, stop),
        Span("child", start + NS_PER_S // 2, stop - NS_PER_S // 2, parent="parent"),
    ]
    outcome = run(Device([(start, stop)]), spans, until_ns=8 * NS_PER_S)
    parent, child = outcome.shares["parent"], outcome.shares["child"]
    assert parent.own_mj == pytest.approx(BUSY_W * 1000, rel=0.03)
    assert child.own_mj == pytest.approx(BUSY_W * 1000, rel=0.03)
    assert parent.device_mj == pytest.approx(BUSY_W * 2000, rel=0.02)
    assert_conserved(outcome)


@settings(max_examples=40)
@given(st.lists(st.tuples(SPAN, st.integers(0, 5)), min_size=2, max_size=8))
def test_parents_and_children_count_once(drawn: list[tuple[tuple[int, int, float], int]]) -> None:
    """Whoever is whose child, and whenever: a child may outlive its parent or start before it."""
    spans = [
        replace(span, parent=f"w{parent}" if parent < place else "")
        for place, (span, (_, parent)) in enumerate(
            zip(_spans([span for span, _ in drawn]), drawn, strict=True)
        )
    ]
    device = Device([(span.start_ns, span.stop_ns) for span in spans])
    outcome = run(device, spans, until_ns=QUIET_NS + 10 * NS_PER_S)
    assert set(outcome.shares) == {span.name for span in spans}
    assert_conserved(outcome)
    for share in outcome.shares.values():
        assert share.idle_mj >= -1e-6
        assert share.active_mj >= -1e-6


def test_hundreds_of_overlapping_windows_are_each_near_their_share() -> None:
    """Poisson arrivals, 256 open on average; the truth is the power split by their number."""
    rng = random.Random(7)
    instants, cursor = [], QUIET_NS
    while cursor < QUIET_NS + 6 * NS_PER_S:
        cursor += round(rng.expovariate(256) * NS_PER_S)
        instants.append(cursor)
    spans = [
        Span(f"w{place}", start, start + round(rng.uniform(0.5, 1.5) * NS_PER_S))
        for place, start in enumerate(instants)
    ]
    device = Device([(span.start_ns, span.stop_ns) for span in spans])
    outcome = run(device, spans, until_ns=QUIET_NS + 10 * NS_PER_S)
    events = sorted([(span.start_ns, 1) for span in spans] + [(span.stop_ns, -1) for span in spans])
    # The integral of 1/n over time, at each event.
    at, count, integral = [0], 0, [0.0]
    for instant, change in events:
        integral.append(integral[-1] + (instant - at[-1]) / count if count else integral[-1])
        at.append(instant)
        count += change
    share = dict(zip(at, integral, strict=True))
    errors = []
    for span in spans:
        truth_mj = (share[span.stop_ns] - share[span.start_ns]) * BUSY_W / 1e6
        errors.append(abs(outcome.shares[span.name].own_mj / truth_mj - 1))
    assert sum(errors) / len(errors) < 0.005
    assert_conserved(outcome)


def test_a_background_that_was_seen_long_ago_is_forgotten() -> None:
    """An untracked process that ended while windows kept the GPU busy without a pause."""
    work = [(2 * NS_PER_S, 50 * NS_PER_S)]
    spans = [
        Span(f"w{number}", (5 + number) * NS_PER_S, (6 + number) * NS_PER_S) for number in range(45)
    ]
    outcome = run(Device(work), spans, until_ns=53 * NS_PER_S)
    assert Flag.SHARED_WITH_UNTRACKED in outcome.shares["w0"].flags
    assert Flag.SHARED_WITH_UNTRACKED not in outcome.shares["w44"].flags
    assert outcome.shares["w44"].own_mj == pytest.approx(BUSY_W * 1000, rel=0.03)
    assert_conserved(outcome)


def test_sums_rebased_while_a_window_is_open_change_nothing() -> None:
    span = Span("a", 3 * NS_PER_S, 3 * 3_600 * NS_PER_S)
    device = Device([(span.start_ns, span.stop_ns)], period_ns=NS_PER_S)
    outcome = run(device, [span], until_ns=span.stop_ns + 3 * NS_PER_S, interval_ns=2 * NS_PER_S)
    length_s = (span.stop_ns - span.start_ns) / NS_PER_S
    assert outcome.shares["a"].own_mj == pytest.approx(BUSY_W * 1000 * length_s, rel=1e-3)
    assert_conserved(outcome)
