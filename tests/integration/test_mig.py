"""Windows on MIG instances: the card's energy by compute slices, over the real NVML binding."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from greend_client import Client
from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import daemon, sleep_until
from tests.integration.conftest import BASE_W, Metered, set_base_power
from tests.integration.test_windows import MS, S, refused
from tests.nvml_double import PROFILES, DoubleGpu, NvmlDouble

NO_PERMISSION = 4
PROCESSES = "nvmlDeviceGetComputeRunningProcesses_v3"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Metered]:
    """Two A100s; the first is split into 3g.40gb and 1g.10gb, and its processes are not told."""
    with NvmlDouble(tmp_path, ["a100", "a100"]) as double:
        set_base_power(double)
        double.gpus[0].mig_enabled = 1
        double.gpus[0].set_instances(["3g.40gb", "1g.10gb"])
        double.gpus[0].fail(PROCESSES, NO_PERMISSION)
        with (
            daemon(environment=os.environ | double.environment, devices=2) as running,
            running.stub() as stub,
        ):
            yield Metered(double, running, stub)


def instances(host: Metered) -> list[str]:
    """The UUIDs of the first GPU's instances, as the daemon tells them."""
    listed = host.stub.ListDevices(pb.ListDevicesRequest()).devices
    return [instance.uuid for instance in listed[0].mig_instances]


def pulse(gpu: DoubleGpu, watts: float) -> tuple[int, int]:
    """A pulse of 700 ms, soon: its begin and end."""
    start = time.monotonic_ns() + 300 * MS
    gpu.script_pulses([(start, start + 700 * MS, watts)], base_w=BASE_W)
    return start, start + 700 * MS


