"""What the kinds of GPU are like: clocks, limits, sensor, counter (FACTS.md, section NVML)."""

from dataclasses import dataclass

MS = 1_000_000  # ns
BRAND_TESLA, BRAND_GEFORCE, BRAND_NVIDIA = 2, 5, 14
PASCAL, VOLTA, AMPERE, ADA, HOPPER = 4, 5, 7, 8, 9

_NO_MIG = ("nvmlDeviceGetMigMode",)
_NO_MEMORY_LOCK = ("nvmlDeviceSetMemoryLockedClocks", "nvmlDeviceResetMemoryLockedClocks")
_NO_SM_LOCK = ("nvmlDeviceSetGpuLockedClocks", "nvmlDeviceResetGpuLockedClocks")
_NO_FAN = ("nvmlDeviceGetFanSpeed",)
_DESKTOP = ("nvmlDeviceGetSerial", "nvmlDeviceGetTotalEccErrors")


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of GPU."""

    name: str
    brand: int
    architecture: int
    compute_capability: tuple[int, int]
    memory_gib: int
    idle_w: float
    power_limits_w: tuple[float, float, float]  # min, default, max
    sm_clocks_mhz: tuple[int, int, int]  # min, max, step
    memory_clocks_mhz: tuple[int, ...]  # highest first
    sensor_period_ns: int
    instant_window_ns: int
    average_window_ns: int
    usage_is_average: bool  # what nvmlDeviceGetPowerUsage tells
    counter_period_ns: int | None  # None: no energy counter
    unsupported: tuple[str, ...] = ()
    unsupported_fields: tuple[int, ...] = ()
    compute_slices: int = 7  # into which MIG can split it


PROFILES = {
    "p100": Profile(
        "Tesla P100-PCIE-16GB", BRAND_TESLA, PASCAL, (6, 0), 16, 26, (125, 250, 250),
        (544, 1328, 16), (715,), 20 * MS, 10 * MS, 1000 * MS, False, None,
        _NO_MIG + _NO_MEMORY_LOCK + _NO_SM_LOCK + _NO_FAN, (185,),
    ),
    "v100": Profile(
        "Tesla V100-SXM2-16GB", BRAND_TESLA, VOLTA, (7, 0), 16, 40, (150, 300, 300),
        (135, 1530, 15), (877,), 20 * MS, 10 * MS, 1000 * MS, False, 20 * MS,
        _NO_MIG + _NO_MEMORY_LOCK + _NO_FAN, (185,),
    ),
    "a100": Profile(
        "NVIDIA A100-SXM4-80GB", BRAND_NVIDIA, AMPERE, (8, 0), 80, 58, (100, 400, 400),
        (210, 1410, 15), (1593,), 100 * MS, 25 * MS, 1000 * MS, False, 100 * MS,
        _NO_FAN, (185,),
    ),
    "h100": Profile(
        "NVIDIA H100 80GB HBM3", BRAND_NVIDIA, HOPPER, (9, 0), 80, 70, (200, 700, 700),
        (210, 1980, 15), (2619, 1593), 100 * MS, 25 * MS, 1000 * MS, True, 100 * MS,
        _NO_FAN,
    ),
    "rtx4090": Profile(
        "NVIDIA GeForce RTX 4090", BRAND_GEFORCE, ADA, (8, 9), 24, 22, (150, 450, 600),
        (210, 3105, 15), (10501, 10251, 5001, 810, 405), 100 * MS, 110 * MS, 1000 * MS, True,
        100 * MS, _NO_MIG + _DESKTOP,
    ),
}  # fmt: skip
