"""Sensors that fall silent, start anew, stand still, or count nothing."""

from dataclasses import replace

import pytest

from greend.energy.ledger import DeviceLedger
from greend.model import NS_PER_MS, NS_PER_S, Flag, Source
from tests.energy.world import (
    BUSY_W,
    FLOOR_W,
    LATENESS_NS,
    Device,
    Span,
    assert_conserved,
    run,
)


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
