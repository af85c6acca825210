"""Domain values: frozen, in the device's own integer units (mJ, mW, ns).

Instants are CLOCK_MONOTONIC nanoseconds unless a name says `unix`. An unknown
is None, never 0. A device is named by its UUID.

What every window has several of is a `msgspec.Struct`: as frozen as a dataclass, made and
replaced in a tenth of the time, and of no concern to the garbage collector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import hypot

import msgspec

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Source(StrEnum):
    """What an energy figure rests on."""

    ENERGY_COUNTER = "energy_counter"
    POWER = "power"
    MIXED = "mixed"


class Flag(StrEnum):
    """What to know of a window's figures (DESIGN.md, rule 10)."""

    SHORT = "short"
    GAP = "gap"
    COUNTER_RESET = "counter_reset"
    LATE = "late"
    RECOVERED = "recovered"
    ABANDONED = "abandoned"
    PARTIAL = "partial"
    FLOOR_UNKNOWN = "floor_unknown"
    SHARED_WITH_UNTRACKED = "shared_with_untracked"
    POWER_INTEGRATED = "power_integrated"
    SIMULATED = "simulated"
    MIG = "mig"


class WindowState(StrEnum):
    """Where a window is in its life."""

    OPEN = "open"
    STOPPED = "stopped"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can tell and do; probed once."""

    energy_counter: bool
    power: bool
    utilization: bool
    clocks: bool
    field_values: bool
    energy_scope: str = "gpu"
    mig: bool = False
    clock_limits: bool = False
    power_limit: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in force, and the ranges in which limits can be set."""

    power_limit_mw: int | None = None
    min_power_limit_mw: int | None = None
    max_power_limit_mw: int | None = None
    min_sm_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    min_memory_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A part of a card that MIG made: `compute_slices` of the card's."""

    uuid: str
    name: str
    compute_slices: int
    gpu_instance_id: int
    compute_instance_id: int


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as found when it was opened; its MIG instances come and go.

    `compute_slices` is into how many MIG can split the card; None where MIG is off.
    """

    uuid: str
    index: int
    name: str
    capabilities: Capabilities
    limits: Limits
    simulated: bool = False
    instances: tuple[MigInstance, ...] = ()
    compute_slices: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of a device at one instant.

    `monotonic_ns` is the middle of the driver call that read the energy (or,
    without a counter, the power), and `call_ns` how long that took.
    """

    device: str
    monotonic_ns: int
    energy_mj: int | None = None
    power_mw: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    gpu_utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    temperature_c: int | None = None
    clock_event_reasons: int | None = None
    power_limit_mw: int | None = None
    call_ns: int = 0


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What a request did."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    first_token_unix_ns: int | None = None


class PhaseShare(msgspec.Struct, frozen=True, gc=False):
    """What one device gave to one phase of a window, in mJ; the bounds as in `Share`."""

    name: str
    start_ns: int
    idle_mj: float
    active_mj: float
    correlated_mj: float = 0.0
    independent_mj: float = 0.0


class Share(msgspec.Struct, frozen=True, gc=False):
    """What one device gave to one window, in mJ; without its descendants' part.

    `idle_mj` and `active_mj` sum to the window's own energy. `floor_known` is
    False when no floor was known: then the split is meaningless and only the
    sum is told. `clock_mhz_ns` is the integral of the SM clock over
    `clock_ns`, the time in which it was known. `correlated_mj` and `independent_mj`
    are 95 % bounds on its error: by what is wrong for all windows of the device alike
    (floor, background), and by the rest. `phases` are in order of time and sum to it; the
    first is the time before any was named (name ""), if there was some.
    """

    idle_mj: float
    active_mj: float
    device_mj: float
    floor_known: bool = True
    clock_mhz_ns: float = 0.0
    clock_ns: float = 0.0
    source: Source | None = None
    flags: frozenset[Flag] = frozenset()
    correlated_mj: float = 0.0
    independent_mj: float = 0.0
    phases: tuple[PhaseShare, ...] = ()

    @property
    def own_mj(self) -> float:
        """The window's own energy on the device."""
        return self.idle_mj + self.active_mj


