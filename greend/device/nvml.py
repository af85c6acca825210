"""NVIDIA GPUs through NVML; the only importer of pynvml.

Function and field numbers are NVML's (nvml.h). Support is probed by calling, never
inferred from the architecture (FACTS.md).
"""

import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pynvml

from greend.device.protocol import DeviceLostError, DriverError
from greend.model import NS_PER_S, Capabilities, DeviceInfo, Limits, MigInstance, Sample

log = logging.getLogger(__name__)

# Clocks, temperature and limits change slowly: once a second is enough.
SLOW_READ_NS = NS_PER_S

# Probed once: a function that the GPU or the driver lacks.
_ABSENT = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
)
_LOST = (
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_RESET_REQUIRED,
)

# Of a card whose driver does not tell.
USUAL_SLICES = 7

# From a call that has worked before: the handle is no GPU's any more.
_GONE = (*_LOST, pynvml.NVML_ERROR_INVALID_ARGUMENT)

# Energy and power come as one of these.
_MEMBERS = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
}

Read = Callable[[], Any]


@dataclass(slots=True)
class _Slow:
    """What changes slowly, and when it was read."""

    read_ns: int = 0
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    clock_event_reasons: int | None = None
    power_limit_mw: int | None = None


class NvmlDevice:
    """One GPU. Its worker's thread alone calls it."""

    def __init__(self, handle: Any, index: int) -> None:
        self._handle = handle
        self._slow = _Slow()
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        self._fields = self._probe_fields()
        self._energy = self._probe(pynvml.nvmlDeviceGetTotalEnergyConsumption)
        self._power = self._probe(pynvml.nvmlDeviceGetPowerUsage)
        self._utilization = self._probe(pynvml.nvmlDeviceGetUtilizationRates)
        self._sm_clock = self._probe(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
        self._memory_clock = self._probe(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM)
        self._temperature = self._probe(
            pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU
        )
        self._reasons = self._probe(
            getattr(
                pynvml,
                "nvmlDeviceGetCurrentClocksEventReasons",
                pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
            )
        )
        self._limit = self._probe(pynvml.nvmlDeviceGetEnforcedPowerLimit)
        self._contexts = self._probe(pynvml.nvmlDeviceGetComputeRunningProcesses)
        self._mig_mode = self._probe(pynvml.nvmlDeviceGetMigMode)
        self.info = DeviceInfo(
            uuid=uuid,
            index=index,
            name=name,
            capabilities=Capabilities(
                energy_counter=self._energy is not None,
                power=self._power is not None or len(self._fields) == 2,
                utilization=self._utilization is not None,
                clocks=self._sm_clock is not None,
                field_values=bool(self._fields),
                # GH200's counter may cover the whole module (FACTS.md).
                energy_scope="module" if "GH200" in name else "gpu",
                clock_limits=self._supported_clocks() is not None,
                power_limit=self._power_limits() is not None,
            ),
            limits=self._limits(),
        )
        self.renew()

    # Reading

    def read(self) -> Sample:
        """See Device.read; takes three driver calls, four more once a second."""
        started_ns = time.monotonic_ns()
        energy_mj, power_mw = self._energy_and_power()
        call_ns = time.monotonic_ns() - started_ns
        now_ns = started_ns + call_ns // 2
        utilization = self._ask(self._utilization)
        sm_clock_mhz = self._ask(self._sm_clock)
        slow = self._slow
        if now_ns - slow.read_ns >= SLOW_READ_NS:
            slow.read_ns = now_ns
            slow.memory_clock_mhz = self._ask(self._memory_clock)
            slow.temperature_c = self._ask(self._temperature)
            slow.clock_event_reasons = self._ask(self._reasons)
            slow.power_limit_mw = self._ask(self._limit)
        return Sample(
            self.info.uuid,
            now_ns,
            energy_mj,
            power_mw,
            sm_clock_mhz,
            slow.memory_clock_mhz,
            None if utilization is None else utilization.gpu,
            None if utilization is None else utilization.memory,
            slow.temperature_c,
            slow.clock_event_reasons,
            slow.power_limit_mw,
            call_ns,
        )

    def renew(self) -> DeviceInfo:
        """See Device.renew; without MIG it takes one driver call."""
        mode = self._ask(self._mig_mode)
        mig = bool(mode and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
        able = self.info.capabilities
        if mig != able.mig:  # only without MIG is utilization told
            self._utilization = self._probe(pynvml.nvmlDeviceGetUtilizationRates)
            able = replace(able, mig=mig, utilization=self._utilization is not None)
        self.info = replace(
            self.info,
            capabilities=able,
            instances=self._instances() if mig else (),
            compute_slices=self._compute_slices() if mig else None,
        )
        return self.info

    def context_alive(self) -> bool | None:
        """See Device.context_alive."""
        processes = self._ask(self._contexts)
        return None if processes is None else bool(processes)

    def _energy_and_power(self) -> tuple[int | None, int | None]:
        if not self._fields:
            return self._ask(self._energy, _GONE), self._ask(self._power, _GONE)
        values = self._ask(self._read_fields, _GONE)
        if values is None:
            return None, None
        told = [
            None if value.nvmlReturn else int(getattr(value.value, member))
            for value, member in zip(values, self._fields.values(), strict=True)
        ]
        return told[0], told[1] if len(told) == 2 else self._ask(self._power)

    # Probing

    def _probe(self, function: Callable[..., Any], *arguments: Any) -> Read | None:
        """The call bound to this GPU, or None if GPU or driver lack it."""
        read = partial(function, self._handle, *arguments)
        try:
            read()
        except pynvml.NVMLError as error:
            _raise_if_lost(error)
            if error.value in _ABSENT:
                return None
            # Failed this time: not a reason to give the function up.
            log.warning("%s failed while probing: %s", function.__name__, error)
        return read

    def _ask(self, read: Read | None, lost: Container[int] = _LOST) -> Any:
        if read is None:
            return None
        try:
            return read()
        except pynvml.NVMLError as error:
            _raise_if_lost(error, lost)
            return None

    def _probe_fields(self) -> dict[int, str]:
        """What one call reads, energy first, and the member in which each value comes.

        Nothing if it does not read energy; instant power where there is such a field.
        """
        wanted = [pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, pynvml.NVML_FI_DEV_POWER_INSTANT]
        answered = {
            value.fieldId: _MEMBERS[value.valueType]
            for value in self._ask(self._reading(wanted)) or ()
            if value.nvmlReturn == pynvml.NVML_SUCCESS
        }
        fields = {field: answered[field] for field in wanted if field in answered}
        self._read_fields = self._reading(fields)
        return fields if pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION in fields else {}

    def _reading(self, fields: Iterable[int]) -> Read:
        # With their scope, which is 0: pynvml finds by an exception that it is not given.
        scoped = [(field, 0) for field in fields]
        return partial(pynvml.nvmlDeviceGetFieldValues, self._handle, scoped)

    def _instances(self) -> tuple[MigInstance, ...]:
        """The MIG instances; numbers may be free between those that are taken."""
        count = self._ask(partial(pynvml.nvmlDeviceGetMaxMigDeviceCount, self._handle)) or 0
        found = [self._ask(partial(_instance, self._handle, number)) for number in range(count)]
        return tuple(instance for instance in found if instance is not None)

    def _compute_slices(self) -> int:
        """Into how many slices MIG can split the card: those of its largest instance."""
        ask = partial(pynvml.nvmlDeviceGetGpuInstanceProfileInfo, self._handle, version=1)
        numbers = range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT)
        profiles = [self._ask(partial(ask, number)) for number in numbers]
        return max((info.sliceCount for info in profiles if info), default=USUAL_SLICES)

    def _supported_clocks(self) -> list[int] | None:
        memory = self._ask(lambda: pynvml.nvmlDeviceGetSupportedMemoryClocks(self._handle))
        return memory or None

    def _power_limits(self) -> tuple[int, int] | None:
        limits = self._ask(
            lambda: pynvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)
        )
        return None if limits is None else (limits[0], limits[1])

    def _limits(self) -> Limits:
        memory = self._supported_clocks() or []
        sm: list[int] = []
        if memory:
            highest = max(memory)
            sm = (
                self._ask(
                    lambda: pynvml.nvmlDeviceGetSupportedGraphicsClocks(self._handle, highest)
                )
                or []
            )
        power = self._power_limits()
        return Limits(
            power_limit_mw=self._ask(self._limit),
            min_power_limit_mw=power[0] if power else None,
            max_power_limit_mw=power[1] if power else None,
            min_sm_clock_mhz=min(sm, default=None),
            max_sm_clock_mhz=max(sm, default=None),
            min_memory_clock_mhz=min(memory, default=None),
            max_memory_clock_mhz=max(memory, default=None),
        )


