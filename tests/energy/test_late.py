"""Windows that are told after their time was booked (DESIGN.md, rule 9)."""

from dataclasses import replace

import pytest

from greend.energy.floor import FloorEstimator
from greend.model import NS_PER_MS, NS_PER_S, Flag
from tests.energy.world import (
    BUSY_W,
    FLOOR_W,
    Device,
    Span,
    assert_conserved,
    run,
)


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


class _Resets(Device):
    """Its counter begins anew half a second after the window's work."""

    def energy_mj(self, until_ns: int) -> float:
        return super().energy_mj(until_ns) - (200_000 if until_ns >= 4_500 * NS_PER_MS else 0)


def test_a_late_stop_gives_back_no_clock_of_a_step_that_told_none() -> None:
    start, stop = 3 * NS_PER_S, 4 * NS_PER_S
    span = Span("a", start, stop, stop_told_ns=6 * NS_PER_S)
    outcome = run(_Resets([(start, stop)]), [span], until_ns=8 * NS_PER_S)
    assert Flag.COUNTER_RESET in outcome.shares["a"].flags
    assert outcome.shares["a"].clock_ns == pytest.approx(NS_PER_S, rel=1e-6)
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


def test_work_that_ended_long_ago_does_not_fall_off_now() -> None:
    """A late stop acts where steps are open; untracked work there is not its window's."""
    start = 3 * NS_PER_S
    device = Device([(start, start + 500 * NS_PER_MS), (start + NS_PER_S, start + 6 * NS_PER_S)])
    span = Span("a", start, start + 500 * NS_PER_MS, stop_told_ns=start + 3 * NS_PER_S)
    outcome = run(device, [span], until_ns=12 * NS_PER_S)
    assert outcome.shares["a"].own_mj == pytest.approx(BUSY_W * 500, rel=0.03)
    assert_conserved(outcome)


def test_a_remembered_floor_survives_a_late_window_over_all_that_was_seen() -> None:
    floor = FloorEstimator({False: 60_000.0}, {})
    for second in range(1, 6):
        floor.add_unoccupied(second * NS_PER_S, NS_PER_S, 58_000.0, 0)
    floor.retract(0, 10 * NS_PER_S)
    assert floor.floor_mw() == 60_000.0