class Bound(msgspec.Struct, frozen=True, gc=False):
    """A 95 % bound on the error of an energy, in mJ (DESIGN.md, rule 10).

    In sums, errors that are wrong for all alike add up, independent ones in quadrature.
    """

    correlated_mj: float = 0.0
    independent_mj: float = 0.0

    @property
    def total_mj(self) -> float:
        """Both parts together."""
        return self.correlated_mj + self.independent_mj

    def plus(self, other: "Bound | Share | PhaseShare") -> "Bound":
        """The bound on the sum of two energies."""
        return Bound(
            self.correlated_mj + other.correlated_mj,
            hypot(self.independent_mj, other.independent_mj),
        )


class Phase(msgspec.Struct, frozen=True, gc=False):
    """A named part of a window; instants are Unix ns, energies in mJ and own only.

    `stop_unix_ns` is None while it lasts; energies are None where no step of it was
    measured.
    """

    name: str
    start_unix_ns: int
    stop_unix_ns: int | None
    idle_mj: float | None = None
    active_mj: float | None = None
    bound: Bound = Bound()


class Window(msgspec.Struct, frozen=True, gc=False):
    """A tagged interval on one or more devices, as kept; instants are Unix ns.

    `devices` are named as they were at the start; `cards` are those whose MIG instances are
    among them. `shares` holds what is known so far, by device; it is complete when the
    state is FINAL. `phases` are in order of time and sum to its own energy; the first
    has no name where the window began before any phase. `bound` is on its own energy;
    None where nothing tells. `start_ns` is its start on CLOCK_MONOTONIC, `parts` which part
    of each card it runs on, where that is not all of it.
    """

    window_id: str
    request_id: str
    tags: Mapping[str, str]
    devices: tuple[str, ...]
    start_unix_ns: int
    weight: float = 1.0
    parent_id: str = ""
    cards: tuple[str, ...] = ()
    # SHA-256 of the session's secret; empty without one.
    token_digest: bytes = b""
    start_ns: int | None = None
    parts: Mapping[str, float] | None = None
    stop_unix_ns: int | None = None
    state: WindowState = WindowState.OPEN
    usage: Usage = Usage()
    shares: Mapping[str, Share] = msgspec.field(default_factory=dict)
    flags: frozenset[Flag] = frozenset()
    iteration_driven: bool = False
    phases: tuple[Phase, ...] = ()
    bound: Bound | None = None
    # What its descendants got on all their devices, in mJ.
    descendants_idle_mj: float = 0.0
    descendants_active_mj: float = 0.0
    descendants_bound: Bound = Bound()


class OwnEnergy(msgspec.Struct, frozen=True, gc=False):
    """What a window got itself, without its descendants, in mJ; `active_mj` needs a floor."""

    total_mj: float
    active_mj: float | None


def own_energy_mj(window: Window) -> OwnEnergy | None:
    """A window's own energy; None if no step of it was measured."""
    measured = [share for share in window.shares.values() if share.source is not None]
    if not measured:
        return None
    split = all(share.floor_known for share in measured)
    return OwnEnergy(
        sum(share.own_mj for share in measured),
        sum(share.active_mj for share in measured) if split else None,
    )


class Booking(msgspec.Struct, frozen=True, gc=False):
    """Joules of one device and minute, in mJ; added to what is already kept.

    windows + idle + unattributed + gap = measured (DESIGN.md, rule 1).
    `measured_mj` is taken from the sensor, the others from shaping.
    """

    device: str
    minute_unix_s: int
    measured_mj: float = 0.0
    windows_mj: float = 0.0
    idle_mj: float = 0.0
    unattributed_mj: float = 0.0
    gap_mj: float = 0.0
    unknown_ns: float = 0.0

    def plus(self, **amounts: float) -> "Booking":
        """The sum with these amounts."""
        return msgspec.structs.replace(
            self, **{name: getattr(self, name) + amount for name, amount in amounts.items()}
        )


# What is booked, apart from where.
AMOUNTS = tuple(name for name in Booking.__struct_fields__ if name.endswith(("_mj", "_ns")))


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What is remembered of a device from run to run."""

    uuid: str
    name: str
    last_seen_unix_ns: int
    floor_mw: float | None = None
    context_floor_mw: float | None = None

    def floors_mw(self) -> dict[bool, float]:
        """The floors that are known, by whether a compute context lives."""
        floors = {False: self.floor_mw, True: self.context_floor_mw}
        return {context: floor for context, floor in floors.items() if floor is not None}
