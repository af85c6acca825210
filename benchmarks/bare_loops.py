"""The floor of sampling: the daemon's reads at a given rate through pynvml, and nothing else.

Run as `python -m benchmarks.bare_loops HZ (one|each)`: in one thread, or in one a GPU.
"""

import sys
import threading
import time

import pynvml

FIELDS = [pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, pynvml.NVML_FI_DEV_POWER_INSTANT]


def read(handle: object) -> None:
    """What the daemon reads in each sample."""
    pynvml.nvmlDeviceGetFieldValues(handle, FIELDS)
    pynvml.nvmlDeviceGetUtilizationRates(handle)
    pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)


def read_slow(handle: object) -> None:
    """What it reads once a second."""
    pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
    pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
    pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)


def loop(handles: list[object], interval_s: float) -> None:
    """Reads without end."""
    due = slow_due = time.monotonic()
    while True:
        for handle in handles:
            read(handle)
        if due >= slow_due:
            slow_due = due + 1
            for handle in handles:
                read_slow(handle)
        due += interval_s
        time.sleep(max(due - time.monotonic(), 0))


def main() -> None:
    """Reads until it is killed."""
    interval_s, threads = 1 / float(sys.argv[1]), sys.argv[2]
    pynvml.nvmlInit()
    handles = [
        pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
    ]
    groups = [handles] if threads == "one" else [[handle] for handle in handles]
    for group in groups[1:]:
        threading.Thread(target=loop, args=(group, interval_s), daemon=True).start()
    loop(groups[0], interval_s)


if __name__ == "__main__":
    main()
