"""What the doctor makes of the kernel's files, on hosts as they are not to be had here."""

from pathlib import Path

import pytest

from greend.doctor.answers import Answered, Driver, Library
from greend.doctor.finding import Level
from greend.doctor.probe import Probe
from tests.doctor.hosts import findings, only

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Wed Jan 15 23:44:26 UTC 2025\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@x)\n"


def probe(result: int = 0, count: int = 2) -> Probe:
    error = "Driver/library version mismatch" if result else ""
    return Probe(
        library=Library("/lib/libnvidia-ml.so.570.86.15"),
        driver=Driver(result, error, "570.86.15", "12.570.86.15", 0 if result else count),
        answered={index: Answered(index, persistence=True) for index in range(count)},
        status=0,
    )


@pytest.mark.parametrize("line", [CLOSED, OPEN])
def test_the_kernel_module_s_version_is_told(tmp_path: Path, line: str) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(line.format("570.124.06"))
    assert only(findings("driver", tmp_path, probe()), "kernel module 570.124.06; /lib")
    mismatch = only(findings("driver", tmp_path, probe(18)), "kernel module 570.124.06")
    assert mismatch.level is Level.ERROR
    assert "reboot" in mismatch.remedy


def test_gpus_that_a_container_does_not_show_are_counted(tmp_path: Path) -> None:
    kinds = [("0x10de", "0x030200")] * 8 + [("0x10de", "0x068000"), ("0x1af4", "0x030000")]
    for number, (vendor, kind) in enumerate(kinds):
        device = tmp_path / f"sys/bus/pci/devices/0000:{number:02x}:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
    some = only(findings("driver", tmp_path, probe()), "has 8 NVIDIA GPUs, the driver shows 2")
    assert some.level is Level.INFO
    assert "container" in some.remedy
    assert len(findings("driver", tmp_path, probe(count=8))) == 1


def test_a_driver_that_does_not_start_in_time_hangs(tmp_path: Path) -> None:
    hung = only(findings("driver", tmp_path, Probe(library=Library("/x"), silent=True)), "hangs")
    assert hung.level is Level.ERROR
    assert "reboot" in hung.remedy


def test_no_gpu_is_an_error(tmp_path: Path) -> None:
    assert only(findings("driver", tmp_path, probe(count=0)), "no GPU").level is Level.ERROR


def test_clocks_and_boot_are_told() -> None:
    found = findings("clock")
    assert only(found, "the monotonic clock runs").level is Level.OK
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert only(found, boot).level is Level.OK
    assert only(found, "synchronize").level in (Level.OK, Level.WARNING, Level.INFO)


def test_a_boot_id_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert only(findings("clock", tmp_path), "boot id cannot be read").level is Level.WARNING
