"""NVIDIA GPUs through NVML; the only importer of pynvml.

Function and field numbers are NVML's (nvml.h). Support is probed by calling, never
inferred from the architecture (FACTS.md).
"""

import logging
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

import pynvml

from greend.device.protocol import DeviceLostError, DriverError
from greend.model import NS_PER_S, Capabilities, DeviceInfo, Limits, Sample

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

Read = Callable[[], Any]


class NvmlDevice:
    """One GPU. Its worker's thread alone calls it."""

    def __init__(self, handle: Any, index: int) -> None:
        self._handle = handle
        self._slow = Sample("", 0)
        self._fields = [
            pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
            pynvml.NVML_FI_DEV_POWER_INSTANT,
        ]
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        batched = self._probe_fields()
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
        self.info = DeviceInfo(
            uuid=uuid,
            index=index,
            name=name,
            capabilities=Capabilities(
                energy_counter=self._energy is not None,
                power=self._power is not None or self._power_field,
                utilization=self._utilization is not None,
                clocks=self._sm_clock is not None,
                field_values=batched,
                # GH200's counter may cover the whole module (FACTS.md).
                energy_scope="module" if "GH200" in name else "gpu",
                mig=self._mig(),
                clock_limits=self._supported_clocks() is not None,
                power_limit=self._power_limits() is not None,
            ),
            limits=self._limits(),
        )

    # Reading

    def read(self) -> Sample:
        """See Device.read; takes three driver calls, four more once a second."""
        started_ns = time.monotonic_ns()
        energy_mj, power_mw = self._energy_and_power()
        call_ns = time.monotonic_ns() - started_ns
        now_ns = started_ns + call_ns // 2
        utilization = self._ask(self._utilization)
        if now_ns - self._slow.monotonic_ns >= SLOW_READ_NS:
            self._slow = Sample(
                self.info.uuid,
                now_ns,
                memory_clock_mhz=self._ask(self._memory_clock),
                temperature_c=self._ask(self._temperature),
                clock_event_reasons=self._ask(self._reasons),
                power_limit_mw=self._ask(self._limit),
            )
        return replace(
            self._slow,
            monotonic_ns=now_ns,
            call_ns=call_ns,
            energy_mj=energy_mj,
            power_mw=power_mw,
            sm_clock_mhz=self._ask(self._sm_clock),
            gpu_utilization_percent=None if utilization is None else utilization.gpu,
            memory_utilization_percent=None if utilization is None else utilization.memory,
        )

    def context_alive(self) -> bool | None:
        """See Device.context_alive."""
        processes = self._ask(self._contexts)
        return None if processes is None else bool(processes)

    def _energy_and_power(self) -> tuple[int | None, int | None]:
        if not self._fields:
            return self._ask(self._energy), self._ask(self._power)
        values = self._ask(lambda: pynvml.nvmlDeviceGetFieldValues(self._handle, self._fields))
        if values is None:
            return None, None
        by_field = {
            value.fieldId: _field_value(value)
            for value in values
            if value.nvmlReturn == pynvml.NVML_SUCCESS
        }
        energy_mj = by_field.get(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)
        power_mw = by_field.get(pynvml.NVML_FI_DEV_POWER_INSTANT)
        if power_mw is None and not self._power_field:
            power_mw = self._ask(self._power)
        return energy_mj, power_mw

    # Probing

    def _probe(self, function: Callable[..., Any], *arguments: Any) -> Read | None:
        """The call bound to this GPU, or None if GPU or driver lack it."""

        def read() -> Any:
            return function(self._handle, *arguments)

        try:
            read()
        except pynvml.NVMLError as error:
            _raise_if_lost(error)
            if error.value in _ABSENT:
                return None
            # Failed this time: not a reason to give the function up.
            log.warning("%s failed while probing: %s", function.__name__, error)
        return read

    def _ask(self, read: Read | None) -> Any:
        if read is None:
            return None
        try:
            return read()
        except pynvml.NVMLError as error:
            _raise_if_lost(error)
            return None

    def _probe_fields(self) -> bool:
        """Whether one call reads energy (and instant power, where there is such a field)."""
        self._power_field = False
        values = self._ask(lambda: pynvml.nvmlDeviceGetFieldValues(self._handle, self._fields))
        answered = {
            value.fieldId for value in values or () if value.nvmlReturn == pynvml.NVML_SUCCESS
        }
        if pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION not in answered:
            self._fields = []
            return False
        self._power_field = pynvml.NVML_FI_DEV_POWER_INSTANT in answered
        self._fields = sorted(answered)
        return True

    def _mig(self) -> bool:
        mode = self._ask(lambda: pynvml.nvmlDeviceGetMigMode(self._handle))
        return bool(mode and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE)

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


def _raise_if_lost(error: Any) -> None:
    if error.value in _LOST:
        raise DeviceLostError(str(error)) from error


def _explain(error: Any) -> str:
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "libnvidia-ml.so.1 was not found: install the NVIDIA driver"
    if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is not loaded: see `nvidia-smi` and `dmesg`"
    if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
        return "no permission to use the NVIDIA driver: see the rights of /dev/nvidia*"
    return f"NVML does not answer: {error}"


def _field_value(value: Any) -> int:
    """A field's value; energy and power come as unsigned int, long or long long."""
    kinds = {
        pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
        pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
        pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    }
    return int(getattr(value.value, kinds[value.valueType]))
