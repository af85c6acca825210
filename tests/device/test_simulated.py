import re
import threading

import pytest

from greend.device.protocol import Driver
from greend.device.simulated import SimulatedDevice, SimulatedDriver
from greend.errors import InvalidArgument, OutOfRange
from greend.model import NS_PER_MS, NS_PER_S


class Clock:
    def __init__(self) -> None:
        self.now_ns = 5 * NS_PER_S

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS_PER_S)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def device(clock: Clock) -> SimulatedDevice:
    return SimulatedDriver("h100x1", clock).devices[0]


def test_the_spec_says_profile_and_count(clock: Clock) -> None:
    driver: Driver = SimulatedDriver("a100x8", clock)
    infos = [device.info for device in driver.open()[0]]
    assert [info.index for info in infos] == list(range(8))
    assert {info.name for info in infos} == {"NVIDIA A100-SXM4-80GB"}
    assert all(info.simulated for info in infos)
    driver.close()
    driver.close()


def test_uuids_look_like_nvmls_differ_by_device_and_stay_the_same_over_restarts() -> None:
    uuids = [device.info.uuid for device in SimulatedDriver("h100x64").devices]
    assert uuids == [device.info.uuid for device in SimulatedDriver("h100x64").devices]
    assert len(set(uuids)) == 64
    pattern = r"GPU-51[0-9a-f]{6}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert all(re.fullmatch(pattern, uuid) for uuid in uuids)


@pytest.mark.parametrize("spec", ["", "h100", "x2", "h100x0", "h100x65", "h100x-1", "b300x2", "2"])
def test_a_wrong_spec_is_refused_and_the_profiles_are_named(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="a100, h100"):
        SimulatedDriver(spec)


def test_an_unloaded_device_draws_its_static_power_and_is_not_utilized(
    device: SimulatedDevice, clock: Clock
) -> None:
    first = device.read()
    clock.advance(10)
    second = device.read()
    assert first.energy_mj is not None
    assert second.energy_mj is not None
    assert second.energy_mj - first.energy_mj == pytest.approx(10 * 120_000, abs=120 * 102)
    assert second.power_mw == 120_000
    assert second.gpu_utilization_percent == 0
    assert second.memory_utilization_percent == 0
    assert second.monotonic_ns == clock.now_ns
    assert device.context_alive() is False


def test_a_load_shows_in_power_utilization_and_clock(device: SimulatedDevice, clock: Clock) -> None:
    idle = device.read()
    assert device.set_load(1.0, 0.4) == pytest.approx(120 + 32 + 520)
    clock.advance(1)
    busy = device.read()
    assert busy.power_mw == 672_000
    assert (busy.gpu_utilization_percent, busy.memory_utilization_percent) == (100, 40)
    assert busy.sm_clock_mhz == 1980
    assert idle.sm_clock_mhz == 210
    assert idle.temperature_c is not None
    assert busy.temperature_c is not None
    assert 20 < idle.temperature_c < busy.temperature_c < 85


def test_a_load_told_ahead_begins_at_its_instant(device: SimulatedDevice, clock: Clock) -> None:
    start_ns = clock.now_ns + 2 * NS_PER_S
    device.set_load(0.5, 0.9, start_ns=start_ns)
    assert device.read().gpu_utilization_percent == 0
    clock.advance(2)
    assert device.read().gpu_utilization_percent == 50
    truth = device.truth(start_ns - NS_PER_S, start_ns)
    assert truth.energy_j == truth.idle_energy_j == 120.0


def test_a_given_power_takes_the_place_of_the_physics(
    device: SimulatedDevice, clock: Clock
) -> None:
    assert device.set_load(0.0, 0.0, power_w=250.5) == 250.5
    start_ns = clock.now_ns
    clock.advance(4)
    assert device.truth(start_ns).energy_j == 4 * 250.5
    assert device.truth(start_ns).idle_energy_j == 4 * 120.0
    assert device.read().gpu_utilization_percent == 0


