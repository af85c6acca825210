"""The daemon and its devices as they are now, as frozen values.

As in ``_values``: made from messages, units in the names, unknown is None.
"""

from dataclasses import dataclass

from greend_client._messages import known
from greend_proto.v1 import metering_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A part of a GPU that MIG made: ``compute_slices`` of those of its card.

    ``device`` is the card's UUID. Energy is measured of the card only.
    """

    uuid: str
    name: str | None
    device: str
    compute_slices: int
    gpu_instance_id: int
    compute_instance_id: int

    @classmethod
    def from_message(cls, message: types_pb2.MigInstance, device: str) -> "MigInstance":
        """Return the value of a message; ``device`` is the card's UUID."""
        return cls(
            device=device,
            **known(message, *(name for name in cls.__slots__ if name != "device")),
        )


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as the daemon knows it: ``uuid`` is its key, ``index`` is for people.

    ``state`` is "ok", "lost" or "hung", with ``state_reason`` saying why. The
    floors are its power with nobody working on it, without and with a live
    compute context. ``sample_age_s`` is the time since it was last read. MIG can
    split the card into ``compute_slices``; where it is off, that is None.
    """

    uuid: str
    index: int
    name: str | None
    state: str
    state_reason: str | None
    energy_counter: bool
    floor_w: float | None
    context_floor_w: float | None
    power_limit_w: float | None
    min_sm_clock_mhz: int | None
    max_sm_clock_mhz: int | None
    simulated: bool
    sample_age_s: float | None
    mig_instances: tuple[MigInstance, ...]
    compute_slices: int | None

    @classmethod
    def from_message(cls, message: types_pb2.Device) -> "Device":
        """Return the value of a message."""
        limits = ("power_limit_w", "min_sm_clock_mhz", "max_sm_clock_mhz")
        built = {"energy_counter", "mig_instances", *limits}
        return cls(
            energy_counter=message.capabilities.energy_counter,
            mig_instances=tuple(
                MigInstance.from_message(instance, message.uuid)
                for instance in message.mig_instances
            ),
            **known(message.limits, *limits),
            **known(message, *(name for name in cls.__slots__ if name not in built)),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of a device at one instant.

    ``energy_counter_j`` counts from an origin of the driver's: only differences
    tell. ``clock_event_reasons`` is NVML's bit set of why clocks are held down.
    """

    device: str
    unix_ns: int
    monotonic_ns: int
    energy_counter_j: float | None
    power_w: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    gpu_utilization_percent: int | None
    memory_utilization_percent: int | None
    temperature_c: int | None
    clock_event_reasons: int | None
    power_limit_w: float | None

    @classmethod
    def from_message(cls, message: types_pb2.Sample) -> "Sample":
        """Return the value of a message."""
        return cls(**known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the daemon: ``state`` is "ok" or "failed", then with a ``message``."""

    name: str
    state: str
    message: str | None

    @classmethod
    def from_message(cls, message: metering_pb2.GetStatusResponse.Part) -> "Part":
        """Return the value of a message."""
        return cls(**known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon's health: ``state`` is "serving" or "degraded" (a part is not "ok").

    ``sample_age_s`` is the longest time since a device was last read; ``lost_windows``
    are those that clients gave up before the daemon had them, as told since it started.
    """

    version: str
    state: str
    start_unix_ns: int
    pid: int
    parts: tuple[Part, ...]
    open_windows: int
    devices_ok: int
    devices_total: int
    simulated: bool
    sample_age_s: float | None
    lost_windows: int

    @classmethod
    def from_message(cls, message: metering_pb2.GetStatusResponse) -> "Status":
        """Return the value of a message."""
        return cls(
            parts=tuple(Part.from_message(part) for part in message.parts),
            **known(message, *(name for name in cls.__slots__ if name != "parts")),
        )
