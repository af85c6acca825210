import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.model import NS_PER_MS
from greend.sim.history import FJ_PER_MJ, UW_PER_W, History, Load
from greend.sim.sensors import AVERAGING_NS, JITTER_NS, STEP_NS, EnergyCounter, PowerSensor

SEEDS = st.integers(0, 63)


def watts(power_w: float) -> Load:
    return Load(0.5, 0.5, round(power_w * UW_PER_W))


def edges_ns(seed: int, count: int) -> list[int]:
    counter, now_ns, edges = EnergyCounter(seed), 10**10, []
    for _ in range(count):
        edges.append(counter.last_edge_ns(now_ns))
        now_ns = edges[-1] - 1
    return edges[::-1]


@given(SEEDS)
def test_edges_are_100_ms_apart_within_twice_the_jitter(seed: int) -> None:
    edges = edges_ns(seed, 50)
    gaps = [later - earlier for earlier, later in itertools.pairwise(edges)]
    assert all(abs(gap - STEP_NS) <= 2 * JITTER_NS for gap in gaps)
    assert len(set(gaps)) > 1


def test_each_device_has_a_phase_of_its_own_and_always_the_same() -> None:
    phases = [edges_ns(seed, 1)[0] for seed in range(8)]
    assert len(set(phases)) == 8
    assert phases == [edges_ns(seed, 1)[0] for seed in range(8)]


@given(SEEDS, st.integers(0, 10**12))
def test_the_last_edge_is_at_most_a_step_old(seed: int, at_ns: int) -> None:
    edge_ns = EnergyCounter(seed).last_edge_ns(at_ns)
    assert 0 <= at_ns - edge_ns <= STEP_NS + 2 * JITTER_NS


@given(
    SEEDS,
    st.lists(st.tuples(st.integers(0, 60 * NS_PER_MS), st.floats(0, 700)), min_size=1, max_size=60),
)
def test_the_counter_equals_the_true_energy_at_its_edges_and_holds_still_in_between(
    seed: int, changes: list[tuple[int, float]]
) -> None:
    history, counter = History(0, watts(100)), EnergyCounter(seed)
    now_ns = 10**9
    for wait_ns, power_w in changes:
        history.set_load(now_ns, watts(power_w))
        now_ns += wait_ns
        edge_ns = counter.last_edge_ns(now_ns)
        assert counter.read_mj(history, now_ns) == history.energy_fj(edge_ns) // FJ_PER_MJ


@given(
    SEEDS,
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(-500, 500), st.floats(0, 700)), max_size=60
    ),
)
def test_the_counter_never_falls_even_when_the_past_is_told_anew(
    seed: int, changes: list[tuple[int, int, float]]
) -> None:
    history, counter = History(0, watts(100)), EnergyCounter(seed)
    now_ns = 10**9
    shown_mj = counter.read_mj(history, now_ns)
    for wait_ms, start_ms, power_w in changes:
        history.set_load(now_ns + start_ms * NS_PER_MS, watts(power_w))
        assert counter.read_mj(history, now_ns) == shown_mj
        now_ns += wait_ms * NS_PER_MS
        before_mj, shown_mj = shown_mj, counter.read_mj(history, now_ns)
        assert shown_mj >= before_mj


@given(SEEDS, st.floats(0, 700))
def test_constant_power_is_shown_as_it_is(seed: int, power_w: float) -> None:
    history = History(0, watts(power_w))
    shown_mw = PowerSensor(seed).read_mw(history, 10**9)
    assert shown_mw == pytest.approx(1000 * power_w, abs=1)


def test_the_power_sensor_sees_a_quarter_of_the_time() -> None:
    # A pulse of 1 ms each 100 ms, at every place of the sensor's period: it is
    # seen, 25-fold diluted to 4 %, or not at all.
    seen = []
    for place_ms in range(100):
        history = History(0, watts(0))
        for pulse in range(20):
            start_ns = (pulse * 100 + place_ms) * NS_PER_MS
            history.set_load(start_ns, watts(500))
            history.set_load(start_ns + NS_PER_MS, watts(0))
        seen.append(PowerSensor(seed=3).read_mw(history, 10**9))
    assert sum(mw > 0 for mw in seen) == pytest.approx(AVERAGING_NS / NS_PER_MS, abs=1)
    assert max(seen) == pytest.approx(500_000 / 25, rel=0.01)


def test_the_power_sensor_holds_its_value_for_100_ms() -> None:
    history = History(0, watts(0))
    for change in range(1000):
        history.set_load(change * NS_PER_MS, watts(change % 700))
    sensor = PowerSensor(seed=1)
    shown = [sensor.read_mw(history, ms * NS_PER_MS) for ms in range(200, 1000)]
    changed = [i for i, (a, b) in enumerate(itertools.pairwise(shown)) if a != b]
    assert {later - earlier for earlier, later in itertools.pairwise(changed)} == {100}
