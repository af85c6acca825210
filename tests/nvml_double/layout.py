"""The state file's layout: the only definition of it; the C header is generated from it.

Every number is 8 bytes wide and aligned, so that one store or load is never torn. What must change
together is written between two increments of ``GpuState.sequence`` (odd: being written).
"""

import ctypes
from typing import Annotated, TypeVar

MAGIC = 0x4C424F445F4C4D4E  # "NML_DOBL" in a little-endian dump
VERSION = 2
MAX_GPUS = 16
MAX_PROCESSES = 32
MAX_INSTANCES = 7
MAX_MEMORY_CLOCKS = 8
LOG_CAPACITY = 4096
FOREVER_NS = 2**63 - 1

# The exported functions, in the order of their ids; names without the prefix "nvml".
_FUNCTION_NAMES = """
    Init_v2 InitWithFlags Shutdown ErrorString
    SystemGetDriverVersion SystemGetNVMLVersion SystemGetCudaDriverVersion
    SystemGetCudaDriverVersion_v2 SystemGetProcessName
    DeviceGetCount_v2 DeviceGetHandleByIndex_v2 DeviceGetHandleByUUID DeviceGetHandleByPciBusId_v2
    DeviceGetUUID DeviceGetName DeviceGetIndex DeviceGetMinorNumber DeviceGetSerial DeviceGetBrand
    DeviceGetArchitecture DeviceGetCudaComputeCapability DeviceGetPciInfo_v3
    DeviceGetMemoryInfo DeviceGetMemoryInfo_v2 DeviceGetUtilizationRates
    DeviceGetTemperature DeviceGetTemperatureV DeviceGetClockInfo DeviceGetClock
    DeviceGetMaxClockInfo DeviceGetSupportedMemoryClocks DeviceGetSupportedGraphicsClocks
    DeviceGetPowerUsage DeviceGetTotalEnergyConsumption DeviceGetFieldValues
    DeviceGetPowerManagementMode DeviceGetPowerManagementLimit
    DeviceGetPowerManagementLimitConstraints DeviceGetPowerManagementDefaultLimit
    DeviceGetEnforcedPowerLimit DeviceSetPowerManagementLimit
    DeviceSetGpuLockedClocks DeviceResetGpuLockedClocks
    DeviceSetMemoryLockedClocks DeviceResetMemoryLockedClocks
    DeviceGetCurrentClocksEventReasons DeviceGetCurrentClocksThrottleReasons
    DeviceGetSupportedClocksEventReasons DeviceGetSupportedClocksThrottleReasons
    DeviceGetPersistenceMode DeviceGetPerformanceState
    DeviceGetComputeRunningProcesses_v3 DeviceGetGraphicsRunningProcesses_v3
    DeviceGetMPSComputeRunningProcesses_v3
    DeviceGetMigMode DeviceGetMaxMigDeviceCount DeviceIsMigDeviceHandle
    DeviceGetMigDeviceHandleByIndex DeviceGetDeviceHandleFromMigDeviceHandle
    DeviceGetAttributes_v2 DeviceGetGpuInstanceId DeviceGetComputeInstanceId
    DeviceGetGpuInstanceProfileInfo
    DeviceGetFanSpeed DeviceGetTotalEccErrors
"""
FUNCTIONS = tuple(_FUNCTION_NAMES.split())

# The fields of nvmlDeviceGetFieldValues; a bit each in GpuState.fields, by position here.
FIELDS = (83, 185, 186, 187, 188, 189, 190, 191, 192, 74, 76, 269, 270, 271)
EVENT_FIELDS = (74, 76, 269, 270, 271)  # clock-event counters, ns

U64 = Annotated[int, ctypes.c_uint64]
I64 = Annotated[int, ctypes.c_int64]
Text = Annotated[bytes, ctypes.c_char * 96]
PerFunction = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * len(FUNCTIONS)]

_S = TypeVar("_S", bound=type[ctypes.Structure])


def _structure(cls: _S) -> _S:
    """Take ctypes' list of fields from the annotations, so that names and types stand once."""
    cls._fields_ = [(name, hint.__metadata__[0]) for name, hint in cls.__annotations__.items()]
    return cls


@_structure
class Breakpoint(ctypes.Structure):
    """A corner of the power curve."""

    t_ns: I64
    power_uw: I64
    # Twice the integral of the power from the first breakpoint to here, in uW*ns: the trapezoid
    # without its division, hence an exact integer (128 bits).
    energy2_low: U64
    energy2_high: I64


@_structure
class Step(ctypes.Structure):
    """A step of the utilization."""

    t_ns: I64
    percent: U64


@_structure
class Process(ctypes.Structure):
    """A compute process on a GPU."""

    pid: U64
    memory_bytes: U64


@_structure
class Instance(ctypes.Structure):
    """A MIG instance: a part of a GPU, with a handle of its own."""

    uuid: Text
    name: Text
    present: U64
    gpu_instance_id: U64
    compute_instance_id: U64
    gpu_slices: U64
    compute_slices: U64
    memory_mib: U64


@_structure
class LogEntry(ctypes.Structure):
    """A call of a setter."""

    number: U64  # position in the log + 1, written last; 0: being written
    t_ns: I64
    pid: U64
    function: U64
    gpu: U64
    args: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 2]
    arg_count: U64
    result: U64


