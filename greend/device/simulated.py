"""Simulated GPUs behind the Device protocol: physics of greend/sim, no noise."""

import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from greend.errors import InvalidArgument, OutOfRange
from greend.model import NS_PER_S, Capabilities, DeviceInfo, Limits, Sample
from greend.sim.history import FJ_PER_J, UW_PER_W, History, Load
from greend.sim.physics import PROFILES, Profile, power_w
from greend.sim.sensors import EnergyCounter, PowerSensor

SCHEDULE_NS = 600 * NS_PER_S
"""How far ahead a load may be told, and how long ago the truth may be asked for."""
KEPT_NS = SCHEDULE_NS + 60 * NS_PER_S
MAX_DEVICES = 64

_UUID_NAMESPACE = uuid.UUID("51517e00-0000-5000-8000-000067726e64")
_REASON_IDLE = 0x1  # NVML's clock-event reasons (FACTS.md)
_REASON_POWER_CAP = 0x4


@dataclass(frozen=True, slots=True)
class Truth:
    """What a simulated device truly drew, and what it would have drawn unloaded."""

    energy_j: float
    idle_energy_j: float


class SimulatedDevice:
    """One simulated GPU. Any thread may call it.

    Nothing is set on it but its load; its clock is the highest while it works.
    """

    def __init__(self, profile: Profile, index: int, clock: Callable[[], int]) -> None:
        self._profile = profile
        self._clock = clock
        self._info = _describe(profile, index)
        self._lock = threading.Lock()
        self._counter = EnergyCounter(seed=index)
        self._sensor = PowerSensor(seed=index)
        # As if the driver had been loaded a while ago: the counter is not 0
        # when it is first read, and there is a past to ask for.
        idle = Load(0.0, 0.0, round(profile.static_power_w * UW_PER_W))
        self._history = History(clock() - KEPT_NS, idle)

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._info

    def read(self) -> Sample:
        """What the sensors show now; utilization is the activity of this instant."""
        with self._lock:
            now_ns = self._clock()
            self._history.forget_before(now_ns - KEPT_NS)
            energy_mj = self._counter.read_mj(self._history, now_ns)
            power_mw = self._sensor.read_mw(self._history, now_ns)
            load = self._history.load(now_ns)
        profile = self._profile
        busy = load.sm_activity > 0 or load.memory_activity > 0
        return Sample(
            device=self._info.uuid,
            monotonic_ns=now_ns,
            energy_mj=energy_mj,
            power_mw=power_mw,
            sm_clock_mhz=profile.max_sm_clock_mhz if busy else profile.min_sm_clock_mhz,
            memory_clock_mhz=profile.memory_clock_mhz,
            # Rounded up: whatever works is not idle.
            gpu_utilization_percent=math.ceil(100 * load.sm_activity),
            memory_utilization_percent=math.ceil(100 * load.memory_activity),
            temperature_c=round(28 + 45 * power_mw / (1000 * profile.max_power_limit_w)),
            clock_event_reasons=self._reasons(load, busy),
            power_limit_mw=self._info.limits.power_limit_mw,
        )

    def renew(self) -> DeviceInfo:
        """Nothing changes: a simulated GPU has no MIG."""
        return self._info

    def context_alive(self) -> bool:
        """False: no process computes on a simulated GPU."""
        return False

    def set_load(
        self,
        sm_activity: float,
        memory_activity: float,
        power_w: float | None = None,
        start_ns: int | None = None,
    ) -> float:
        """Sets what the device does from `start_ns` (now, unless given) on.

        Takes the place of all that was said for later instants. `power_w`
        replaces the physics. Returns the power drawn under that load. Raises
        InvalidArgument for what no load can be, OutOfRange for a start more
        than 600 s ahead or older than what is kept.
        """
        load = self._load(sm_activity, memory_activity, power_w)
        with self._lock:
            now_ns = self._clock()
            start_ns = now_ns if start_ns is None else start_ns
            if start_ns > now_ns + SCHEDULE_NS:
                raise OutOfRange("start_unix_ns: a load can be told at most 600 s ahead")
            # What the counter shows by now stays, even if the past is told anew.
            self._counter.read_mj(self._history, now_ns)
            self._history.forget_before(now_ns - KEPT_NS)
            self._history.set_load(start_ns, load)
        return load.power_w

    def truth(self, start_ns: int, stop_ns: int | None = None) -> Truth:
        """What the device truly drew from `start_ns` to `stop_ns` (now, unless given).

        Raises InvalidArgument for a stop before its start or more than 600 s
        ahead, OutOfRange for a start more than 600 s ago.
        """
        with self._lock:
            now_ns = self._clock()
            stop_ns = now_ns if stop_ns is None else stop_ns
            if stop_ns < start_ns:
                raise InvalidArgument("stop_unix_ns: lies before start_unix_ns")
            if stop_ns > now_ns + SCHEDULE_NS:
                raise InvalidArgument("stop_unix_ns: lies more than 600 s ahead")
            if start_ns < now_ns - SCHEDULE_NS:
                raise OutOfRange("start_unix_ns: the truth is kept for 600 s")
            energy_fj = self._history.energy_between_fj(start_ns, stop_ns)
        idle_energy_j = self._profile.static_power_w * (stop_ns - start_ns) / NS_PER_S
        return Truth(energy_fj / FJ_PER_J, idle_energy_j)

    def _load(self, sm_activity: float, memory_activity: float, drawn_w: float | None) -> Load:
        for name, activity in (("sm_activity", sm_activity), ("memory_activity", memory_activity)):
            if not 0.0 <= activity <= 1.0:  # NaN is refused as well
                raise InvalidArgument(f"{name}: must be from 0 to 1, is {activity}")
        if drawn_w is None:
            clock_mhz = self._profile.max_sm_clock_mhz
            drawn_w = power_w(self._profile, clock_mhz, sm_activity, memory_activity)
        elif not (math.isfinite(drawn_w) and drawn_w >= 0.0):
            raise InvalidArgument(f"power_w: must be finite and not negative, is {drawn_w}")
        return Load(sm_activity, memory_activity, round(drawn_w * UW_PER_W))

    def _reasons(self, load: Load, busy: bool) -> int:
        if not busy:
            return _REASON_IDLE
        return _REASON_POWER_CAP if load.power_w >= self._profile.max_power_limit_w else 0


