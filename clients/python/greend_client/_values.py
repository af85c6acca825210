"""What was measured, as frozen values; what is unknown is None, never 0.

Each is made from the message of the same name by ``from_message``. Units are in
the names; instants are nanoseconds since the Unix epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from greend_client._messages import known
from greend_proto.v1 import metering_pb2, types_pb2

_TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")


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
        return cls(**known(message, *cls.__slots__))


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
        built = {"tags", "flags", "devices", "phases", *_TOKENS}
        return cls(
            tags=dict(message.tags),
            flags=tuple(message.flags),
            devices=tuple(message.devices),
            phases=tuple(Phase.from_message(phase) for phase in message.phases),
            **known(message.usage, *_TOKENS),
            **known(message, *(name for name in cls.__slots__ if name not in built)),
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
        return cls(**known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and quantiles in J; all None where no window tells."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def from_message(
        cls, message: metering_pb2.SummarizeWindowsResponse.Statistics
    ) -> "Statistics":
        """Return the value of a message."""
        return cls(**known(message, *cls.__slots__))


@dataclass(frozen=True, slots=True)
class Group:
    """Final windows with the same values of the tags asked for, in one time bucket.

    ``energy_j`` is the sum of their own energy: a window's descendants count for
    themselves. ``uncertainty_j`` is the 95 % bound on its error; None where a window
    does not tell its own, or the idle share is excluded. ``start_unix_ns`` is where the
    bucket begins; None: there are none.
    """

    tags: Mapping[str, str]
    start_unix_ns: int | None
    count: int
    energy_j: float
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    joules_per_request: Statistics
    joules_per_output_token: Statistics
    uncertainty_j: float | None

    @classmethod
    def from_message(cls, message: metering_pb2.SummarizeWindowsResponse.Group) -> "Group":
        """Return the value of a message."""
        return cls(
            tags=dict(message.tags),
            joules_per_request=Statistics.from_message(message.joules_per_request),
            joules_per_output_token=Statistics.from_message(message.joules_per_output_token),
            **known(message.usage, *_TOKENS),
            **known(message, "start_unix_ns", "count", "energy_j", "uncertainty_j"),
        )
