"""What the client returns: frozen values; what is unknown is None, never 0.

Each is made from the message of the same name by ``from_message``. Units are in
the names; instants are nanoseconds since the Unix epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from greend_proto.v1 import metering_pb2, types_pb2


def _known(message: Message, *names: str) -> dict[str, Any]:
    """Return the fields named, by name; absent ones and empty strings are None."""
    fields = message.DESCRIPTOR.fields_by_name
    return {
        name: None
        if fields[name].has_presence and not message.HasField(name)
        else (value if (value := getattr(message, name)) != "" else None)
        for name in names
    }


@dataclass(frozen=True, slots=True)
class Phase:
    """A named part of a window."""

    name: str
    start_unix_ns: int
    stop_unix_ns: int | None
    energy_j: float | None
    idle_energy_j: float | None
    active_energy_j: float | None
    uncertainty_j: float | None

    @classmethod
    def from_message(cls, message: types_pb2.Phase) -> "Phase":
        """Return the value of a message."""
        return cls(**_known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class WindowResult:
    """A window as the daemon knows it.

    ``state`` is "open", "stopped" (ended, energy not final) or "final" (never
    changes again). ``energy_j`` is ``idle_energy_j`` (its share of the floor)
    plus ``active_energy_j``, its descendants' included; ``device_energy_j`` is
    all that its devices used meanwhile, unshared. ``uncertainty_j`` is a 95 %
    bound on the error of placing and splitting, not of the sensor.
    ``devices`` are UUIDs. ``flags`` say what to know of the figures.
    """

    window_id: str
    request_id: str | None
    tags: Mapping[str, str]
    state: str
    energy_j: float | None
    active_energy_j: float | None
    idle_energy_j: float | None
    device_energy_j: float | None
    uncertainty_j: float | None
    duration_s: float | None
    ttft_s: float | None
    joules_per_output_token: float | None
    avg_power_w: float | None
    sm_clock_mhz: float | None
    source: str | None
    flags: tuple[str, ...]
    devices: tuple[str, ...]
    phases: tuple[Phase, ...]
    start_unix_ns: int
    stop_unix_ns: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    weight: float
    parent_id: str | None

    @classmethod
    def from_message(cls, message: types_pb2.Window) -> "WindowResult":
        """Return the value of a message."""
        usage = ("prompt_tokens", "cached_tokens", "output_tokens")
        built = {"tags", "flags", "devices", "phases", *usage}
        return cls(
            tags=dict(message.tags),
            flags=tuple(message.flags),
            devices=tuple(message.devices),
            phases=tuple(Phase.from_message(phase) for phase in message.phases),
            **_known(message.usage, *usage),
            **_known(message, *(name for name in cls.__slots__ if name not in built)),
        )


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One device's account of an interval.

    ``windows_j + idle_j + unattributed_j + gap_j = measured_j``; ``unknown_s``
    is time whose energy was never counted.
    """

    device: str
    start_unix_ns: int
    stop_unix_ns: int
    measured_j: float
    windows_j: float
    idle_j: float
    unattributed_j: float
    gap_j: float
    unknown_s: float

    @classmethod
    def from_message(cls, message: types_pb2.LedgerRow) -> "LedgerRow":
        """Return the value of a message."""
        return cls(**_known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as the daemon knows it: ``uuid`` is its key, ``index`` is for people.

    ``state`` is "ok", "lost" or "hung", with ``state_reason`` saying why. The
    floors are its power with nobody working on it, without and with a live
    compute context.
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

    @classmethod
    def from_message(cls, message: types_pb2.Device) -> "Device":
        """Return the value of a message."""
        limits = ("power_limit_w", "min_sm_clock_mhz", "max_sm_clock_mhz")
        built = {"energy_counter", *limits}
        return cls(
            energy_counter=message.capabilities.energy_counter,
            **_known(message.limits, *limits),
            **_known(message, *(name for name in cls.__slots__ if name not in built)),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the daemon: ``state`` is "ok" or "failed", then with a ``message``."""

    name: str
    state: str
    message: str | None

    @classmethod
    def from_message(cls, message: metering_pb2.GetStatusResponse.Part) -> "Part":
        """Return the value of a message."""
        return cls(**_known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon's health: ``state`` is "serving" or "degraded" (a part is not "ok")."""

    version: str
    state: str
    start_unix_ns: int
    pid: int
    parts: tuple[Part, ...]
    open_windows: int
    devices_ok: int
    devices_total: int
    simulated: bool

    @classmethod
    def from_message(cls, message: metering_pb2.GetStatusResponse) -> "Status":
        """Return the value of a message."""
        return cls(
            parts=tuple(Part.from_message(part) for part in message.parts),
            **_known(message, *(name for name in cls.__slots__ if name != "parts")),
        )