def test_the_counter_follows_the_truth_to_a_step_of_100_ms(
    device: SimulatedDevice, clock: Clock
) -> None:
    start_ns, first_mj = clock.now_ns, device.read().energy_mj
    assert first_mj is not None
    for tenth in range(50):
        device.set_load(tenth % 2, 0.0)
        clock.advance(0.033)
        shown_mj = device.read().energy_mj
        assert shown_mj is not None
        missing_mj = 1000 * device.truth(start_ns).energy_j - (shown_mj - first_mj)
        assert abs(missing_mj) <= 640 * 102


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("sm_activity", (1.01, 0.0, None)),
        ("sm_activity", (float("nan"), 0.0, None)),
        ("memory_activity", (0.0, -0.1, None)),
        ("memory_activity", (0.0, float("inf"), None)),
        ("power_w", (0.0, 0.0, -1.0)),
        ("power_w", (0.0, 0.0, float("nan"))),
    ],
)
def test_a_load_that_cannot_be_is_refused_by_the_name_of_its_field(
    device: SimulatedDevice, field: str, arguments: tuple[float, float, float | None]
) -> None:
    with pytest.raises(InvalidArgument, match=field):
        device.set_load(*arguments)


def test_loads_too_far_ahead_and_truths_too_long_ago_are_out_of_range(
    device: SimulatedDevice, clock: Clock
) -> None:
    device.set_load(0.5, 0.5, start_ns=clock.now_ns + 600 * NS_PER_S)
    with pytest.raises(OutOfRange, match="600 s"):
        device.set_load(0.5, 0.5, start_ns=clock.now_ns + 600 * NS_PER_S + 1)
    assert device.truth(clock.now_ns - 600 * NS_PER_S).energy_j == 600 * 120.0
    with pytest.raises(OutOfRange, match="600 s"):
        device.truth(clock.now_ns - 600 * NS_PER_S - 1)
    with pytest.raises(InvalidArgument, match="stop_unix_ns"):
        device.truth(clock.now_ns, clock.now_ns - 1)


def test_a_load_that_began_longer_ago_than_is_kept_is_out_of_range(
    device: SimulatedDevice, clock: Clock
) -> None:
    with pytest.raises(OutOfRange):
        device.set_load(0.5, 0.5, start_ns=clock.now_ns - 3600 * NS_PER_S)


def test_the_counter_stays_exact_after_hours_in_which_the_past_was_forgotten(
    device: SimulatedDevice, clock: Clock
) -> None:
    first_mj = device.read().energy_mj
    assert first_mj is not None
    for hour in range(24):
        device.set_load(0.0, 0.0, power_w=100.0 + hour)
        clock.advance(3600)
        device.read()
    # A last hour at rest, so that the place of the last edge makes no difference.
    device.set_load(0.0, 0.0, power_w=0.0)
    clock.advance(3600)
    last_mj = device.read().energy_mj
    assert last_mj is not None
    expected_mj = sum(100_000 + 1000 * hour for hour in range(24)) * 3600
    # The first edge lay up to a step before the first load, at 120 W.
    assert 0 <= last_mj - first_mj - expected_mj <= 120 * 102


def test_loads_from_one_thread_never_make_the_counter_fall_for_another() -> None:
    device = SimulatedDriver("h100x1").devices[0]
    stop = threading.Event()

    def tell_loads() -> None:
        while not stop.is_set():
            device.set_load(1.0, 0.5)
            device.set_load(0.0, 0.0)

    teller = threading.Thread(target=tell_loads)
    teller.start()
    try:
        energies = [device.read().energy_mj or 0 for _ in range(5000)]
    finally:
        stop.set()
        teller.join()
    assert energies == sorted(energies)
    assert energies[0] > 0


def test_a_hundred_milliseconds_of_load_cost_exactly_what_the_physics_says(
    device: SimulatedDevice, clock: Clock
) -> None:
    start_ns = clock.now_ns
    power_w = device.set_load(0.3, 0.9, start_ns=start_ns)
    device.set_load(0.0, 0.0, start_ns=start_ns + 100 * NS_PER_MS)
    clock.advance(1)
    truth = device.truth(start_ns, start_ns + 100 * NS_PER_MS)
    assert truth.energy_j == pytest.approx(power_w * 0.1, rel=1e-9)
    assert truth.idle_energy_j == pytest.approx(12.0)
