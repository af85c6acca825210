"""The double of the driver's library, seen through the real pynvml in processes of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.nvml_double import PROFILES, DoubleGpu, NvmlDouble
from tests.nvml_double.build import build

MS = 1_000_000
SECOND = 1_000_000_000
INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND, DRIVER_NOT_LOADED = 2, 3, 6, 9
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST = 12, 13, 15

# Runs Python statements line by line; answers with `result` and the clock before and after.
_READER = """
import json, sys, threading, time
from pynvml import *

def poll(function, seconds, *args):
    until, rows = time.monotonic() + seconds, []
    while time.monotonic() < until:
        before = time.monotonic_ns()
        value = function(*args)
        rows.append((before, time.monotonic_ns(), value))
        time.sleep(0.001)
    return rows

names = globals()
for line in sys.stdin:
    names["result"], error = None, None
    before = time.monotonic_ns()
    try:
        exec(json.loads(line), names)
    except NVMLError as failed:
        error = failed.value
    except Exception as failed:
        error = repr(failed)
    answer = {"result": names["result"], "error": error}
    print(json.dumps(answer | {"span": (before, time.monotonic_ns())}), flush=True)
"""


class Nvml:
    """A process that uses pynvml; ``h`` there lists the GPUs' handles."""

    def __init__(self, double: NvmlDouble, *, init: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _READER],
            env=os.environ | double.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.span = (0, 0)
        if init:
            self.run("nvmlInit()")
            self.run("h = [nvmlDeviceGetHandleByIndex(i) for i in range(nvmlDeviceGetCount())]")

    def ask(self, code: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(code), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.span = tuple(answer["span"])
        return answer

    def run(self, code: str) -> None:
        assert self.ask(code)["error"] is None

    def value(self, expression: str) -> Any:
        answer = self.ask(f"result = {expression}")
        assert answer["error"] is None
        return answer["result"]

    def error(self, code: str) -> int | str | None:
        error: int | str | None = self.ask(code)["error"]
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture
def double(tmp_path: Path) -> Iterator[NvmlDouble]:
    with NvmlDouble(tmp_path, ["a100", "h100"]) as double:
        yield double


@pytest.fixture
def nvml(double: NvmlDouble) -> Iterator[Nvml]:
    with Nvml(double) as nvml:
        yield nvml


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_for_calls(gpu: DoubleGpu, number: int) -> None:
    enough = gpu.call_counts().total() + number
    wait_until(lambda: gpu.call_counts().total() >= enough)


def freeze(gpu: DoubleGpu, edge_ns: int) -> None:
    """Let the sensor's and the counter's last edge be this instant for the next hour."""
    gpu.set_sensor(period_ns=3600 * SECOND, phase_ns=edge_ns)
    gpu.set_counter(period_ns=3600 * SECOND, phase_ns=edge_ns)


# -- identity


def test_gpus_are_found_by_index_uuid_and_bus(double: NvmlDouble, nvml: Nvml) -> None:
    assert nvml.value("nvmlDeviceGetCount()") == 2
    for index, gpu in enumerate(double.gpus):
        assert nvml.value(f"nvmlDeviceGetUUID(h[{index}])") == gpu.uuid
        assert nvml.value(f"nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID({gpu.uuid!r}))") == index
    assert nvml.value("nvmlDeviceGetPciInfo(h[1]).busId") == "00000000:0F:00.0"
    assert nvml.value("nvmlDeviceGetPciInfo(h[1]).busIdLegacy") == "0000:0F:00.0"
    assert nvml.value("nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('0000:0f:00.0'))") == 1
    assert nvml.error("nvmlDeviceGetHandleByUUID('GPU-0')") == NOT_FOUND
    assert nvml.error("nvmlDeviceGetHandleByIndex(2)") == INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("nvmlSystemGetDriverVersion()", "570.86.15"),
        ("nvmlSystemGetNVMLVersion()", "12.570.86.15"),
        ("nvmlSystemGetCudaDriverVersion_v2()", 12080),
        ("nvmlDeviceGetName(h[1])", "NVIDIA H100 80GB HBM3"),
        ("nvmlDeviceGetArchitecture(h[1])", 9),
        ("nvmlDeviceGetBrand(h[0])", 14),
        ("list(nvmlDeviceGetCudaComputeCapability(h[0]))", [8, 0]),
        ("nvmlDeviceGetMemoryInfo(h[0]).total", 80 << 30),
        ("nvmlDeviceGetMemoryInfo(h[0], version=nvmlMemory_v2).free", 80 << 30),
        ("nvmlDeviceGetMinorNumber(h[1])", 1),
        ("nvmlDeviceGetSerial(h[1])", "1320920000001"),
        ("nvmlDeviceGetTemperature(h[0], 0)", 34),
        ("nvmlDeviceGetPersistenceMode(h[0])", 1),
        ("nvmlDeviceGetPerformanceState(h[0])", 0),
        ("nvmlDeviceGetSupportedMemoryClocks(h[1])", [2619, 1593]),
        ("nvmlDeviceGetSupportedGraphicsClocks(h[0], 1593)", list(range(1410, 209, -15))),
        ("nvmlDeviceGetMaxClockInfo(h[0], NVML_CLOCK_SM)", 1410),
        ("nvmlDeviceGetClock(h[0], NVML_CLOCK_MEM, NVML_CLOCK_ID_CURRENT)", 1593),
        ("nvmlDeviceGetPowerManagementMode(h[0])", 1),
        ("nvmlDeviceGetPowerManagementLimitConstraints(h[1])", [200_000, 700_000]),
        ("nvmlDeviceGetPowerManagementDefaultLimit(h[1])", 700_000),
        ("nvmlDeviceGetCurrentClocksEventReasons(h[0])", 1),
        ("nvmlDeviceGetCurrentClocksThrottleReasons(h[0])", 1),
        ("nvmlDeviceGetSupportedClocksEventReasons(h[0])", 0x1FF),
        ("nvmlDeviceGetComputeRunningProcesses(h[0])", []),
        ("nvmlDeviceGetGraphicsRunningProcesses(h[0])", []),
        ("nvmlDeviceGetMPSComputeRunningProcesses(h[0])", []),
        ("nvmlDeviceGetMigMode(h[0])", [0, 0]),
        ("nvmlDeviceGetMaxMigDeviceCount(h[0])", 0),
        ("nvmlDeviceGetTotalEccErrors(h[0], 0, 0)", 0),
        ("nvmlErrorString(15)", "GPU is lost"),
    ],
)
def test_plain_getters(shared_nvml: Nvml, expression: str, expected: object) -> None:
    assert shared_nvml.value(expression) == expected


