"""Metrics of devices: energy first, then what was read last."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from greend.export.host import DeviceView
from greend.export.recorder import Account
from greend.model import NS_PER_S

STATES = ("ok", "lost", "hung")
BOOKINGS = ("windows", "idle", "unattributed", "gap")

# NVML's clock-event reason bits (nvmlDeviceGetCurrentClocksEventReasons).
CLOCK_EVENT_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}


@dataclass(frozen=True, slots=True)
class _Reading:
    """A gauge taken from the latest sample."""

    name: str
    help: str
    field: str
    to_base_unit: Callable[[int], float]


READINGS = (
    _Reading(
        "greend_device_power_watts",
        "Power that the device's sensor told last. The rate of greend_device_energy_joules_total"
        " is the better mean.",
        "power_mw",
        lambda power_mw: power_mw / 1e3,
    ),
    _Reading("greend_device_sm_clock_hertz", "SM clock.", "sm_clock_mhz", lambda mhz: mhz * 1e6),
    _Reading(
        "greend_device_memory_clock_hertz",
        "Memory clock.",
        "memory_clock_mhz",
        lambda mhz: mhz * 1e6,
    ),
    _Reading(
        "greend_device_temperature_celsius", "Temperature of the GPU.", "temperature_c", float
    ),
    _Reading(
        "greend_device_gpu_utilization_ratio",
        "Part of the time in which a kernel ran, 0 to 1, as NVML tells it.",
        "gpu_utilization_percent",
        lambda percent: percent / 100,
    ),
    _Reading(
        "greend_device_memory_utilization_ratio",
        "Part of the time in which device memory was read or written, 0 to 1, as NVML tells it.",
        "memory_utilization_percent",
        lambda percent: percent / 100,
    ),
)


def energy_families(accounts: Mapping[str, Account]) -> Iterator[Metric]:
    """What was booked in this run."""
    energy = CounterMetricFamily(
        "greend_device_energy_joules_total",
        "Energy that the device used since the daemon started, as measured.",
        labels=["device"],
    )
    booked = CounterMetricFamily(
        "greend_device_booked_joules_total",
        "The same energy by what it was booked to: windows (with their part of the floor), idle"
        " (floor while no window was open), unattributed (work that no window claimed) or gap"
        " (counted, but not to be placed in time).",
        labels=["device", "booking"],
    )
    unknown = CounterMetricFamily(
        "greend_device_unknown_seconds_total",
        "Time whose energy was never counted.",
        labels=["device"],
    )
    for uuid, account in accounts.items():
        energy.add_metric([uuid], account.measured_mj / 1e3)
        for booking in BOOKINGS:
            booked.add_metric([uuid, booking], getattr(account, f"{booking}_mj") / 1e3)
        unknown.add_metric([uuid], account.unknown_ns / NS_PER_S)
    yield from (energy, booked, unknown)


def state_families(devices: Iterable[DeviceView]) -> Iterator[Metric]:
    """Which devices there are, and whether they answer."""
    info = InfoMetricFamily(
        "greend_device",
        "The device's name, NVML index (not a key: it can change) and whether it is simulated.",
        labels=["device"],
    )
    up = GaugeMetricFamily(
        "greend_device_up", "1 if the device answers, else 0.", labels=["device"]
    )
    states = GaugeMetricFamily(
        "greend_device_state",
        "1 for the state that the device is in: ok, lost (the driver no longer knows it) or hung"
        " (no answer for 5 s).",
        labels=["device", "state"],
    )
    age = GaugeMetricFamily(
        "greend_device_sample_age_seconds",
        "Time since the device was last read.",
        labels=["device"],
    )
    for view in devices:
        uuid = view.info.uuid
        index, simulated = str(view.info.index), str(view.info.simulated).lower()
        info.add_metric([uuid], {"name": view.info.name, "index": index, "simulated": simulated})
        up.add_metric([uuid], view.state == "ok")
        for state in STATES:
            states.add_metric([uuid, state], view.state == state)
        if view.sample_age_s is not None:
            age.add_metric([uuid], view.sample_age_s)
    yield from (info, up, states, age)


def reading_families(devices: Iterable[DeviceView]) -> Iterator[Metric]:
    """What the latest samples told; a device that is not ok tells nothing."""
    devices = list(devices)
    for reading in READINGS:
        family = GaugeMetricFamily(reading.name, reading.help, labels=["device"])
        for view in devices:
            value = getattr(view.sample, reading.field, None)
            if value is not None:
                family.add_metric([view.info.uuid], reading.to_base_unit(value))
        yield family
    yield _reasons(devices)
    yield from _powers(devices)


def _reasons(devices: Iterable[DeviceView]) -> Metric:
    family = GaugeMetricFamily(
        "greend_device_clock_event_reason",
        "1 if the reason holds the device's clocks below what they could be, else 0.",
        labels=["device", "reason"],
    )
    for view in devices:
        bits = None if view.sample is None else view.sample.clock_event_reasons
        if bits is not None:
            for bit, reason in CLOCK_EVENT_REASONS.items():
                family.add_metric([view.info.uuid, reason], bool(bits & bit))
    return family


def _powers(devices: Iterable[DeviceView]) -> Iterator[Metric]:
    limit = GaugeMetricFamily(
        "greend_device_power_limit_watts", "Power limit in force.", labels=["device"]
    )
    floor = GaugeMetricFamily(
        "greend_device_floor_watts",
        "Power that the device draws with nobody working on it, by whether a compute context"
        " lives there (with) or not (without).",
        labels=["device", "context"],
    )
    for view in devices:
        if view.power_limit_mw is not None:
            limit.add_metric([view.info.uuid], view.power_limit_mw / 1e3)
        for alive, floor_mw in view.floors_mw.items():
            floor.add_metric([view.info.uuid, "with" if alive else "without"], floor_mw / 1e3)
    yield from (limit, floor)
