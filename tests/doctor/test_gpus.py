"""What the doctor says of the driver and the GPUs, on the double of the driver's library."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Doctor
from tests.nvml_double import NvmlDouble
from tests.nvml_double.build import compiler

MS = 1_000_000


def wait_for_reads(double: NvmlDouble, doctor: subprocess.Popen[Any]) -> None:
    """Until GPU 0 is read for the comparison."""
    deadline = time.monotonic() + 20
    while double.gpus[0].call_counts()["nvmlDeviceGetFieldValues"] < 10:
        assert doctor.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_healthy_gpus_are_found_well(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "h100"]) as double:
        doctor.environment = double.environment
        report = doctor.report()
        assert double.setter_log() == []
    assert report.one("driver", "570.86.15")["level"] == "ok"
    assert "2 GPUs" in report.one("driver", "570.86.15")["found"]
    assert report.worst("library") == "ok"
    for index, gpu in enumerate(double.gpus):
        device = report.one("devices", f"GPU {index}")
        assert device["level"] == "ok"
        assert gpu.uuid[:12] in device["found"]
        assert "by its counter; tells power, utilization, clocks" in device["found"]
        counter = report.one("counter", f"GPU {index}")
        assert counter["level"] == "ok"
        assert "steps every 100 ms" in counter["found"]
        assert "(+0.0 %)" in counter["found"]
    assert report.status == 0


def test_without_a_counter_power_will_be_added_up(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["p100"]) as double:
        doctor.environment = double.environment
        report = doctor.report()
    assert report.one("devices", "no energy counter")["level"] == "info"
    assert report.one("counter", "no counter to compare")["level"] == "info"
    assert report.status == 0


def test_a_gpu_that_tells_nothing_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["p100"]) as double:
        double.gpus[0].fail("nvmlDeviceGetPowerUsage")
        double.gpus[0].set_field_supported(186, False)
        doctor.environment = double.environment
        report = doctor.report()
    assert report.one("devices", "neither energy nor power")["level"] == "error"
    assert report.status == 1


def test_mig_and_missing_utilization_are_told(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        double.gpus[0].mig_enabled = 1
        double.gpus[0].set_instances(["3g.40gb", "1g.10gb"])
        double.gpus[1].fail("nvmlDeviceGetUtilizationRates")
        double.gpus[1].persistence = 0
        doctor.environment = double.environment
        report = doctor.report()
    mig = report.one("devices", "GPU 0: MIG is on")
    assert mig["level"] == "info"
    assert "(2 now)" in mig["found"]
    assert report.one("devices", "GPU 1 tells no utilization")["level"] == "info"
    assert "off on GPU 1:" in report.one("driver", "persistence mode")["found"]
    assert report.status == 0


def test_a_counter_that_stands_still_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        double.gpus[1].stick_counter()
        doctor.environment = double.environment
        report = doctor.report()
    assert report.one("counter", "GPU 0: counted")["level"] == "ok"
    stuck = report.one("counter", "GPU 1: the counter has stood still for 1.5 s at 58 W")
    assert stuck["level"] == "error"
    assert stuck["remedy"]
    assert report.status == 1


def test_a_sensor_that_sees_the_peaks_only_differs_from_the_counter(
    doctor: Doctor, tmp_path: Path
) -> None:
    """As an A100's, it averages 25 ms of every 100: here those with the load."""
    with NvmlDouble(tmp_path, ["a100"]) as double:
        edge_ns = time.monotonic_ns() // (100 * MS) * 100 * MS
        peaks = [
            (at, at + 25 * MS, 300.0)
            for at in range(edge_ns + 75 * MS, edge_ns + 20_000 * MS, 100 * MS)
        ]
        double.gpus[0].script_pulses(peaks, base_w=100.0)
        doctor.environment = double.environment
        report = doctor.report()
    counter = report.one("counter", "GPU 0: counted")
    assert counter["level"] == "warning"
    # 150 W in truth, 300 W as the sensor has it.
    assert "(-50." in counter["found"] or "(-49." in counter["found"], counter["found"]
    assert "steady" in counter["remedy"]
    assert report.status == 0