def test_temperature_by_the_newer_function(shared_nvml: Nvml) -> None:
    if not shared_nvml.value("'nvmlDeviceGetTemperatureV' in globals()"):
        pytest.skip("this pynvml is too old for it")
    assert shared_nvml.value("nvmlDeviceGetTemperatureV(h[0], 0)") == 34


@pytest.fixture(scope="module")
def shared_nvml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nvml]:
    directory = tmp_path_factory.mktemp("double")
    with NvmlDouble(directory, ["a100", "h100"]) as double, Nvml(double) as nvml:
        yield nvml


@pytest.mark.parametrize("profile", ["p100", "v100", "a100", "h100", "rtx4090"])
def test_profiles_differ_in_what_they_support(tmp_path: Path, profile: str) -> None:
    with NvmlDouble(tmp_path, [profile]) as double, Nvml(double) as nvml:
        counter = nvml.error("nvmlDeviceGetTotalEnergyConsumption(h[0])")
        assert (counter == NOT_SUPPORTED) == (profile == "p100")
        memory_lock = nvml.error("nvmlDeviceResetMemoryLockedClocks(h[0])")
        assert (memory_lock == NOT_SUPPORTED) == (profile in ("p100", "v100"))
        mig = nvml.error("nvmlDeviceGetMigMode(h[0])")
        assert (mig is None) == (profile in ("a100", "h100"))


# -- power, sensor, counter


