"""The daemon is killed under load and away for longer than its client can keep events."""

import pytest

from benchmarks.outage_run import BUSY_W, Found, flags, run

# Five seconds: a client tries again every two, and what happens until then pushes out more.
CAPACITY = 10_000
BEFORE_S, AWAY_S, AFTER_S = 2.0, 6.5, 3.0


@pytest.fixture(scope="module")
def found() -> Found:
    return run(BEFORE_S, AWAY_S, AFTER_S, capacity=CAPACITY)


def test_who_calls_pays_no_more_without_a_daemon(found: Found) -> None:
    before, without, _ = found.costs
    assert without.p50 <= 2 * before.p50
    assert without.thread <= 3 * before.thread  # so short, it is noisier


def test_no_more_is_kept_than_may_be(found: Found) -> None:
    away = found.marks[2]
    assert away.lost > 0
    assert CAPACITY * 0.9 <= away.events <= CAPACITY


def test_what_was_kept_arrives_and_the_rest_is_counted(found: Found) -> None:
    last = found.last
    assert (last.kept, last.refused) == (0, 0)
    assert last.delivered == len(found.rows)
    assert last.begun - len(found.rows) == last.lost == found.lost
    assert len(found.newest) >= 500  # given up were older ones


def test_what_arrives_is_final_by_the_step_that_bridges(found: Found) -> None:
    assert {row["state"] for row in found.rows.values()} == {"final"}
    told = [flags(row) for row in found.newest]
    assert all("recovered" in of_window for of_window in told)
    assert not any("late" in of_window for of_window in told)


def test_every_joule_is_booked_once(found: Found) -> None:
    assert found.error <= 1e-9


def test_what_lost_windows_used_is_uncertain(found: Found) -> None:
    """Of windows without a pause between them: they used what the GPU drew."""
    newest = found.newest
    begin_ns = min(row["start_unix_ns"] for row in newest)
    end_ns = max(row["stop_unix_ns"] for row in newest)
    energy_mj = sum(row["own_mj"] for row in newest)
    bound_mj = sum(row["own_correlated_mj"] + row["own_independent_mj"] for row in newest)
    assert abs(energy_mj - BUSY_W * (end_ns - begin_ns) / 1e6) <= bound_mj


def test_what_happens_afterwards_is_not_late(found: Found) -> None:
    """Told within milliseconds, but for the second in which the client was not back yet."""
    numbers = range(found.marks[2].begun, found.last.begun)
    told = [flags(found.rows[number]) for number in numbers if number in found.rows]
    # Unless the client itself got no turn.
    assert sum("late" in of_window for of_window in told) <= 0.005 * len(told)
