"""How much power a simulated GPU draws, and how long work takes, at a clock.

Everything here is assumed (FACTS.md, "Physics for a simulated GPU"): shaped
like the published measurements, measured on no GPU of ours.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """The constants of one GPU model.

    Voltage is `min_voltage_v` up to `knee_clock_mhz`, from there linear to
    `max_voltage_v` at `max_sm_clock_mhz`.
    """

    name: str
    static_power_w: float
    memory_power_w: float
    sm_power_w: float
    knee_clock_mhz: int
    min_voltage_v: float
    max_voltage_v: float
    min_sm_clock_mhz: int
    max_sm_clock_mhz: int
    sm_clock_step_mhz: int
    memory_clock_mhz: int
    min_power_limit_w: float
    max_power_limit_w: float


A100 = Profile(
    name="NVIDIA A100-SXM4-80GB",
    static_power_w=85.0,
    memory_power_w=55.0,
    sm_power_w=260.0,
    knee_clock_mhz=1005,
    min_voltage_v=0.72,
    max_voltage_v=1.00,
    min_sm_clock_mhz=210,
    max_sm_clock_mhz=1410,
    sm_clock_step_mhz=15,
    memory_clock_mhz=1593,
    min_power_limit_w=100.0,
    max_power_limit_w=400.0,
)

H100 = Profile(
    name="NVIDIA H100 80GB HBM3",
    static_power_w=120.0,
    memory_power_w=80.0,
    sm_power_w=520.0,
    knee_clock_mhz=1200,
    min_voltage_v=0.70,
    max_voltage_v=1.05,
    min_sm_clock_mhz=210,
    max_sm_clock_mhz=1980,
    sm_clock_step_mhz=15,
    memory_clock_mhz=2619,
    min_power_limit_w=200.0,
    max_power_limit_w=700.0,
)

PROFILES = {"a100": A100, "h100": H100}
"""By the name that `--simulate` takes."""


def voltage_v(profile: Profile, clock_mhz: float) -> float:
    """Core voltage at a clock: flat below the knee, then linear (FACTS.md, assumed)."""
    above_knee_mhz = max(0.0, clock_mhz - profile.knee_clock_mhz)
    slope_v_per_mhz = (profile.max_voltage_v - profile.min_voltage_v) / (
        profile.max_sm_clock_mhz - profile.knee_clock_mhz
    )
    return profile.min_voltage_v + slope_v_per_mhz * above_knee_mhz


def power_w(
    profile: Profile,
    clock_mhz: float,
    sm_activity: float,
    memory_activity: float,
    *,
    limit_w: float | None = None,
) -> float:
    """Power under a load; activities are 0 to 1.

    P = P_static + P_mem·bw + P_sm·a·(V/Vmax)²·(f/fmax) (FACTS.md, assumed),
    clipped to the enforced limit, by default the profile's highest.
    """
    voltage_ratio = voltage_v(profile, clock_mhz) / profile.max_voltage_v
    clock_ratio = clock_mhz / profile.max_sm_clock_mhz
    unlimited_w = (
        profile.static_power_w
        + profile.memory_power_w * memory_activity
        + profile.sm_power_w * sm_activity * voltage_ratio**2 * clock_ratio
    )
    return min(unlimited_w, profile.max_power_limit_w if limit_w is None else limit_w)


def time_ratio(profile: Profile, clock_mhz: float, beta: float) -> float:
    """How much longer work takes than at the highest clock.

    T/T₀ = β·fmax/f + (1−β), β being the part of the work that scales with the
    clock: about 0.95 in prefill, 0.25 in batched and 0.1 in lone decode
    (FACTS.md, assumed).
    """
    return beta * profile.max_sm_clock_mhz / clock_mhz + (1.0 - beta)