def test_true_energy_of_a_ramp_is_exact(double: NvmlDouble) -> None:
    gpu, t = double.gpus[0], 10**15
    gpu.script_power([(t, 100.0), (t + SECOND, 300.0), (t + 3 * SECOND, 300.0)])
    assert gpu.power_w(t + SECOND // 4) == 150.0
    assert gpu.true_energy_j(t, t + SECOND) == pytest.approx(200.0, rel=1e-12)
    assert gpu.true_energy_j(t, t + SECOND // 2) == pytest.approx(75.0, rel=1e-12)
    assert gpu.true_energy_j(t - SECOND, t) == pytest.approx(58.0, rel=1e-12)
    assert gpu.true_energy_j(t + 2 * SECOND, t + 9 * SECOND) == pytest.approx(2100.0, rel=1e-12)


def test_pulses_rise_and_fall_within_the_ramp(double: NvmlDouble) -> None:
    gpu, t = double.gpus[0], 10**15
    pulses = [(t, t + 10 * MS, 300.0), (t + 50 * MS, t + 60 * MS, 200.0)]
    gpu.script_pulses(pulses, base_w=100.0, ramp_ns=2 * MS)
    assert gpu.power_w(t + MS) == 200.0
    assert gpu.power_w(t + 11 * MS) == 200.0
    assert gpu.true_energy_j(t, t + 100 * MS) == pytest.approx(10.0 + 2.0 + 1.0, rel=1e-12)


def test_a_new_script_leaves_the_time_before_it_as_it_was(double: NvmlDouble) -> None:
    gpu, t = double.gpus[0], 10**15
    gpu.script_power([(t, 100.0), (t + SECOND, 300.0), (t + 2 * SECOND, 50.0)])
    before = gpu.true_energy_j(t - SECOND, t + SECOND // 2)
    gpu.script_power([(t + SECOND // 2, 400.0)])
    assert gpu.true_energy_j(t - SECOND, t + SECOND // 2) == pytest.approx(before, rel=1e-12)
    assert gpu.power_w(t + SECOND // 2 - 1) == pytest.approx(200.0)
    assert gpu.power_w(t + 5 * SECOND) == 400.0


@pytest.mark.parametrize("sums_sensor", [False, True])
@pytest.mark.parametrize("period_ms", [10, 37, 100])
def test_counter_is_the_energy_up_to_its_last_edge(
    double: NvmlDouble, nvml: Nvml, period_ms: int, sums_sensor: bool
) -> None:
    gpu, now = double.gpus[0], time.monotonic_ns()
    points = [(now + i * 7 * MS - SECOND, 80.0 + 37 * (i % 9)) for i in range(300)]
    gpu.script_power(points)
    gpu.set_sensor(period_ns=20 * MS, instant_window_ns=10 * MS)
    gpu.set_counter(
        period_ns=period_ms * MS,
        phase_ns=3 * MS,
        jitter_ns=period_ms * MS // 5,
        seed=4,
        origin_ns=now - 2 * SECOND,
        sums_sensor=sums_sensor,
    )
    rows = nvml.value("poll(nvmlDeviceGetTotalEnergyConsumption, 0.25, h[0])")
    assert len({value for _, _, value in rows}) >= 2
    for before, after, value in rows:
        assert value in (gpu.counter_mj(before), gpu.counter_mj(after))


def test_counter_adds_up_to_known_joules(double: NvmlDouble, nvml: Nvml) -> None:
    gpu, now = double.gpus[0], time.monotonic_ns()
    gpu.script_power([(now - 3600 * SECOND, 300.0), (now - 1800 * SECOND, 500.0)])
    gpu.set_counter(origin_ns=now - 3600 * SECOND, offset_mj=5)
    freeze(gpu, now)
    expected_mj = 5 + 400 * 1800 * 1000 + 500 * 1800 * 1000
    assert nvml.value("nvmlDeviceGetTotalEnergyConsumption(h[0])") == expected_mj
    assert gpu.counter_mj(time.monotonic_ns()) == expected_mj


def test_jitter_is_bounded_and_repeatable(double: NvmlDouble) -> None:
    gpu = double.gpus[0]
    gpu.set_counter(period_ns=100 * MS, phase_ns=7 * MS, jitter_ns=5 * MS, seed=1)
    edges = gpu.counter_edges_ns(0, 1000 * 100 * MS)
    off = [(edge - 7 * MS + 50 * MS) % (100 * MS) - 50 * MS for edge in edges]
    assert len(edges) == 1000
    assert -5 * MS <= min(off) < -4 * MS
    assert 4 * MS < max(off) <= 5 * MS
    assert edges == gpu.counter_edges_ns(0, 1000 * 100 * MS)
    with pytest.raises(ValueError, match="jitter"):
        gpu.set_counter(jitter_ns=50 * MS)


def test_sensor_shows_the_mean_over_its_window(double: NvmlDouble, nvml: Nvml) -> None:
    edge = time.monotonic_ns() - 5 * SECOND
    for gpu in double.gpus:
        gpu.script_power([(edge - SECOND, 100.0), (edge - 10 * MS, 100.0), (edge - 10 * MS, 350.0)])
        freeze(gpu, edge)
    # 25 ms windows: 15 ms at 100 W and 10 ms at 350 W. The H100 tells its average instead.
    assert nvml.value("nvmlDeviceGetPowerUsage(h[0])") == 200_000
    assert nvml.value("nvmlDeviceGetPowerUsage(h[1])") == 102_500
    fields = "[v.value.uiVal for v in nvmlDeviceGetFieldValues(h[1], [185, 186])]"
    assert nvml.value(fields) == [102_500, 200_000]
    assert double.gpus[1].power_reading_mw(time.monotonic_ns(), average=True) == 102_500


def test_power_scripted_ahead_arrives_in_time(double: NvmlDouble, nvml: Nvml) -> None:
    gpu = double.gpus[0]
    gpu.set_sensor(period_ns=5 * MS, instant_window_ns=0)
    jump = time.monotonic_ns() + 60 * MS
    gpu.script_power([(jump, 321.0), (jump + 30 * MS, 400.0)])
    rows = nvml.value("poll(nvmlDeviceGetPowerUsage, 0.12, h[0])")
    assert (rows[0][2], rows[-1][2]) == (58_000, 400_000)
    for before, after, value in rows:
        assert gpu.power_reading_mw(before) <= value <= gpu.power_reading_mw(after)


def test_power_set_from_another_process_acts_at_once(double: NvmlDouble, nvml: Nvml) -> None:
    code = """
import sys
from pathlib import Path
from tests.nvml_double import NvmlDouble
gpu = NvmlDouble.attach(Path(sys.argv[1])).gpus[1]
gpu.set_utilization(77)
gpu.temperature_c = 66
gpu.set_sensor(period_ns=1_000_000, instant_window_ns=0)
print(gpu.set_power_w(432.0))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(double.state_path)],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    wait_until(lambda: time.monotonic_ns() > int(done.stdout) + 2 * MS)
    assert nvml.value("nvmlDeviceGetFieldValues(h[1], [186])[0].value.uiVal") == 432_000
    assert nvml.value("nvmlDeviceGetUtilizationRates(h[1]).gpu") == 77
    assert nvml.value("nvmlDeviceGetTemperature(h[1], 0)") == 66
    assert double.gpus[1].power_w(int(done.stdout)) == 432.0


def test_no_reader_sees_half_a_script(double: NvmlDouble, nvml: Nvml) -> None:
    gpu, now = double.gpus[0], time.monotonic_ns()
    start = now - 100 * SECOND
    freeze(gpu, now)
    gpu.set_counter(origin_ns=start, offset_mj=0)
    few = [(start, 100.0)]
    many = [(start + i * MS, 200.0 + i % 2) for i in range(5000)]
    nvml.run("stop = False; seen = set()")
    nvml.run(
        "def look():\n"
        "    while not stop: seen.add(nvmlDeviceGetTotalEnergyConsumption(h[0]))\n"
        "thread = threading.Thread(target=look); thread.start()"
    )
    totals = set()
    for script in [few, many] * 10:
        gpu.script_power(script)
        totals.add(gpu.counter_mj(now))
        wait_for_calls(gpu, 3)
    nvml.run("stop = True; thread.join()")
    assert len(totals) == 2
    idle_mj = 100 * 58_000  # read before the first script
    assert totals <= set(nvml.value("list(seen)")) <= totals | {idle_mj}


# -- counter faults


def test_counter_faults(double: NvmlDouble, nvml: Nvml) -> None:
    gpu, energy = double.gpus[0], "nvmlDeviceGetTotalEnergyConsumption(h[0])"
    gpu.set_counter(period_ns=10 * MS)

    def counted() -> int:
        value: int = nvml.value(energy)
        assert value in (gpu.counter_mj(nvml.span[0]), gpu.counter_mj(nvml.span[1]))
        return value

    first = counted()
    gpu.jump_counter(-500_000)
    assert counted() < first
    gpu.set_absurd_counter(2**64 - 1)
    assert counted() == 2**64 - 1
    gpu.set_absurd_counter(None)
    gpu.stick_counter()
    stuck, since = counted(), time.monotonic_ns()
    wait_until(lambda: time.monotonic_ns() > since + 25 * MS)
    assert counted() == stuck
    gpu.unstick_counter()
    assert counted() > stuck
    gpu.reset_counter()
    assert counted() < 10_000
    gpu.counter_supported = 0
    assert nvml.error(energy) == NOT_SUPPORTED
    assert nvml.value("nvmlDeviceGetFieldValues(h[0], [83])[0].nvmlReturn") == NOT_SUPPORTED


# -- fields


def test_a_batch_of_fields_is_one_call_with_a_code_for_each(double: NvmlDouble, nvml: Nvml) -> None:
    gpu = double.gpus[1]
    gpu.set_event_ns(74, 123_456_789_012)
    gpu.set_field_supported(188, False)
    before = double.call_counts()
    ids = [83, 191, 74, 187, 188, 189, 190, 192, 9999]
    rows = nvml.value(
        "[(v.nvmlReturn, v.valueType, v.value.ullVal, v.timestamp, v.latencyUsec)"
        f" for v in nvmlDeviceGetFieldValues(h[1], {ids})]"
    )
    assert double.call_counts() - before == {"nvmlDeviceGetFieldValues": 1}
    energies = {gpu.counter_mj(t) for t in nvml.span}
    assert rows[0][:2] == [0, 3]
    assert rows[0][2] in energies
    assert rows[1][:3] == rows[0][:3]
    assert rows[2][:3] == [0, 3, 123_456_789_012]
    assert [row[:3] for row in rows[3:]] == [
        [0, 1, 200_000],
        [NOT_SUPPORTED, 1, 0],
        [0, 1, 700_000],
        [0, 1, 700_000],
        [0, 1, 700_000],
        [NOT_SUPPORTED, 1, 0],
    ]
    now_us = time.time_ns() // 1000
    assert all(now_us - 5_000_000 < row[3] <= now_us and row[4] >= 0 for row in rows)


# -- load, clocks, processes


def test_utilization_follows_its_script(double: NvmlDouble, nvml: Nvml) -> None:
    gpu, now = double.gpus[0], time.monotonic_ns()
    gpu.script_utilization([(now - SECOND, 30), (now + 40 * MS, 90)])
    rows = nvml.value("poll(lambda: nvmlDeviceGetUtilizationRates(h[0]).gpu, 0.08)")
    assert [rows[0][2], rows[-1][2]] == [30, 90]
    for before, after, value in rows:
        assert (value == 30 and before < now + 40 * MS) or (value == 90 and after >= now + 40 * MS)
    gpu.set_utilization(12, memory_percent=7)
    rates = "nvmlDeviceGetUtilizationRates(h[0])"
    assert nvml.value(f"[{rates}.gpu, {rates}.memory]") == [12, 7]
    gpu.mig_enabled = 1
    assert nvml.error(rates) == NOT_SUPPORTED
    assert nvml.value("nvmlDeviceGetMigMode(h[0])") == [1, 1]


def test_a_card_with_mig_has_instances(double: NvmlDouble, nvml: Nvml) -> None:
    gpu = double.gpus[1]
    with pytest.raises(ValueError, match="MIG mode is off"):
        gpu.set_instances(["7g.80gb"])
    assert nvml.error("nvmlDeviceGetMigDeviceHandleByIndex(h[1], 0)") == NOT_SUPPORTED
    gpu.mig_enabled = 1
    assert nvml.error("nvmlDeviceGetMigDeviceHandleByIndex(h[1], 0)") == NOT_FOUND
    uuids = gpu.set_instances(["3g.40gb", "1g.10gb", "2c.3g.40gb"])
    assert nvml.value("nvmlDeviceGetMaxMigDeviceCount(h[1])") == 7
    nvml.run("m = [nvmlDeviceGetMigDeviceHandleByIndex(h[1], i) for i in range(3)]")
    assert nvml.error("nvmlDeviceGetMigDeviceHandleByIndex(h[1], 3)") == NOT_FOUND
    assert nvml.error("nvmlDeviceGetMigDeviceHandleByIndex(h[1], 7)") == INVALID_ARGUMENT
    assert nvml.value("[nvmlDeviceGetUUID(i) for i in m]") == uuids
    assert all(uuid.startswith("MIG-") for uuid in uuids)
    names = nvml.value("[nvmlDeviceGetName(i) for i in m]")
    assert names[1] == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert nvml.value("[nvmlDeviceIsMigDeviceHandle(i).value for i in [h[1], *m]]") == [0, 1, 1, 1]
    parents = "nvmlDeviceGetDeviceHandleFromMigDeviceHandle"
    assert nvml.value(f"[nvmlDeviceGetUUID({parents}(i)) for i in m]") == [gpu.uuid] * 3
    assert nvml.error(f"{parents}(h[1])") == INVALID_ARGUMENT
    nvml.run("a = [nvmlDeviceGetAttributes_v2(i) for i in m]")
    assert nvml.value("[i.computeInstanceSliceCount for i in a]") == [3, 1, 2]
    assert nvml.value("[i.gpuInstanceSliceCount for i in a]") == [3, 1, 3]
    assert nvml.value("[i.multiprocessorCount for i in a]") == [42, 14, 28]
    assert nvml.value("a[0].memorySizeMB") == 40 << 10
    assert nvml.error("nvmlDeviceGetAttributes_v2(h[1])") == NOT_SUPPORTED, "only of instances"
    ids = "(nvmlDeviceGetGpuInstanceId(i), nvmlDeviceGetComputeInstanceId(i))"
    assert nvml.value(f"[{ids} for i in m]") == [[1, 0], [2, 0], [3, 0]]
    assert nvml.value(f"nvmlDeviceGetUUID(nvmlDeviceGetHandleByUUID({uuids[2]!r}))") == uuids[2]


def test_an_instance_that_is_destroyed_has_no_handle(double: NvmlDouble, nvml: Nvml) -> None:
    gpu = double.gpus[0]
    gpu.mig_enabled = 1
    uuids = gpu.set_instances(["3g.40gb", "1g.10gb"])
    nvml.run("m = nvmlDeviceGetMigDeviceHandleByIndex(h[0], 1)")
    assert gpu.set_instances(["3g.40gb"]) == uuids[:1], "what stays keeps its UUID"
    assert nvml.error("nvmlDeviceGetUUID(m)") == INVALID_ARGUMENT
    assert nvml.error(f"nvmlDeviceGetHandleByUUID({uuids[1]!r})") == NOT_FOUND
    with pytest.raises(ValueError, match="7 slices"):
        gpu.set_instances(["7g.80gb", "1g.10gb"])


def test_energy_power_and_utilization_are_not_told_of_an_instance(
    double: NvmlDouble, nvml: Nvml
) -> None:
    double.gpus[0].mig_enabled = 1
    double.gpus[0].set_instances(["7g.80gb"])
    nvml.run("m = nvmlDeviceGetMigDeviceHandleByIndex(h[0], 0)")
    for function in ("TotalEnergyConsumption", "PowerUsage", "UtilizationRates"):
        assert nvml.error(f"nvmlDeviceGet{function}(m)") == NOT_SUPPORTED
    assert nvml.value("nvmlDeviceGetTotalEnergyConsumption(h[0])") > 0


@pytest.mark.parametrize(("slices", "profiles"), [(7, [1, 2, 3, 4, 7]), (4, [1, 2, 4])])
def test_the_largest_profile_has_all_slices_of_the_card(
    tmp_path: Path, slices: int, profiles: list[int]
) -> None:
    card = replace(PROFILES["a100"], compute_slices=slices)
    with NvmlDouble(tmp_path, [card]) as double, Nvml(double) as nvml:
        ask = "nvmlDeviceGetGpuInstanceProfileInfo(h[0], {}, version=1).sliceCount"
        assert nvml.error(ask.format(0)) == NOT_SUPPORTED, "MIG is off"
        double.gpus[0].mig_enabled = 1
        numbers = range(nvml.value("NVML_GPU_INSTANCE_PROFILE_COUNT"))
        told = [nvml.ask("result = " + ask.format(number)) for number in numbers]
        assert [item["result"] for item in told if item["error"] is None] == profiles
        assert {item["error"] for item in told} == {None, NOT_SUPPORTED}


def test_processes_are_listed(double: NvmlDouble, nvml: Nvml) -> None:
    double.gpus[0].set_processes([(os.getpid(), 5 << 30), (99, 1 << 20)])
    listed = "[(p.pid, p.usedGpuMemory) for p in nvmlDeviceGetComputeRunningProcesses(h[0])]"
    assert nvml.value(listed) == [[os.getpid(), 5 << 30], [99, 1 << 20]]
    assert "python" in nvml.value(f"nvmlSystemGetProcessName({os.getpid()})")
    double.gpus[0].set_processes([])
    assert nvml.value(listed) == []


def test_locked_clocks_hold_the_running_clock_in_their_range(
    double: NvmlDouble, nvml: Nvml
) -> None:
    gpu = double.gpus[0]
    nvml.run("nvmlDeviceSetGpuLockedClocks(h[0], 600, 1005)")
    assert gpu.sm_lock_mhz == (600, 1005)
    assert nvml.value("nvmlDeviceGetClockInfo(h[0], NVML_CLOCK_SM)") == 1005
    gpu.sm_clock_requested_mhz = 300
    assert nvml.value("nvmlDeviceGetClockInfo(h[0], NVML_CLOCK_GRAPHICS)") == 600
    nvml.run("nvmlDeviceResetGpuLockedClocks(h[0])")
    assert nvml.value("nvmlDeviceGetClockInfo(h[0], NVML_CLOCK_SM)") == 300
    nvml.run("nvmlDeviceSetMemoryLockedClocks(h[1], 1593, 1593)")
    assert nvml.value("nvmlDeviceGetClockInfo(h[1], NVML_CLOCK_MEM)") == 1593
    double.reload_driver()
    assert double.gpus[1].memory_lock_mhz is None


def test_power_limits_are_set_and_capped(double: NvmlDouble, nvml: Nvml) -> None:
    nvml.run("nvmlDeviceSetPowerManagementLimit(h[0], 250000)")
    double.gpus[0].enforced_cap_mw = 180_000
    assert nvml.value("nvmlDeviceGetPowerManagementLimit(h[0])") == 250_000
    assert nvml.value("nvmlDeviceGetEnforcedPowerLimit(h[0])") == 180_000


def test_setters_are_validated_and_logged(double: NvmlDouble, nvml: Nvml) -> None:
    assert nvml.error("nvmlDeviceSetPowerManagementLimit(h[1], 200000)") is None
    assert nvml.error("nvmlDeviceSetPowerManagementLimit(h[1], 199999)") == INVALID_ARGUMENT
    assert nvml.error("nvmlDeviceSetGpuLockedClocks(h[0], 900, 800)") == INVALID_ARGUMENT
    assert nvml.error("nvmlDeviceSetGpuLockedClocks(h[0], 210, 1425)") == INVALID_ARGUMENT
    assert nvml.error("nvmlDeviceSetMemoryLockedClocks(h[0], 100, 1593)") == INVALID_ARGUMENT
    before = time.monotonic_ns()
    assert nvml.error("nvmlDeviceResetGpuLockedClocks(h[0])") is None
    log = double.setter_log()
    assert [(call.function[10:], call.gpu, call.args, call.result) for call in log] == [
        ("SetPowerManagementLimit", 1, (200_000,), 0),
        ("SetPowerManagementLimit", 1, (199_999,), INVALID_ARGUMENT),
        ("SetGpuLockedClocks", 0, (900, 800), INVALID_ARGUMENT),
        ("SetGpuLockedClocks", 0, (210, 1425), INVALID_ARGUMENT),
        ("SetMemoryLockedClocks", 0, (100, 1593), INVALID_ARGUMENT),
        ("ResetGpuLockedClocks", 0, (), 0),
    ]
    assert before <= log[-1].t_ns <= time.monotonic_ns()
    assert {call.pid for call in log} == {nvml.value("__import__('os').getpid()")}
    assert double.gpus[0].sm_lock_mhz is None


# -- faults


def test_a_lost_gpu_fails_every_call_and_comes_back(double: NvmlDouble, nvml: Nvml) -> None:
    calls = [
        "nvmlDeviceGetName(h[0])",
        "nvmlDeviceGetFieldValues(h[0], [83])",
        "nvmlDeviceGetTotalEnergyConsumption(h[0])",
        "nvmlDeviceSetGpuLockedClocks(h[0], 600, 1005)",
        "nvmlDeviceGetHandleByIndex(0)",
    ]
    double.gpus[0].lose()
    assert [nvml.error(call) for call in calls] == [GPU_IS_LOST] * 5
    assert nvml.error("nvmlDeviceGetName(h[1])") is None
    double.gpus[0].restore()
    assert [nvml.error(call) for call in calls] == [None] * 5


def test_a_function_can_fail_on_one_gpu_always_or_sometimes(double: NvmlDouble, nvml: Nvml) -> None:
    gpu = double.gpus[0]
    gpu.fail("nvmlDeviceGetUtilizationRates")
    assert nvml.error("nvmlDeviceGetUtilizationRates(h[0])") == NOT_SUPPORTED
    assert nvml.error("nvmlDeviceGetUtilizationRates(h[1])") is None
    gpu.fail("nvmlDeviceGetUtilizationRates", rate=0)
    assert nvml.error("nvmlDeviceGetUtilizationRates(h[0])") is None
    gpu.fail("nvmlDeviceGetTemperature", error=999, rate=0.2)
    nvml.run(
        "def failed():\n"
        "    try: nvmlDeviceGetTemperature(h[0], 0)\n"
        "    except NVMLError as error: return error.value\n"
        "    return 0"
    )
    codes = nvml.value("[failed() for _ in range(1000)]")
    assert set(codes) == {0, 999}
    assert 100 < codes.count(999) < 300


def test_a_function_can_be_absent_from_the_library(tmp_path: Path) -> None:
    missing = ["nvmlDeviceGetFieldValues"]
    with NvmlDouble(tmp_path, ["a100"], omit=missing) as double, Nvml(double) as nvml:
        assert nvml.error("nvmlDeviceGetFieldValues(h[0], [83])") == FUNCTION_NOT_FOUND
        assert nvml.error("nvmlDeviceGetPowerUsage(h[0])") is None
    with pytest.raises(ValueError, match="nvmlNoSuch"):
        build(omit=["nvmlNoSuch"])


def test_driver_not_loaded_and_library_missing(double: NvmlDouble) -> None:
    double.driver_loaded = False
    with Nvml(double, init=False) as nvml:
        assert nvml.error("nvmlInit()") == DRIVER_NOT_LOADED
        assert nvml.error("nvmlDeviceGetCount()") == 1
        double.driver_loaded = True
        assert nvml.error("nvmlInit()") is None
        assert nvml.error("nvmlShutdown()") is None
        assert nvml.error("nvmlDeviceGetCount()") == 1
    double.library = None
    with Nvml(double, init=False) as nvml:
        assert nvml.error("nvmlInit()") == LIBRARY_NOT_FOUND


def test_a_hung_gpu_blocks_its_own_calls_only(double: NvmlDouble, nvml: Nvml) -> None:
    gpu = double.gpus[0]
    gpu.hang()
    nvml.run("hung = threading.Thread(target=nvmlDeviceGetTemperature, args=(h[0], 0))")
    nvml.run("hung.start()")
    wait_until(lambda: gpu.call_counts()["nvmlDeviceGetTemperature"] == 1)
    assert nvml.value("[nvmlDeviceGetTemperature(h[1], 0) for _ in range(100)]") == [34] * 100
    assert nvml.value("hung.is_alive()")
    gpu.unhang()
    nvml.run("hung.join(5)")
    assert not nvml.value("hung.is_alive()")
    gpu.hang(0.05)
    nvml.run("nvmlDeviceGetTemperature(h[0], 0)")
    assert nvml.span[1] - nvml.span[0] > 40 * MS


@pytest.mark.parametrize("latency_ns", [30_000, 500_000])
def test_calls_take_their_time_one_after_the_other(
    double: NvmlDouble, nvml: Nvml, latency_ns: int
) -> None:
    double.call_latency_ns = latency_ns
    nvml.run(
        "def calls(gpu):\n"
        "    for _ in range(20): nvmlDeviceGetTemperature(gpu, 0)\n"
        "threads = [threading.Thread(target=calls, args=(gpu,)) for gpu in h]"
    )
    nvml.run("[t.start() for t in threads]; [t.join() for t in threads]")
    assert nvml.span[1] - nvml.span[0] >= 40 * latency_ns
