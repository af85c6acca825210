from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.errors import OutOfRange
from greend.sim.history import UW_PER_W, History, Load

HORIZON_NS = 10**10
INSTANTS = st.integers(0, HORIZON_NS)
POWERS_UW = st.integers(0, 700 * UW_PER_W)
CHANGES = st.lists(st.tuples(INSTANTS, POWERS_UW), max_size=20)


def load(power_uw: int) -> Load:
    return Load(0.5, 0.5, power_uw)


def history_of(changes: list[tuple[int, int]]) -> History:
    history = History(0, load(100))
    for start_ns, power_uw in changes:
        history.set_load(start_ns, load(power_uw))
    return history


@given(CHANGES, st.lists(INSTANTS, min_size=2, max_size=8))
def test_the_energy_of_an_interval_is_exactly_the_sum_of_its_parts(
    changes: list[tuple[int, int]], instants: list[int]
) -> None:
    history = history_of(changes)
    instants.sort()
    parts = [history.energy_between_fj(start, stop) for start, stop in pairwise(instants)]
    assert sum(parts) == history.energy_between_fj(instants[0], instants[-1])
    assert all(part >= 0 for part in parts)


@given(CHANGES, INSTANTS, POWERS_UW)
def test_a_load_replaces_everything_said_for_later_and_nothing_before(
    changes: list[tuple[int, int]], start_ns: int, power_uw: int
) -> None:
    before, history = history_of(changes), history_of(changes)
    history.set_load(start_ns, load(power_uw))
    assert history.energy_fj(start_ns) == before.energy_fj(start_ns)
    assert history.load(HORIZON_NS) == load(power_uw)
    expected_fj = power_uw * (HORIZON_NS - start_ns)
    assert history.energy_between_fj(start_ns, HORIZON_NS) == expected_fj
    if start_ns > 0:
        assert history.load(start_ns - 1) == before.load(start_ns - 1)


@given(CHANGES, INSTANTS, INSTANTS)
def test_forgetting_the_past_leaves_every_later_energy_exactly_as_it_was(
    changes: list[tuple[int, int]], forget_ns: int, later_ns: int
) -> None:
    later_ns = max(forget_ns, later_ns)
    whole, history = history_of(changes), history_of(changes)
    history.forget_before(forget_ns)
    assert history.kept_since_ns <= forget_ns
    assert history.energy_fj(forget_ns) == whole.energy_fj(forget_ns)
    assert history.energy_fj(later_ns) == whole.energy_fj(later_ns)


def test_a_forgotten_instant_is_refused_for_reading_and_for_setting() -> None:
    history = history_of([(100, 1), (200, 2), (300, 3)])
    history.forget_before(250)
    assert history.kept_since_ns == 200
    with pytest.raises(OutOfRange):
        history.energy_fj(199)
    with pytest.raises(OutOfRange):
        history.set_load(199, load(5))


def test_what_is_kept_stays_bounded_when_the_past_is_forgotten_as_time_goes_on() -> None:
    history = History(0, load(0))
    for change in range(1, 5000):
        history.set_load(change, load(change))
        history.forget_before(change - 100)
        assert history.kept_since_ns >= change - 100
    assert history.energy_fj(5000) == sum(range(5000))
