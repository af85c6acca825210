"""The driver: its library, the kernel's part, whether each GPU answers."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from greend.doctor.answers import Driver
from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.doctor.probe import SILENCE_S, START_S, Probe
from greend.doctor.rights import rights

_LOG = "see `sudo dmesg | grep -iE 'nvrm|xid'`"
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # PCI's vendor, and the class of all GPUs

# By the return codes of nvmlInit (nvml.h).
_REMEDIES = {
    4: "look at the rights of /dev/nvidia*, or run as root",
    9: "load it: `sudo modprobe nvidia`; if that fails, " + _LOG + "; after an update of the"
    " kernel it has to be built again (`dkms status`)",
    18: "library and kernel module are of different versions: reboot after an update of the"
    " driver, or unload the module and load it again",
}


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """From the library to the last GPU, as far as it goes."""
    answers = host.probe
    if answers.status:
        yield say.error(
            f"the process that asked the driver {_death(answers)}",
            f"if the driver's library broke it, {_LOG}; else report it as a mistake in greend",
        )
    if answers.library and answers.library.error:
        yield say.error(
            f"the driver's library cannot be loaded: {answers.library.error}",
            "install the NVIDIA driver; start a container with its GPUs (docker run --gpus all);"
            " without a GPU, `greend serve --simulate h100x2` has simulated ones",
        )
    elif answers.driver is None and answers.silent:
        yield say.error(
            f"the driver has not answered for {START_S:.0f} s: the first call to it hangs",
            f"{_LOG}; often only a reboot helps",
        )
    elif answers.driver is not None:
        yield from _started(host, answers.driver, say)
    yield from _device_files(host.root / "dev", say)


def _started(host: Host, driver: Driver, say: Findings) -> Iterator[Finding]:
    module = _module_version(host.root)
    loaded = f"; kernel module {module}" if module else ""
    if driver.result:
        yield say.error(
            f"NVML does not start: {driver.error} (code {driver.result}){loaded}",
            _REMEDIES.get(driver.result, _LOG),
        )
        return
    gpus = "1 GPU" if driver.gpu_count == 1 else f"{driver.gpu_count} GPUs"
    found = f"driver {driver.driver_version}, NVML {driver.nvml_version}, {gpus}{loaded}"
    if host.probe.library:
        found += f"; {host.probe.library.path}"
    yield say.ok(found)
    if not driver.gpu_count:
        yield say.error("the driver shows no GPU", f"see `lspci | grep -i nvidia`; {_LOG}")
    yield from _gpus(host.probe, driver.gpu_count, say)
    on_bus = _gpus_on_bus(host.root)
    if on_bus > driver.gpu_count:
        yield say.info(
            f"the PCI bus has {on_bus} NVIDIA GPUs, the driver shows {driver.gpu_count} of them",
            "start the container with all GPUs if greend is to meter them all; a GPU that is"
            " bound to another driver (vfio-pci) cannot be metered here",
        )


def _gpus(answers: Probe, count: int, say: Findings) -> Iterator[Finding]:
    for index in range(count):
        answer = answers.answered.get(index)
        if answer is None:
            why = f"a call to it has hung for {SILENCE_S:.0f} s"
        elif answer.error:
            why = answer.error
        else:
            continue
        yield say.error(
            f"GPU {index} does not answer: {why}",
            f"{_LOG}; `sudo nvidia-smi --gpu-reset -i {index}` once nobody uses it, or reboot",
        )
    off = [str(index) for index, one in answers.answered.items() if one.persistence is False]
    if off:
        yield say.info(
            f"persistence mode is off on GPU {', '.join(sorted(off, key=int))}: unless somebody"
            " uses it, it is started anew for every program, and its counter with it",
            "greend keeps it started while it runs; `sudo systemctl enable --now"
            " nvidia-persistenced` does so always",
        )


def _device_files(directory: Path, say: Findings) -> Iterator[Finding]:
    for file in sorted(directory.glob("nvidia*")):
        if not re.fullmatch(r"nvidia(ctl|\d+)", file.name):
            continue
        if not os.access(file, os.R_OK | os.W_OK):
            yield say.warning(
                f"no permission for {file} ({rights(file)})",
                "run as root, or join its group if its mode lets the group in",
            )


def _module_version(root: Path) -> str:
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    version = re.search(r"Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return version[1] if version else ""


def _gpus_on_bus(root: Path) -> int:
    return sum(
        (device / "vendor").read_text().strip() == _NVIDIA
        and (device / "class").read_text().startswith(_DISPLAY)
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def _death(answers: Probe) -> str:
    if answers.status is not None and answers.status < 0:
        return f"died of {signal.Signals(-answers.status).name}"
    return f"ended early: {answers.last_words}"
