"""The process that asks the driver: `python -m greend.doctor.asking SECONDS`.

It waits as long as the driver takes; whoever started it does not.
"""

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from greend.device.protocol import Device, DeviceLostError, DriverError
from greend.doctor.answers import Answer, Failed, Library, Opened, Read, Reading
from greend.doctor.nvml import Nvml
from greend.model import NS_PER_S

READ_S = 0.02
PR_SET_PDEATHSIG = 1
_saying = threading.Lock()


def main(seconds: float) -> None:
    """Says all that `greend.doctor.answers` names, as far as it gets."""
    die_with_parent()
    try:
        nvml = Nvml()
    except OSError as error:
        say(Library(error=str(error)))
        return
    say(Library(path=nvml.path))
    driver = nvml.initialise()
    say(driver)
    if driver.result == 0:
        together([partial(answer, nvml, index) for index in range(driver.gpu_count)])
        open_and_read(seconds)


def die_with_parent() -> None:
    """Lets the kernel end this process with the one that started it (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def say(what: Answer) -> None:
    """Writes a line, each thread's whole."""
    with _saying:
        sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
        sys.stdout.buffer.flush()


def together(tasks: list[Callable[[], None]]) -> None:
    """Does all at once: a GPU that hangs delays none but itself."""
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def answer(nvml: Nvml, index: int) -> None:
    """Asks a GPU whether it is there."""
    say(nvml.ask(index))


def open_and_read(seconds: float) -> None:
    """Finds the GPUs as the daemon does, and reads them for so long."""
    try:
        # Imported here: where the binding is broken, that is a finding.
        from greend.device.nvml import NvmlDriver

        driver = NvmlDriver()
        devices, missing = driver.open()
    except DriverError as error:
        say(Failed(str(error)))
        return
    except Exception as error:
        say(Failed(f"{type(error).__name__}: {error}"))
        return
    say(Opened(tuple(device.info for device in devices), tuple(missing)))
    together([partial(read, device, seconds) for device in devices])
    driver.close()


def read(device: Device, seconds: float) -> None:
    """Reads a GPU every 20 ms."""
    readings: list[Reading] = []
    lost = ""
    begun_ns = due_ns = time.monotonic_ns()
    try:
        while due_ns < begun_ns + seconds * NS_PER_S:
            sample = device.read()
            readings.append(Reading(sample.monotonic_ns, sample.energy_mj, sample.power_mw))
            # A late reading puts off those after it: they are not made up for at once.
            due_ns = max(due_ns + round(READ_S * NS_PER_S), time.monotonic_ns())
            time.sleep(max(due_ns - time.monotonic_ns(), 0) / NS_PER_S)
    except DeviceLostError as error:
        lost = str(error)
    except Exception as error:
        lost = f"{type(error).__name__}: {error}"
    say(Read(device.info.index, tuple(readings), lost))


if __name__ == "__main__":
    main(float(sys.argv[1]))