@_structure
class GpuState(ctypes.Structure):
    """Everything about one GPU."""

    uuid: Text
    name: Text
    serial: Text
    pci_bus_id: Text
    pci_bus: U64
    brand: U64
    architecture: U64
    compute_major: U64
    compute_minor: U64
    memory_total_bytes: U64
    memory_used_bytes: U64

    power_limit_min_mw: U64
    power_limit_max_mw: U64
    power_limit_default_mw: U64
    power_limit_mw: U64
    enforced_cap_mw: U64  # a cap from elsewhere (thermal, board); 0: none

    sm_clock_min_mhz: U64
    sm_clock_max_mhz: U64
    sm_clock_step_mhz: U64
    sm_clock_requested_mhz: U64
    memory_clock_requested_mhz: U64
    memory_clock_count: U64
    memory_clocks_mhz: Annotated[
        ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * MAX_MEMORY_CLOCKS
    ]  # highest first
    sm_lock: U64  # min << 32 | max, 0: unlocked
    memory_lock: U64

    memory_utilization_percent: U64
    temperature_c: U64
    fan_percent: U64
    persistence: U64
    performance_state: U64
    mig_enabled: U64
    compute_slices: U64  # into which MIG can split it
    instances: Annotated[ctypes.Array[Instance], Instance * MAX_INSTANCES]
    clock_event_reasons: U64
    event_ns: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * len(EVENT_FIELDS)]

    lost: U64
    hang_until_ns: I64
    fields: U64
    faults: PerFunction  # error code << 32 | rate in parts per million
    calls: PerFunction

    sequence: U64
    process_count: U64
    processes: Annotated[ctypes.Array[Process], Process * MAX_PROCESSES]

    base_power_uw: I64  # before the first breakpoint
    breakpoint_count: U64
    breakpoint_offset: U64  # from the start of the file
    base_utilization_percent: U64
    step_count: U64
    step_offset: U64

    sensor_period_ns: I64
    sensor_phase_ns: I64
    sensor_instant_window_ns: I64
    sensor_average_window_ns: I64
    sensor_usage_is_average: U64

    counter_supported: U64
    counter_period_ns: I64
    counter_phase_ns: I64
    counter_jitter_ns: I64
    counter_seed: U64
    counter_sums_sensor: U64
    counter_origin_ns: I64
    counter_offset_mj: I64
    counter_stuck_ns: I64  # no edge after this instant; FOREVER_NS: none
    counter_absurd: U64
    counter_absurd_mj: U64


@_structure
class State(ctypes.Structure):
    """The start of the file; breakpoints and steps follow it."""

    magic: U64
    version: U64
    size: U64
    gpu_count: U64
    capacity: U64  # breakpoints, and steps, for each GPU
    driver_loaded: U64
    driver_version: Text
    nvml_version: Text
    cuda_version: U64
    call_latency_ns: U64
    calls: PerFunction  # of functions that concern no GPU
    log_count: U64
    log: Annotated[ctypes.Array[LogEntry], LogEntry * LOG_CAPACITY]
    gpus: Annotated[ctypes.Array[GpuState], GpuState * MAX_GPUS]


_C_NAMES: dict[type, str] = {
    ctypes.c_uint64: "uint64_t",
    ctypes.c_int64: "int64_t",
    ctypes.c_char: "char",
    Breakpoint: "struct breakpoint",
    Step: "struct step",
    Process: "struct process",
    Instance: "struct instance",
    LogEntry: "struct log_entry",
    GpuState: "struct gpu_state",
    State: "struct state",
}


def c_header() -> str:
    """Return the layout, the functions' ids and the fields as a C header."""
    lines = ["#pragma once", "#include <stdint.h>"]
    constants = {
        "STATE_MAGIC": MAGIC,
        "STATE_VERSION": VERSION,
        "MAX_GPUS": MAX_GPUS,
        "MAX_PROCESSES": MAX_PROCESSES,
        "MAX_INSTANCES": MAX_INSTANCES,
        "MAX_MEMORY_CLOCKS": MAX_MEMORY_CLOCKS,
        "LOG_CAPACITY": LOG_CAPACITY,
        "FIELD_COUNT": len(FIELDS),
        "FIELD_IDS": ", ".join(map(str, FIELDS)),
        "EVENT_FIELD_COUNT": len(EVENT_FIELDS),
        "EVENT_FIELD_IDS": ", ".join(map(str, EVENT_FIELDS)),
    }
    lines += [f"#define {name} {value}" for name, value in constants.items()]
    names = ", ".join(f"F_{name}" for name in FUNCTIONS)
    lines.append(f"enum function {{ {names}, FUNCTION_COUNT }};")
    for structure in (Breakpoint, Step, Process, Instance, LogEntry, GpuState, State):
        lines.append(f"{_C_NAMES[structure]} {{")
        for name, hint in structure.__annotations__.items():
            kind = hint.__metadata__[0]
            is_array = issubclass(kind, ctypes.Array)
            element = kind._type_ if is_array else kind
            suffix = f"[{kind._length_}]" if is_array else ""
            lines.append(f"    {_C_NAMES[element]} {name}{suffix};")
        lines.append("};")
        lines.append(
            f"_Static_assert(sizeof({_C_NAMES[structure]}) == {ctypes.sizeof(structure)},"
            ' "layout differs");'
        )
    return "\n".join(lines) + "\n"
