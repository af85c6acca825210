import pytest

from greend.sim.physics import A100, H100, PROFILES, Profile, power_w, time_ratio, voltage_v

PROFILE_CASES = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())


def clocks_mhz(profile: Profile) -> range:
    step = profile.sm_clock_step_mhz
    return range(profile.min_sm_clock_mhz, profile.max_sm_clock_mhz + 1, step)


@PROFILE_CASES
def test_an_unloaded_gpu_draws_its_static_power_at_every_clock(profile: Profile) -> None:
    assert {power_w(profile, clock, 0.0, 0.0) for clock in clocks_mhz(profile)} == {
        profile.static_power_w
    }


@PROFILE_CASES
def test_power_never_exceeds_the_enforced_limit(profile: Profile) -> None:
    assert power_w(profile, profile.max_sm_clock_mhz, 1.0, 1.0) <= profile.max_power_limit_w
    assert power_w(profile, profile.max_sm_clock_mhz, 1.0, 1.0, limit_w=250.0) == 250.0


def test_a_fully_loaded_h100_runs_into_its_limit_and_an_a100_just_reaches_it() -> None:
    assert power_w(H100, 1980, 1.0, 1.0) == 700.0
    assert power_w(A100, 1410, 1.0, 1.0) == pytest.approx(400.0)


@PROFILE_CASES
def test_power_rises_with_clock_and_with_either_activity(profile: Profile) -> None:
    powers = [power_w(profile, clock, 0.5, 0.9) for clock in clocks_mhz(profile)]
    assert powers == sorted(powers)
    assert power_w(profile, 1200, 0.6, 0.9) > power_w(profile, 1200, 0.5, 0.9)
    assert power_w(profile, 1200, 0.5, 1.0) > power_w(profile, 1200, 0.5, 0.9)


@PROFILE_CASES
def test_voltage_is_flat_to_the_knee_and_highest_at_the_highest_clock(profile: Profile) -> None:
    assert voltage_v(profile, profile.min_sm_clock_mhz) == profile.min_voltage_v
    assert voltage_v(profile, profile.knee_clock_mhz) == profile.min_voltage_v
    assert voltage_v(profile, profile.max_sm_clock_mhz) == pytest.approx(profile.max_voltage_v)


@PROFILE_CASES
def test_work_takes_longest_at_low_clocks_and_beta_says_how_much(profile: Profile) -> None:
    assert time_ratio(profile, profile.max_sm_clock_mhz, 0.25) == pytest.approx(1.0)
    assert time_ratio(profile, profile.max_sm_clock_mhz / 2, 1.0) == pytest.approx(2.0)
    assert time_ratio(profile, profile.max_sm_clock_mhz / 2, 0.0) == pytest.approx(1.0)


@PROFILE_CASES
def test_the_energy_of_batched_decode_is_lowest_near_the_knee(profile: Profile) -> None:
    def energy(clock_mhz: int) -> float:
        return power_w(profile, clock_mhz, 0.5, 0.9) * time_ratio(profile, clock_mhz, 0.25)

    best = min(clocks_mhz(profile), key=energy)
    assert best == pytest.approx(profile.knee_clock_mhz, rel=0.05)
    assert energy(best) < energy(profile.max_sm_clock_mhz)
    assert energy(best) < energy(profile.min_sm_clock_mhz)


def test_an_a100_decodes_at_its_knee_with_three_quarters_of_the_energy_in_a_tenth_more_time() -> (
    None
):
    time = time_ratio(A100, 1005, 0.25)
    energy = time * power_w(A100, 1005, 0.5, 0.9) / power_w(A100, 1410, 0.5, 0.9)
    assert time == pytest.approx(1.10, abs=0.005)
    assert energy == pytest.approx(0.77, abs=0.02)  # FACTS.md: 0.78, at an activity "about" 0.5
