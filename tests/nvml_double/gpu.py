"""Control of one GPU of the double: what it draws, shows, and does wrong."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.nvml_double.curve import (
    BREAKPOINT,
    STEP,
    UW_NS_PER_MJ,
    Curve,
    Edges,
    StoredCorners,
    pack,
    reading_mw,
)
from tests.nvml_double.layout import (
    EVENT_FIELDS,
    FIELDS,
    FOREVER_NS,
    FUNCTIONS,
    MAX_PROCESSES,
    GpuState,
)
from tests.nvml_double.mig import describe
from tests.nvml_double.state_file import StateFile

NOT_SUPPORTED = 3
# A live change of the power lies this far ahead, so that it is written before it takes effect and
# the counter stays a function of time.
LEAD_NS = 1_000_000


class _Value:
    """A number of the GPU's state that can be read and set at any time."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, gpu: "DoubleGpu", owner: type | None = None) -> int:
        return int(getattr(gpu.state, self._name))

    def __set__(self, gpu: "DoubleGpu", value: int) -> None:
        setattr(gpu.state, self._name, int(value))


class DoubleGpu:
    """One GPU. Instants are ``time.monotonic_ns()``; changes act at once, in every process."""

    sm_clock_requested_mhz = _Value()  # what runs is this, held in the locked range
    memory_clock_requested_mhz = _Value()
    memory_utilization_percent = _Value()
    memory_used_bytes = _Value()
    temperature_c = _Value()
    fan_percent = _Value()
    persistence = _Value()
    performance_state = _Value()
    mig_enabled = _Value()
    clock_event_reasons = _Value()
    power_limit_mw = _Value()
    enforced_cap_mw = _Value()  # the enforced limit is the lower of the two; 0: no cap
    counter_supported = _Value()

    def __init__(self, file: StateFile, index: int) -> None:
        self._file = file
        self.index = index
        self.state: GpuState = file.state.gpus[index]

    @property
    def uuid(self) -> str:
        """The UUID, as the driver tells it."""
        return self.state.uuid.decode()

    # -- power

    def set_power_w(self, watts: float) -> int:
        """Draw this power from now on, forgetting what is scripted; return the exact instant."""
        with self._file.locked():
            t_ns = time.monotonic_ns() + LEAD_NS
            self._follow([(t_ns, watts)])
        return t_ns

    def script_power(self, points: Sequence[tuple[int, float]]) -> None:
        """Draw power along these points (t_ns, W): linear between them, constant after the last.

        Until the first point everything stays as it was; two points at one instant are a jump.
        Raises ``ValueError`` if they are out of order or too many.
        """
        with self._file.locked():
            self._follow(points)

    def script_pulses(
        self, pulses: Iterable[tuple[int, int, float]], *, base_w: float, ramp_ns: int = 0
    ) -> None:
        """Draw ``base_w``, and in each pulse (start_ns, stop_ns, W) that power.

        The power rises within ``ramp_ns`` after the start and falls within ``ramp_ns`` after the
        stop; pulses must not overlap, ramps included.
        """
        points: list[tuple[int, float]] = []
        for start_ns, stop_ns, watts in pulses:
            points += [(start_ns, base_w), (start_ns + ramp_ns, watts)]
            points += [(stop_ns, watts), (stop_ns + ramp_ns, base_w)]
        self.script_power(points)

    def _follow(self, points: Sequence[tuple[int, float]]) -> None:
        micro = [(t_ns, round(watts * 1e6)) for t_ns, watts in points]
        if any(power_uw < 0 for _, power_uw in micro):
            raise ValueError("power must not be negative")
        keep, added = self._curve().continued(micro)
        self._check_room(keep + len(added))
        data = pack(added)
        at = self.state.breakpoint_offset + keep * BREAKPOINT.size
        with self._file.writing(self.state):
            self._file.memory[at : at + len(data)] = data
            self.state.breakpoint_count = keep + len(added)

    def _check_room(self, count: int) -> None:
        if count > self._file.state.capacity:
            raise ValueError(f"{count} breakpoints, room for {self._file.state.capacity}")

    def _curve(self) -> Curve:
        state = self.state
        corners = StoredCorners(self._file.memory, state.breakpoint_offset, state.breakpoint_count)
        return Curve(corners, state.base_power_uw)

    def power_w(self, t_ns: int) -> float:
        """Return the true power at an instant, W."""
        with self._file.locked():
            return self._curve().power_uw(t_ns) / 1e6

    def true_energy_j(self, start_ns: int, stop_ns: int) -> float:
        """Return the true energy of an interval, J."""
        with self._file.locked():
            curve = self._curve()
            return (curve.energy2(stop_ns) - curve.energy2(start_ns)) / 2e15

    # -- sensor

    def set_sensor(
        self,
        *,
        period_ns: int | None = None,
        phase_ns: int | None = None,
        instant_window_ns: int | None = None,
        average_window_ns: int | None = None,
        usage_is_average: bool | None = None,
    ) -> None:
        """Change how the power sensor updates and averages; what is not given stays."""
        if period_ns is not None and period_ns <= 0:
            raise ValueError("the period must be positive")
        self._update(
            sensor_period_ns=period_ns,
            sensor_phase_ns=phase_ns,
            sensor_instant_window_ns=instant_window_ns,
            sensor_average_window_ns=average_window_ns,
            sensor_usage_is_average=usage_is_average,
        )

    def power_reading_mw(self, t_ns: int, *, average: bool = False) -> int:
        """Return what the power sensor shows at an instant, mW (fields 186 and 185)."""
        with self._file.locked():
            state = self.state
            window = state.sensor_average_window_ns if average else state.sensor_instant_window_ns
            return reading_mw(self._curve(), self._sensor_edges().last_ns(t_ns), window)

    def _sensor_edges(self) -> Edges:
        return Edges(self.state.sensor_period_ns, self.state.sensor_phase_ns, 0, 0)

    # -- energy counter

    def set_counter(
        self,
        *,
        period_ns: int | None = None,
        phase_ns: int | None = None,
        jitter_ns: int | None = None,
        seed: int | None = None,
        sums_sensor: bool | None = None,
        origin_ns: int | None = None,
        offset_mj: int | None = None,
    ) -> None:
        """Change when the counter advances and what it counts; what is not given stays.

        At an edge it shows ``offset_mj`` plus the energy from ``origin_ns`` to the edge, the true
        one or (``sums_sensor``) the sum of the instant sensor's readings. Set before reading: the
        edges of the past move too.
        """
        period = period_ns or self.state.counter_period_ns
        jitter = self.state.counter_jitter_ns if jitter_ns is None else jitter_ns
        if period <= 0 or not 0 <= 2 * jitter < period:
            raise ValueError("the period must be positive, jitter less than half of it")
        self._update(
            counter_period_ns=period_ns,
            counter_phase_ns=phase_ns,
            counter_jitter_ns=jitter_ns,
            counter_seed=seed,
            counter_sums_sensor=sums_sensor,
            counter_origin_ns=origin_ns,
            counter_offset_mj=offset_mj,
        )

    def counter_mj(self, t_ns: int) -> int:
        """Return what the energy counter shows at an instant, mJ."""
        with self._file.locked():
            state = self.state
            if state.counter_absurd:
                return state.counter_absurd_mj
            edge_ns = self._counter_edges().last_ns(min(t_ns, state.counter_stuck_ns))
            if edge_ns <= state.counter_origin_ns:
                return max(0, state.counter_offset_mj)
            energy2 = self._counted_energy2(state.counter_origin_ns, edge_ns)
            return max(0, state.counter_offset_mj + energy2 // (2 * UW_NS_PER_MJ))

    def _counted_energy2(self, origin_ns: int, edge_ns: int) -> int:
        curve, state = self._curve(), self.state
        if not state.counter_sums_sensor:
            return curve.energy2(edge_ns) - curve.energy2(origin_ns)
        edges = self._sensor_edges().between(origin_ns + 1, edge_ns + 1)
        readings = sum(reading_mw(curve, t, state.sensor_instant_window_ns) for t in edges)
        return 2 * 1000 * readings * state.sensor_period_ns

    def counter_edges_ns(self, start_ns: int, stop_ns: int) -> list[int]:
        """Return the instants in [start, stop) at which the counter advances."""
        return self._counter_edges().between(start_ns, stop_ns)

    def _counter_edges(self) -> Edges:
        state = self.state
        return Edges(
            state.counter_period_ns,
            state.counter_phase_ns,
            state.counter_jitter_ns,
            state.counter_seed,
        )

    def reset_counter(self) -> None:
        """Let the counter start at 0 now, as after a reload of the driver; heals its faults."""
        now_ns = time.monotonic_ns()
        self._update(
            counter_origin_ns=now_ns,
            counter_offset_mj=0,
            counter_stuck_ns=FOREVER_NS,
            counter_absurd=0,
        )

    def stick_counter(self) -> None:
        """Let the counter show its present value from now on."""
        self._update(counter_stuck_ns=time.monotonic_ns())

    def unstick_counter(self) -> None:
        """Let the counter go on; it then shows all the energy meanwhile at once."""
        self._update(counter_stuck_ns=FOREVER_NS)

    def jump_counter(self, delta_mj: int) -> None:
        """Add to the counter, now; a negative jump is the fault. It never shows less than 0."""
        self._update(counter_offset_mj=self.state.counter_offset_mj + delta_mj)

    def set_absurd_counter(self, value_mj: int | None) -> None:
        """Let the counter show this value whatever happens; None: the right one again."""
        self._update(counter_absurd_mj=value_mj or 0, counter_absurd=value_mj is not None)

    # -- load, clocks, processes

    def set_utilization(self, percent: int, memory_percent: int | None = None) -> None:
        """Show this SM utilization from now on, forgetting what is scripted."""
        self.script_utilization([(time.monotonic_ns(), percent)])
        if memory_percent is not None:
            self.memory_utilization_percent = memory_percent

    def script_utilization(self, steps: Sequence[tuple[int, int]]) -> None:
        """Show an SM utilization (t_ns, percent) from each instant on; as it was before them."""
        times = [t_ns for t_ns, _ in steps]
        if times != sorted(times):
            raise ValueError("steps out of order")
        data = b"".join(STEP.pack(t_ns, percent) for t_ns, percent in steps)
        with self._file.locked():
            keep = self.state.step_count
            while keep and self._step_ns(keep - 1) >= times[0]:
                keep -= 1
            self._check_room(keep + len(steps))
            at = self.state.step_offset + keep * STEP.size
            with self._file.writing(self.state):
                self._file.memory[at : at + len(data)] = data
                self.state.step_count = keep + len(steps)

    def _step_ns(self, number: int) -> int:
        at = self.state.step_offset + number * STEP.size
        return int(STEP.unpack_from(self._file.memory, at)[0])

    def set_processes(self, processes: Sequence[tuple[int, int]]) -> None:
        """Let these compute processes (pid, bytes of GPU memory) run, and no others."""
        if len(processes) > MAX_PROCESSES:
            raise ValueError(f"at most {MAX_PROCESSES} processes")
        with self._file.writing(self.state):
            for entry, (pid, memory_bytes) in zip(self.state.processes, processes, strict=False):
                entry.pid, entry.memory_bytes = pid, memory_bytes
            self.state.process_count = len(processes)

    def set_instances(self, profiles: Sequence[str]) -> list[str]:
        """Split the card into these MIG instances ("3g.40gb"), and no others; return their UUIDs.

        MIG mode has to be on; raises ``ValueError`` for more slices than the card has.
        """
        if not self.mig_enabled:
            raise ValueError("MIG mode is off")
        with self._file.writing(self.state):
            return describe(self.state, profiles)

    def set_event_ns(self, field: int, value_ns: int) -> None:
        """Set a clock-event counter (field 74, 76, 269, 270 or 271), ns."""
        self.state.event_ns[EVENT_FIELDS.index(field)] = value_ns

    @property
    def sm_lock_mhz(self) -> tuple[int, int] | None:
        """The locked range of SM clocks (min, max), None: not locked."""
        return _range(self.state.sm_lock)

    @property
    def memory_lock_mhz(self) -> tuple[int, int] | None:
        """The locked range of memory clocks (min, max), None: not locked."""
        return _range(self.state.memory_lock)

    def forget_settings(self) -> None:
        """Unlock the clocks and restore the default power limit, as a reload of the driver does."""
        self.state.sm_lock = self.state.memory_lock = 0
        self.state.power_limit_mw = self.state.power_limit_default_mw

    # -- faults

    def lose(self) -> None:
        """Let every call on this GPU fail with GPU_IS_LOST."""
        self.state.lost = 1

    def restore(self) -> None:
        """Undo ``lose``."""
        self.state.lost = 0

    def hang(self, seconds: float | None = None) -> None:
        """Let calls on this GPU block for so long, or (None) until ``unhang``."""
        until_ns = FOREVER_NS if seconds is None else time.monotonic_ns() + round(seconds * 1e9)
        self.state.hang_until_ns = until_ns

    def unhang(self) -> None:
        """Let blocked calls go on, within milliseconds."""
        self.state.hang_until_ns = 0

    def fail(self, function: str, error: int = NOT_SUPPORTED, rate: float = 1.0) -> None:
        """Let a function ("nvmlDeviceGetFanSpeed") fail, always or at this rate; 0: never."""
        self.state.faults[_function_id(function)] = error << 32 | round(rate * 1e6)

    def set_field_supported(self, field: int, supported: bool) -> None:
        """Let nvmlDeviceGetFieldValues answer a field, or call it NOT_SUPPORTED."""
        bit = 1 << FIELDS.index(field)
        self.state.fields = self.state.fields | bit if supported else self.state.fields & ~bit

    def call_counts(self) -> Counter[str]:
        """Return how often each function was called on this GPU so far, in all processes."""
        return named_counts(list(self.state.calls))

    def _update(self, **values: int | None) -> None:
        with self._file.writing(self.state):
            for name, value in values.items():
                if value is not None:
                    setattr(self.state, name, int(value))


def named_counts(calls: Sequence[int]) -> Counter[str]:
    """Return counts by function name, without those never called."""
    return +Counter({f"nvml{name}": count for name, count in zip(FUNCTIONS, calls, strict=True)})


def _function_id(name: str) -> int:
    return FUNCTIONS.index(name.removeprefix("nvml"))


def _range(lock: int) -> tuple[int, int] | None:
    return (lock >> 32, lock & 0xFFFFFFFF) if lock else None
