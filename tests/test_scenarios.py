"""The accuracy bench's truth is one: it books all that a device draws, and books it once."""

import random

import pytest

from benchmarks import power
from benchmarks.classes import CLASSES, KINDS, Class
from benchmarks.scenarios import Device
from benchmarks.virtual import play


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("device", KINDS)
def test_true_energies_sum_to_what_the_device_draws(kind: Class, device: str) -> None:
    scenario = kind.make(Device(device, random.Random(7)), 10)
    drawn_j = power.between_j(power.curve(scenario.power), 0, scenario.end_ns)
    windows_j = sum(window.truth_j for window in scenario.windows)
    booked_j = windows_j + scenario.idle_j + scenario.untracked_j
    assert booked_j == pytest.approx(drawn_j, rel=1e-6)
    assert min(window.truth_j for window in scenario.windows) > 0
    assert sum(window.counted for window in scenario.windows) >= 5


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_the_virtual_runner_hears_of_every_window(kind: Class) -> None:
    scenario = kind.make(Device("a100", random.Random(8)), 5)
    cases, totals = play(scenario, "a seed")
    assert len(cases) == sum(window.counted for window in scenario.windows)
    booked_j = totals.windows_j + totals.idle_j + totals.unattributed_j + totals.gap_j
    assert booked_j == pytest.approx(totals.measured_j, rel=1e-9)


def test_a_lone_window_caused_its_floor_and_its_work_with_the_ramp_after_it() -> None:
    """By hand, without noise: 1 s of 60 W, and 100 W whose ramps make up for each other."""
    span = (2 * power.S, 3 * power.S)
    floor = [power.Piece(0, 10 * power.S, 60.0, 60.0)]
    (open_j,), idle_j = power.shared_j(power.curve(power.script(floor)), [span], 10 * power.S)
    assert open_j == pytest.approx(60.0)
    assert idle_j == pytest.approx(540.0)
    work = power.work(_Silence(random.Random(0)), *span, 100.0)
    assert power.energy_j(work) == pytest.approx(100.0)
    assert max(piece.end_ns for piece in work) == span[1] + power.RAMP_NS


class _Silence(power.Noise):
    def cut(self, begin_ns, end_ns):  # type: ignore[no-untyped-def]
        yield begin_ns, end_ns, 1.0
