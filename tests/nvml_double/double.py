"""The double as a whole: its library, its state file, its GPUs."""

import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.nvml_double.build import build
from tests.nvml_double.gpu import DoubleGpu, named_counts
from tests.nvml_double.layout import FIELDS, FOREVER_NS, FUNCTIONS, LOG_CAPACITY, MAX_GPUS, GpuState
from tests.nvml_double.profiles import PROFILES, Profile
from tests.nvml_double.state_file import StateFile

_NAMESPACE = uuid.UUID("6f1c1f0a-6f3d-4f43-9a0e-6772656e6464")


@dataclass(frozen=True, slots=True)
class SetterCall:
    """A call that set something, or tried to."""

    t_ns: int
    pid: int
    function: str
    gpu: int
    args: tuple[int, ...]
    result: int


class NvmlDouble:
    """A driver with GPUs, for every process that runs with ``environment``.

    Use as a context manager; at its end the state file goes, not the library.
    """

    def __init__(
        self,
        directory: Path,
        profiles: Sequence[str | Profile],
        *,
        omit: Iterable[str] = (),
        breakpoints: int = 200_000,
    ) -> None:
        """Build the library and make a state file in ``directory``.

        ``profiles`` has a GPU each, by name in ``PROFILES`` or as a ``Profile``; ``omit`` names
        functions that the library shall not have; ``breakpoints`` is the room for scripts.
        """
        if not 1 <= len(profiles) <= MAX_GPUS:
            raise ValueError(f"1 to {MAX_GPUS} GPUs")
        self.library: Path | None = build(omit=omit)
        path = directory / "nvml_double.state"
        self._open(StateFile.create(path, len(profiles), breakpoints))
        self._owner = True
        state = self._file.state
        state.driver_version, state.nvml_version = b"570.86.15", b"12.570.86.15"
        state.cuda_version = 12080
        for index, kind in enumerate(profiles):
            profile = PROFILES[kind] if isinstance(kind, str) else kind
            _describe(self.gpus[index], profile)
        state.driver_loaded = 1

    def _open(self, file: StateFile) -> None:
        self._file = file
        self.gpus = [DoubleGpu(file, index) for index in range(file.state.gpu_count)]

    @classmethod
    def attach(cls, path: Path) -> "NvmlDouble":
        """Control a double that another process made, by its state file (``state_path``)."""
        double = cls.__new__(cls)
        double._open(StateFile(path))
        double._owner, double.library = False, None
        return double

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the state file, and remove it if it was made here."""
        self._file.close()
        if self._owner:
            self.state_path.unlink(missing_ok=True)

    @property
    def state_path(self) -> Path:
        """The state file."""
        return self._file.path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process must have from its start on."""
        values = {"NVML_DOUBLE_STATE": str(self.state_path)}
        if self.library is not None:
            others = os.environ.get("LD_LIBRARY_PATH")
            values["LD_LIBRARY_PATH"] = ":".join(filter(None, [str(self.library.parent), others]))
        return values

    @property
    def call_latency_ns(self) -> int:
        """How long every call takes at least; calls of one process wait for each other."""
        return self._file.state.call_latency_ns

    @call_latency_ns.setter
    def call_latency_ns(self, value: int) -> None:
        self._file.state.call_latency_ns = value

    @property
    def driver_loaded(self) -> bool:
        """Whether nvmlInit works; False: it returns DRIVER_NOT_LOADED."""
        return bool(self._file.state.driver_loaded)

    @driver_loaded.setter
    def driver_loaded(self, value: bool) -> None:
        self._file.state.driver_loaded = int(value)

    @property
    def present(self) -> int:
        """How many of the GPUs the driver knows: the first ones; the others are not there."""
        return self._file.state.gpu_count

    @present.setter
    def present(self, value: int) -> None:
        self._file.state.gpu_count = value

    def reload_driver(self) -> None:
        """Reset every energy counter and setting, as a reload of the driver does."""
        for gpu in self.gpus:
            gpu.forget_settings()
            gpu.reset_counter()

    def setter_log(self) -> list[SetterCall]:
        """Return the calls of setters, oldest first (the last 4096; without those going on)."""
        state = self._file.state
        count = state.log_count
        calls = []
        for number in range(max(0, count - LOG_CAPACITY), count):
            entry = state.log[number % LOG_CAPACITY]
            if entry.number == number + 1:
                function = f"nvml{FUNCTIONS[entry.function]}"
                args = tuple(entry.args[: entry.arg_count])
                calls.append(
                    SetterCall(entry.t_ns, entry.pid, function, entry.gpu, args, entry.result)
                )
        return calls

    def call_counts(self) -> Counter[str]:
        """Return how often each function was called so far, in all processes, on all GPUs."""
        counts = named_counts(list(self._file.state.calls))
        for gpu in self.gpus:
            counts += gpu.call_counts()
        return counts


def _describe(gpu: DoubleGpu, profile: Profile) -> None:
    state, index = gpu.state, gpu.index
    state.uuid = f"GPU-{uuid.uuid5(_NAMESPACE, str(index))}".encode()
    state.name = profile.name.encode()
    state.serial = f"13209200{index:05d}".encode()
    state.pci_bus = 0x07 + 8 * index
    state.pci_bus_id = f"00000000:{state.pci_bus:02X}:00.0".encode()
    state.brand, state.architecture = profile.brand, profile.architecture
    state.compute_major, state.compute_minor = profile.compute_capability
    state.memory_total_bytes = profile.memory_gib << 30
    state.compute_slices = profile.compute_slices
    state.temperature_c, state.persistence, state.clock_event_reasons = 34, 1, 0x1
    low_mw, default_mw, high_mw = (round(watts * 1000) for watts in profile.power_limits_w)
    state.power_limit_min_mw, state.power_limit_max_mw = low_mw, high_mw
    state.power_limit_default_mw = state.power_limit_mw = default_mw
    _describe_clocks(state, profile)
    _describe_meters(state, profile)
    for function in profile.unsupported:
        gpu.fail(function)
    for field in FIELDS:
        gpu.set_field_supported(field, field not in profile.unsupported_fields)


def _describe_clocks(state: GpuState, profile: Profile) -> None:
    lowest, highest, step = profile.sm_clocks_mhz
    state.sm_clock_min_mhz, state.sm_clock_max_mhz, state.sm_clock_step_mhz = lowest, highest, step
    state.sm_clock_requested_mhz = highest
    state.memory_clock_count = len(profile.memory_clocks_mhz)
    for number, clock_mhz in enumerate(profile.memory_clocks_mhz):
        state.memory_clocks_mhz[number] = clock_mhz
    state.memory_clock_requested_mhz = profile.memory_clocks_mhz[0]


def _describe_meters(state: GpuState, profile: Profile) -> None:
    state.base_power_uw = round(profile.idle_w * 1e6)
    state.sensor_period_ns = profile.sensor_period_ns
    state.sensor_instant_window_ns = profile.instant_window_ns
    state.sensor_average_window_ns = profile.average_window_ns
    state.sensor_usage_is_average = int(profile.usage_is_average)
    state.counter_supported = int(profile.counter_period_ns is not None)
    state.counter_period_ns = profile.counter_period_ns or 100_000_000
    state.counter_origin_ns = time.monotonic_ns()
    state.counter_offset_mj = 1_000_000_000  # the driver was loaded long ago
    state.counter_stuck_ns = FOREVER_NS