class SimulatedDriver:
    """Finds simulated GPUs: `spec` is profile x count, as in "h100x2".

    Raises InvalidArgument for any other spec. `clock` gives monotonic ns.
    """

    def __init__(self, spec: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        profile, count = _parse(spec)
        self._devices = tuple(SimulatedDevice(profile, index, clock) for index in range(count))

    @property
    def devices(self) -> Sequence[SimulatedDevice]:
        """The simulated GPUs, in order of their index."""
        return self._devices

    def now_ns(self) -> int:
        """This instant on the devices' clock."""
        return self._clock()

    def open(self, known: Container[str] = ()) -> tuple[Sequence[SimulatedDevice], Sequence[str]]:
        """The same devices each time, but for those that are known."""
        return [device for device in self._devices if device.info.uuid not in known], []

    def close(self) -> None:
        """Nothing to end."""


def _parse(spec: str) -> tuple[Profile, int]:
    match = re.fullmatch(r"([a-z0-9]+)x([1-9][0-9]?)", spec)
    if match is None or match[1] not in PROFILES or int(match[2]) > MAX_DEVICES:
        raise InvalidArgument(
            f"simulate: {spec!r} is not profile x count as in 'h100x2'; profiles: "
            f"{', '.join(sorted(PROFILES))}; count: 1 to {MAX_DEVICES}"
        )
    return PROFILES[match[1]], int(match[2])


def _describe(profile: Profile, index: int) -> DeviceInfo:
    # Stable over restarts, so that history and floors stay with their device;
    # "51" (SI) lets people tell it from a real one.
    name_based = str(uuid.uuid5(_UUID_NAMESPACE, f"{profile.name}:{index}"))
    max_power_mw = round(profile.max_power_limit_w * 1000)
    return DeviceInfo(
        uuid=f"GPU-51{name_based[2:]}",
        index=index,
        name=profile.name,
        capabilities=Capabilities(
            energy_counter=True,
            power=True,
            utilization=True,
            clocks=True,
            field_values=True,
            clock_limits=True,
            power_limit=True,
        ),
        limits=Limits(
            power_limit_mw=max_power_mw,
            min_power_limit_mw=round(profile.min_power_limit_w * 1000),
            max_power_limit_mw=max_power_mw,
            min_sm_clock_mhz=profile.min_sm_clock_mhz,
            max_sm_clock_mhz=profile.max_sm_clock_mhz,
            min_memory_clock_mhz=profile.memory_clock_mhz,
            max_memory_clock_mhz=profile.memory_clock_mhz,
        ),
        simulated=True,
    )