@pytest.mark.parametrize(
    ("delta_mj", "words"), [(-500_000, "went back"), (60_000_000, "more than the GPU can draw")]
)
def test_a_counter_that_jumps_is_an_error(
    doctor: Doctor, tmp_path: Path, delta_mj: int, words: str
) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        doctor.environment = double.environment
        with subprocess.Popen(
            doctor.command(),
            env=doctor.full_environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            wait_for_reads(double, running)
            time.sleep(0.5)  # some steps before the jump
            double.gpus[0].jump_counter(delta_mj)
            out, _ = running.communicate(timeout=30)
    assert words in " ".join(out.split())
    assert running.returncode == 1


def test_a_lost_gpu_is_named_and_the_others_are_checked(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        double.gpus[0].lose()
        doctor.environment = double.environment
        report = doctor.report()
    assert report.one("driver", "GPU 0 does not answer: GPU is lost")["level"] == "error"
    assert report.one("devices", "GPU")["found"].startswith("GPU 1, NVIDIA A100")
    assert report.one("counter", "GPU")["found"].startswith("GPU 1: counted")
    assert report.status == 1


def test_a_hung_gpu_is_a_finding_within_seconds(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        double.gpus[1].hang()
        doctor.environment = double.environment
        begun = time.monotonic()
        report = doctor.report()
        took_s = time.monotonic() - begun
    hung = report.one("driver", "GPU 1 does not answer: a call to it has hung for 5 s")
    assert hung["level"] == "error"
    assert "--gpu-reset -i 1" in hung["remedy"]
    assert report.of("store"), "the other checks run"
    assert report.status == 1
    assert took_s < 10


def test_a_gpu_that_hangs_while_it_is_read_is_a_finding(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        doctor.environment = double.environment
        with subprocess.Popen(
            doctor.command(), env=doctor.full_environment(), stdout=subprocess.PIPE, text=True
        ) as running:
            wait_for_reads(double, running)
            double.gpus[0].hang()
            out, _ = running.communicate(timeout=30)
    words = " ".join(out.split())
    assert "GPU 0 hung while it was read" in words
    assert "ok GPU 1: counted" in words
    assert running.returncode == 1


def test_no_driver_loaded(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        double.driver_loaded = False
        doctor.environment = double.environment
        report = doctor.report()
    unloaded = report.one("driver", "Driver Not Loaded")
    assert unloaded["level"] == "error"
    assert "modprobe nvidia" in unloaded["remedy"]
    assert report.of("devices") == []
    assert report.status == 1


def test_no_library(doctor: Doctor, tmp_path: Path) -> None:
    # One that cannot be loaded, so that none that is installed here is found.
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    doctor.environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    report = doctor.report()
    missing = report.one("driver", "cannot be loaded")
    assert missing["level"] == "error"
    assert "install the NVIDIA driver" in missing["remedy"]
    assert report.status == 1


def test_a_library_that_breaks_its_process_is_a_finding(doctor: Doctor, tmp_path: Path) -> None:
    source = tmp_path / "breaks.c"
    source.write_text(
        "#include <stdlib.h>\n"
        'const char *nvmlErrorString(int code) { return code ? "error" : "success"; }\n'
        "int nvmlInit_v2(void) { abort(); }\n"
    )
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([*compiler(), "-shared", "-fPIC", "-o", library, source], check=True)
    doctor.environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    report = doctor.report()
    assert report.one("driver", "died of SIGABRT")["level"] == "error"
    assert report.of("clock")
    assert report.status == 1


def test_a_module_that_shadows_the_binding_is_found(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("nvmlInit = None\n")
    with NvmlDouble(tmp_path, ["a100"]) as double:
        path = doctor.full_environment().get("PYTHONPATH", "")
        doctor.environment = double.environment | {"PYTHONPATH": f"{tmp_path}:{path}"}
        report = doctor.report()
    shadow = report.one("library", str(tmp_path / "pynvml.py"))
    assert shadow["level"] == "error"
    assert "pip" in shadow["remedy"]
    assert report.one("library", "AttributeError")["level"] == "error"
    assert report.one("driver", "570.86.15")["level"] == "ok", "asked beneath the binding"
    assert report.status == 1


def test_ctrl_c_ends_it_and_what_asks_the_driver(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        doctor.environment = double.environment
        with subprocess.Popen(
            doctor.command("--seconds", "60"),
            env=doctor.full_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            wait_for_reads(double, running)
            running.send_signal(signal.SIGINT)
            out, errors = running.communicate(timeout=10)
        assert (running.returncode, out, errors) == (130, "", "interrupted\n")
        assert_quiet(double)


def test_sigterm_ends_what_asks_the_driver(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        doctor.environment = double.environment
        with subprocess.Popen(
            doctor.command("--seconds", "60"), env=doctor.full_environment()
        ) as running:
            wait_for_reads(double, running)
            running.terminate()
            running.wait(10)
        assert_quiet(double)


def assert_quiet(double: NvmlDouble) -> None:
    """Nobody calls the library any more."""
    time.sleep(0.1)
    before = double.call_counts()
    time.sleep(0.3)
    assert double.call_counts() == before
