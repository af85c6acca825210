"""Counter against power, from readings alone."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.doctor.answers import Reading
from greend.doctor.comparison import compare

MS = 1_000_000
READ_NS = 20 * MS


def readings(
    step_ns: int,
    phase_ns: int,
    seconds: float,
    power_mw: Callable[[int], int],
    energy_mj: Callable[[int], int],
) -> list[Reading]:
    """Of a counter that shows at each step what it has counted."""
    instants = range(10**12, 10**12 + round(seconds * 1e9), READ_NS)
    return [
        Reading(at, energy_mj((at - phase_ns) // step_ns * step_ns + phase_ns), power_mw(at))
        for at in instants
    ]


@given(
    step_ms=st.integers(20, 106),
    phase_ms=st.integers(0, 105),
    power_w=st.integers(20, 1000),
    gain=st.floats(0.5, 2.0),
)
def test_at_steady_power_the_residual_is_the_counter_s_gain(
    step_ms: int, phase_ms: int, power_w: int, gain: float
) -> None:
    seen = compare(
        readings(
            step_ms * MS,
            phase_ms * MS,
            3.0,
            lambda at: 1000 * power_w,
            lambda at: round(gain * power_w * at / MS),
        )
    )
    assert seen.residual is not None
    # Each end is known to half the time between readings.
    assert 1 + seen.residual == pytest.approx(gain, rel=2 * READ_NS / (3e9 - 2 * step_ms * MS))
    assert seen.step_s == pytest.approx(step_ms / 1e3, abs=READ_NS / 1e9)
    assert not seen.back
    assert seen.still_s < 0.2


def test_what_is_not_known_is_none() -> None:
    no_power = compare([Reading(n * READ_NS, n, None) for n in range(50)])
    assert no_power.residual is None
    assert no_power.mean_power_w is None
    no_step = compare([Reading(n * READ_NS, 7, 1000) for n in range(51)])
    assert (no_step.steps, no_step.step_s, no_step.residual) == (0, None, None)
    assert no_step.still_s == pytest.approx(1.0)
    assert no_step.mean_power_w == pytest.approx(1.0)


def test_a_counter_that_falls_is_seen() -> None:
    energies = [5, 6, 7, 3, 4]
    assert compare([Reading(n * READ_NS, mj, 1) for n, mj in enumerate(energies)]).back
