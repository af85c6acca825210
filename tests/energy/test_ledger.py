"""The laws of the ledger, on a device with a known truth."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.energy.ledger import DeviceLedger
from greend.model import NS_PER_MS, NS_PER_S, Flag, Source
from tests.energy.world import BUSY_W, FLOOR_W, LATENESS_NS, Device, Outcome, Span, run

QUIET_NS = 2 * NS_PER_S


def assert_conserved(outcome: Outcome) -> None:
    """Rule 1, with every term from its own bookkeeping."""
    measured = outcome.total("measured_mj")
    booked = sum(
        outcome.total(name) for name in ("windows_mj", "idle_mj", "unattributed_mj", "gap_mj")
    )
    assert booked == pytest.approx(measured, rel=1e-9)
    for booking in outcome.bookings:
        assert booking.measured_mj == pytest.approx(
            booking.windows_mj + booking.idle_mj + booking.unattributed_mj + booking.gap_mj,
            rel=1e-9,
            abs=1e-6,
        )
    shares = sum(share.own_mj for share in outcome.shares.values())
    assert shares == pytest.approx(outcome.total("windows_mj"), rel=1e-9, abs=1e-6)


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


def test_a_late_window_claims_what_nobody_had() -> None:
    start, stop = 3 * NS_PER_S, 4 * NS_PER_S
    device = Device([(start, stop)])
    in_time = run(device, [Span("a", start, stop)], until_ns=8 * NS_PER_S).shares["a"]
    told = 6 * NS_PER_S
    late = run(
        device,
        [Span("a", start, stop, start_told_ns=told, stop_told_ns=told + 1)],
        until_ns=8 * NS_PER_S,
    )
    assert Flag.LATE in late.shares["a"].flags
    assert late.shares["a"].own_mj == pytest.approx(in_time.own_mj, rel=0.02)
    assert late.shares["a"].idle_mj == pytest.approx(in_time.idle_mj, rel=0.02)
    assert_conserved(late)


def test_a_late_stop_gives_back_what_came_after_it() -> None:
    start, stop = 3 * NS_PER_S, 4 * NS_PER_S
    span = Span("a", start, stop, stop_told_ns=6 * NS_PER_S)
    outcome = run(Device([(start, stop)]), [span], until_ns=8 * NS_PER_S)
    assert Flag.LATE in outcome.shares["a"].flags
    assert outcome.shares["a"].own_mj == pytest.approx(BUSY_W * 1000, rel=0.05)
    assert_conserved(outcome)


def test_a_sensor_that_falls_silent_costs_a_gap_and_nobody_waits() -> None:
    device = Device([(3 * NS_PER_S, 30 * NS_PER_S)])
    span = Span("a", 3 * NS_PER_S, 6 * NS_PER_S)
    outcome = run(device, [span], until_ns=4 * NS_PER_S)
    ledger = outcome.ledger
    ledger.stop("a", span.stop_ns)
    (settled,) = ledger.close(12 * NS_PER_S, 250 * NS_PER_MS, 0)
    assert Flag.GAP in settled.share.flags
    ledger.take_bookings()
    ledger.add(device.sample(15 * NS_PER_S))
    ledger.close(16 * NS_PER_S, 250 * NS_PER_MS, 0)
    bookings = ledger.take_bookings()
    gap_mj = sum(booking.gap_mj for booking in bookings)
    assert gap_mj == pytest.approx(sum(booking.measured_mj for booking in bookings))
    assert gap_mj == pytest.approx(BUSY_W * 11_000, rel=0.02)


def test_a_counter_that_goes_backwards_is_time_unknown_and_never_negative() -> None:
    device = Device([])
    outcome = run(device, [], until_ns=3 * NS_PER_S)
    ledger = outcome.ledger
    now = 3_200 * NS_PER_MS
    sample = device.sample(now)
    ledger.add(type(sample)("GPU-0", now, energy_mj=5))
    ledger.close(now + NS_PER_S, 250 * NS_PER_MS, 0)
    bookings = ledger.take_bookings()
    assert sum(booking.unknown_ns for booking in bookings) == pytest.approx(200e6, abs=150e6)
    assert all(booking.measured_mj >= 0 for booking in bookings)


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


@pytest.mark.parametrize("paused", [False, True])
def test_a_late_stop_among_others_leaves_what_was_its_own(*, paused: bool) -> None:
    """Equal to the same windows told in time, as far as others' figures allow."""
    start = 3 * NS_PER_S
    parent = Span("parent", start, start + 700 * NS_PER_MS)
    before = Span("before", start - 400 * NS_PER_MS, start - 20 * NS_PER_MS)
    child = Span("child", start + 200 * NS_PER_MS, start + 500 * NS_PER_MS, parent="parent")
    spans = [before, parent, *([child] if paused else [])]
    device = Device([(before.start_ns, before.stop_ns), (parent.start_ns, parent.stop_ns)])
    in_time = run(device, spans, until_ns=8 * NS_PER_S)
    late = run(
        device,
        [
            replace(span, stop_told_ns=start + 3 * NS_PER_S) if span is parent else span
            for span in spans
        ],
        until_ns=8 * NS_PER_S,
    )
    assert late.shares["parent"].own_mj == pytest.approx(in_time.shares["parent"].own_mj, rel=0.05)
    assert_conserved(late)


