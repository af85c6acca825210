"""What the process that asks the driver says: a line of JSON each, in this order.

Where a line is missing, the driver hung, or the process died, before it.
"""

import msgspec

from greend.model import DeviceInfo


class Library(msgspec.Struct, frozen=True, tag=True):
    """libnvidia-ml was loaded from `path`; or was not, then with the loader's words."""

    path: str = ""
    error: str = ""


class Driver(msgspec.Struct, frozen=True, tag=True):
    """What nvmlInit returned, and what is to be had after a success."""

    result: int
    error: str = ""
    driver_version: str = ""
    nvml_version: str = ""
    gpu_count: int = 0


class Answered(msgspec.Struct, frozen=True, tag=True):
    """A GPU answered: with an error, or with its persistence mode (None: it has none)."""

    index: int
    error: str = ""
    persistence: bool | None = None


class Opened(msgspec.Struct, frozen=True, tag=True):
    """What greend's own driver module found."""

    devices: tuple[DeviceInfo, ...]
    missing: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """greend's own driver module failed."""

    error: str


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """An instant, the energy counter and the power then; None: not told."""

    monotonic_ns: int
    energy_mj: int | None
    power_mw: int | None


class Read(msgspec.Struct, frozen=True, tag=True):
    """What a GPU told within the time asked for; `lost` says why it ended early."""

    index: int
    readings: tuple[Reading, ...]
    lost: str = ""


Answer = Library | Driver | Answered | Opened | Failed | Read