def together(host: Metered, start: int, stop: int, *devices: list[str]) -> list[types_pb2.Window]:
    """The final windows of one interval, one on each list of devices."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    sleep_until(start)
    opened = [
        host.stub.StartWindow(pb.StartWindowRequest(devices=named, start_unix_ns=start + offset_ns))
        for named in devices
    ]
    assert [list(window.devices) for window in opened] == list(devices)
    sleep_until(stop)
    stops = [
        pb.StopWindowRequest(window_id=window.window_id, stop_unix_ns=stop + offset_ns)
        for window in opened
    ]
    for request in stops:
        host.stub.StopWindow(request)
    ids = [window.window_id for window in opened]
    return [host.stub.GetWindow(pb.GetWindowRequest(window_id=i, wait_s=10)) for i in ids]


def eventually(condition: Callable[[], object], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_instances_share_floor_and_rest_of_their_card_by_slices(host: Metered) -> None:
    gpu = host.double.gpus[0]
    three, one = instances(host)
    start, stop = pulse(gpu, 320.0)
    large, small = together(host, start, stop, [three], [one])
    assert large.idle_energy_j == pytest.approx(3 * small.idle_energy_j, rel=1e-3)
    assert large.active_energy_j == pytest.approx(3 * small.active_energy_j, rel=1e-3)
    assert small.idle_energy_j == pytest.approx(BASE_W * 0.7 / 4, rel=0.05)
    truth = gpu.true_energy_j(start, stop)
    assert large.energy_j + small.energy_j == pytest.approx(truth, rel=0.05)
    for window, instance in ((large, three), (small, one)):
        assert list(window.flags) == ["mig"]
        assert list(window.devices) == [instance]
        assert window.weight == 1.0
        assert [part.device for part in window.device_energies] == [gpu.uuid]
        assert window.device_energy_j == pytest.approx(truth, rel=0.05)


def test_instances_of_one_card_add_up_beside_a_window_on_the_whole(host: Metered) -> None:
    gpu = host.double.gpus[0]
    start, stop = pulse(gpu, 320.0)
    both, whole = together(host, start, stop, instances(host), [gpu.uuid])
    assert both.energy_j == pytest.approx(4 / 7 * whole.energy_j, rel=1e-3)
    assert both.energy_j + whole.energy_j == pytest.approx(gpu.true_energy_j(start, stop), rel=0.05)
    assert [part.device for part in both.device_energies] == [gpu.uuid]
    assert list(both.flags) == ["mig"]
    assert list(whole.flags) == []


def test_an_instance_of_a_card_that_is_named_adds_nothing_to_it(host: Metered) -> None:
    gpu = host.double.gpus[0]
    start, stop = pulse(gpu, 320.0)
    named, whole = together(host, start, stop, [gpu.uuid, instances(host)[0]], [gpu.uuid])
    assert named.energy_j == pytest.approx(whole.energy_j, rel=1e-3)


def test_without_instances_named_all_cards_are_meant(host: Metered) -> None:
    window = host.stub.StartWindow(pb.StartWindowRequest())
    assert list(window.devices) == [gpu.uuid for gpu in host.double.gpus]
    assert list(window.flags) == []


def test_an_unknown_instance_is_not_found_and_told_with_what_exists(host: Metered) -> None:
    gone = "MIG-00000000-0000-5000-8000-000000000000"
    exist = [*instances(host), *(gpu.uuid for gpu in host.double.gpus)]
    refused(
        lambda: host.stub.StartWindow(pb.StartWindowRequest(devices=[gone])),
        grpc.StatusCode.NOT_FOUND,
        f"devices: no device '{gone}'",
        *exist,
    )
    by_it = types_pb2.WindowFilter(devices=[gone])
    refused(
        lambda: host.stub.ListWindows(pb.ListWindowsRequest(filter=by_it)),
        grpc.StatusCode.NOT_FOUND,
        gone,
        *exist,
    )


def test_the_same_start_again_is_the_same_and_another_instance_is_not(host: Metered) -> None:
    three, one = instances(host)
    start = pb.StartWindowRequest(window_id=str(uuid.uuid4()), devices=[three])
    first = host.stub.StartWindow(start)
    again = host.stub.StartWindow(start)
    assert (again.start_unix_ns, list(again.devices)) == (first.start_unix_ns, [three])
    stop = pb.StopWindowRequest(window_id=first.window_id, wait_s=10)
    final = host.stub.StopWindow(stop)
    assert host.stub.StartWindow(start) == final
    other = pb.StartWindowRequest(window_id=first.window_id, devices=[one])
    refused(lambda: host.stub.StartWindow(other), grpc.StatusCode.INVALID_ARGUMENT, "devices")


def test_work_of_others_is_told_from_the_floor_without_utilization(host: Metered) -> None:
    gpu = host.double.gpus[0]
    listed = host.stub.ListDevices(pb.ListDevicesRequest()).devices[0]
    assert listed.capabilities.mig
    assert not listed.capabilities.utilization
    assert listed.floor_w == pytest.approx(BASE_W, rel=0.05), "just learnt"
    gpu.set_power_w(BASE_W + 100)
    time.sleep(4)
    start = time.monotonic_ns() + 200 * MS
    gpu.script_pulses([(start, start + S, BASE_W + 300)], base_w=BASE_W + 100)
    (window,) = together(host, start, start + S, instances(host)[:1])
    assert sorted(window.flags) == ["mig", "shared_with_untracked"]
    assert window.idle_energy_j == pytest.approx(BASE_W, rel=0.05)
    assert window.active_energy_j == pytest.approx(200, rel=0.1)


def test_instances_come_and_go_and_their_history_stays(host: Metered) -> None:
    gpu = host.double.gpus[0]
    three, one = instances(host)
    for name in ([three], [one], [gpu.uuid], [host.double.gpus[1].uuid]):
        opened = host.stub.StartWindow(pb.StartWindowRequest(request_id=name[0], devices=name))
        host.stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id))

    def having(*uuids: str) -> list[str]:
        query = types_pb2.WindowFilter(devices=uuids)
        found = host.stub.ListWindows(pb.ListWindowsRequest(filter=query))
        return sorted(window.request_id for window in found.windows)

    assert having(three) == [three]
    assert having(gpu.uuid) == sorted([three, one, gpu.uuid])
    other = gpu.set_instances(["7g.80gb"])
    eventually(lambda: instances(host) == other)
    assert having(three) == [three], "destroyed, but not forgotten"
    assert having(gpu.uuid) == sorted([three, one, gpu.uuid])
    assert having(*other) == []
    refused(
        lambda: host.stub.StartWindow(pb.StartWindowRequest(devices=[three])),
        grpc.StatusCode.NOT_FOUND,
        *other,
    )
    assert host.stub.StartWindow(pb.StartWindowRequest(devices=other)).flags == ["mig"]
    gpu.mig_enabled = 0
    eventually(lambda: instances(host) == [])
    able = host.stub.ListDevices(pb.ListDevicesRequest()).devices[0].capabilities
    assert (able.mig, able.utilization) == (False, True), "as if it had been opened so"


def test_a_live_feed_is_filtered_by_card_and_by_instance(host: Metered) -> None:
    gpu = host.double.gpus[0]
    three, one = instances(host)
    feeds = {
        uuid: host.stub.WatchWindows(
            pb.WatchWindowsRequest(filter=types_pb2.WindowFilter(devices=[uuid]))
        )
        for uuid in (one, gpu.uuid)
    }
    for feed in feeds.values():
        feed.initial_metadata()
    now = time.monotonic_ns()
    together(host, now, now + 100 * MS, [three])
    together(host, now, now + 100 * MS, [one])
    assert list(next(feeds[one]).devices) == [one]
    assert list(next(feeds[gpu.uuid]).devices) == [three]
    for feed in feeds.values():
        feed.cancel()


def test_a_client_that_sees_an_instance_is_measured_on_it(
    host: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = host.double.gpus[0]
    three, one = instances(host)
    for visible in (one, f"MIG-{gpu.uuid}/2/0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with Client(host.daemon.address) as client:
            with client.window(gpus="auto") as window:
                time.sleep(0.2)
            result = window.result(timeout=10)
            assert result.devices == (one,)
            assert result.flags == ("mig",)
            # Alone on its card, it has all of the card's energy.
            assert result.energy_j == pytest.approx(BASE_W * 0.2, rel=0.2)
            found = [past.window_id for past in client.history(devices=one)]
            assert result.window_id in found
            assert list(client.history(devices=three)) == []


def test_every_joule_of_a_split_card_is_stored_once(host: Metered) -> None:
    gpu = host.double.gpus[0]
    three, one = instances(host)
    start, stop = pulse(gpu, 320.0)
    named = ([three], [one], [three, one], [gpu.uuid], [one, host.double.gpus[1].uuid])
    windows = together(host, start, stop, *named)
    assert [window.state for window in windows] == ["final"] * len(named)
    assert host.daemon.stop() == 0
    for card in host.double.gpus:
        (row,) = host.daemon.rows(
            "select sum(measured_mj) as measured, sum(windows_mj) as windows, sum(idle_mj) as idle,"
            " sum(unattributed_mj) as unattributed, sum(gap_mj) as gap from minutes"
            " where device = ?",
            card.uuid,
        )
        measured = row.pop("measured")
        assert sum(row.values()) == pytest.approx(measured, rel=1e-9)
        own_mj = sum(
            part.own_energy_j * 1e3
            for window in windows
            for part in window.device_energies
            if part.device == card.uuid
        )
        assert own_mj == pytest.approx(row["windows"], rel=1e-9)
        assert own_mj > 0


@pytest.mark.parametrize(
    ("card", "omit", "slices"),
    [
        ("a100", [], 7),
        ("a30", [], 4),
        ("a100", ["nvmlDeviceGetGpuInstanceProfileInfo"], 7),  # the driver does not tell
    ],
)
def test_a_cards_slices_are_those_of_its_largest_profile(
    tmp_path: Path, card: str, omit: list[str], slices: int
) -> None:
    a30 = replace(PROFILES["a100"], name="NVIDIA A30", memory_gib=24, compute_slices=4)
    with NvmlDouble(tmp_path, [a30 if card == "a30" else card, "a100"], omit=omit) as double:
        double.gpus[0].mig_enabled = 1
        uuids = double.gpus[0].set_instances(["2g.12gb", "1c.2g.12gb"])
        with (
            daemon(environment=os.environ | double.environment, devices=2) as running,
            running.stub() as stub,
        ):
            split, plain = stub.ListDevices(pb.ListDevicesRequest()).devices
    assert split.compute_slices == slices
    assert [instance.uuid for instance in split.mig_instances] == uuids
    assert [instance.compute_slices for instance in split.mig_instances] == [2, 1]
    assert [instance.gpu_instance_id for instance in split.mig_instances] == [1, 2]
    assert split.mig_instances[1].name == f"{split.name} MIG 1c.2g.12gb"
    assert not plain.HasField("compute_slices")
    assert not plain.mig_instances