class NvmlDriver:
    """The NVIDIA driver of this host."""

    def __init__(self) -> None:
        self._initialised = False

    def open(self, known: Container[str] = ()) -> tuple[Sequence[NvmlDevice], Sequence[str]]:
        """The GPUs that answer, and those that do not; see Driver.open."""
        try:
            if not self._initialised:
                pynvml.nvmlInit()
                self._initialised = True
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            self.close()
            raise DriverError(_explain(error)) from error
        devices: list[NvmlDevice] = []
        missing: list[str] = []
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                if pynvml.nvmlDeviceGetUUID(handle) not in known:
                    devices.append(NvmlDevice(handle, index))
            except (pynvml.NVMLError, DeviceLostError) as error:
                missing.append(f"GPU {index} does not answer: {error}")
        return devices, missing

    def close(self) -> None:
        """Shuts NVML down; see Driver.close."""
        if self._initialised:
            self._initialised = False
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError as error:
                log.debug("nvmlShutdown: %s", error)


def _instance(card: Any, number: int) -> MigInstance:
    handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
    return MigInstance(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        compute_slices=pynvml.nvmlDeviceGetAttributes_v2(handle).computeInstanceSliceCount,
        gpu_instance_id=pynvml.nvmlDeviceGetGpuInstanceId(handle),
        compute_instance_id=pynvml.nvmlDeviceGetComputeInstanceId(handle),
    )


def _raise_if_lost(error: Any, lost: Container[int] = _LOST) -> None:
    if error.value in lost:
        raise DeviceLostError(str(error)) from error


def _explain(error: Any) -> str:
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "libnvidia-ml.so.1 was not found: install the NVIDIA driver"
    if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is not loaded: see `nvidia-smi` and `dmesg`"
    if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
        return "no permission to use the NVIDIA driver: see the rights of /dev/nvidia*"
    return f"NVML does not answer: {error}"