def test_without_a_counter_power_is_integrated() -> None:
    span = Span("a", 3 * NS_PER_S, 5 * NS_PER_S)
    device = Device([(span.start_ns, span.stop_ns)], counter=False)
    outcome = run(device, [span], until_ns=8 * NS_PER_S)
    share = outcome.shares["a"]
    assert share.own_mj == pytest.approx(BUSY_W * 2000, rel=0.03)
    assert share.source is Source.POWER
    assert Flag.POWER_INTEGRATED in share.flags
    assert_conserved(outcome)


def test_power_that_nobody_read_is_unknown_time_and_no_joules() -> None:
    device = Device([], counter=False)
    outcome = run(device, [], until_ns=3 * NS_PER_S)
    ledger = outcome.ledger
    ledger.close(3 * NS_PER_S, LATENESS_NS, 0)
    ledger.take_bookings()
    hour_ns = 3_600 * NS_PER_S
    ledger.add(device.sample(hour_ns))
    ledger.close(hour_ns + NS_PER_S, LATENESS_NS, 0)
    bookings = ledger.take_bookings()
    assert sum(booking.measured_mj for booking in bookings) < FLOOR_W * 1000
    assert sum(booking.unknown_ns for booking in bookings) == pytest.approx(hour_ns, rel=0.01)


def test_a_sensor_that_never_speaks_keeps_no_window_for_ever() -> None:
    ledger = DeviceLedger("GPU-0", 0, has_counter=True)
    ledger.start("a", NS_PER_S, 1.0)
    ledger.stop("a", 2 * NS_PER_S)
    assert ledger.close(3 * NS_PER_S, LATENESS_NS, 0) == []
    (settled,) = ledger.close(8 * NS_PER_S, LATENESS_NS, 0)
    assert settled.share.source is None
    assert Flag.GAP in settled.share.flags
    assert not ledger.busy


def test_a_counter_that_stood_still_and_catches_up_is_a_gap_and_not_a_reset() -> None:
    device = Device([(0, 100 * NS_PER_S)], busy_w=700)
    outcome = run(device, [], until_ns=3 * NS_PER_S)
    ledger = outcome.ledger
    stuck = device.sample(3 * NS_PER_S)
    for tenth in range(31, 160):
        now = tenth * NS_PER_S // 10
        ledger.add(replace(stuck, monotonic_ns=now))
        ledger.close(now, LATENESS_NS, 0)
    ledger.take_bookings()
    ledger.add(device.sample(16 * NS_PER_S))
    ledger.close(17 * NS_PER_S, LATENESS_NS, 0)
    bookings = ledger.take_bookings()
    assert sum(booking.gap_mj for booking in bookings) == pytest.approx(700 * 13_000, rel=0.03)
    assert sum(booking.unknown_ns for booking in bookings) == 0


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


@pytest.mark.parametrize("utilization", [True, False])
def test_windows_that_are_all_told_late_are_no_background_to_each_other(
    *, utilization: bool
) -> None:
    """An engine that knows only afterwards, busy for most of the time."""
    spans, cursor = [], 3 * NS_PER_S
    for number in range(12):
        stop = cursor + 2 * NS_PER_S
        spans.append(
            Span(f"w{number}", cursor, stop, start_told_ns=stop + 1, stop_told_ns=stop + 2)
        )
        cursor = stop + NS_PER_S
    device = Device([(span.start_ns, span.stop_ns) for span in spans])
    device.utilization = utilization
    outcome = run(device, spans, until_ns=cursor + 2 * NS_PER_S)
    for span in spans:
        share = outcome.shares[span.name]
        assert Flag.LATE in share.flags
        assert share.own_mj == pytest.approx(BUSY_W * 2000, rel=0.05), span.name
    assert_conserved(outcome)
    floor_mw = outcome.ledger.floor.floor_mw()
    assert floor_mw is not None
    assert floor_mw == pytest.approx(FLOOR_W * 1000, rel=0.05)
