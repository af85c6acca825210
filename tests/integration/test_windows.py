"""Windows through a real daemon, over its socket, on the real NVML binding."""

import time
import uuid

import grpc
import pytest

from greend_proto.v1 import control_pb2, types_pb2
from greend_proto.v1 import metering_pb2 as pb
from tests.daemon import sleep_until
from tests.integration.conftest import BASE_W, Metered

MS = 1_000_000
S = 1_000_000_000


def unix_ns(monotonic_ns: int) -> int:
    return monotonic_ns + time.time_ns() - time.monotonic_ns()


def refused(call: object, status: grpc.StatusCode, *words: str) -> None:
    """The call is refused with this status and a message with these words."""
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.code() is status, caught.value.details()
    for word in words:
        assert word in (caught.value.details() or "")


def test_a_window_gets_the_energy_of_its_time(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    start = time.monotonic_ns() + 300 * MS
    stop = start + 700 * MS
    gpu.script_pulses([(start, stop, 320.0)], base_w=BASE_W)
    sleep_until(start)
    opened = metered.stub.StartWindow(
        pb.StartWindowRequest(
            request_id="req-1",
            devices=[gpu.uuid],
            tags={"model": "llama"},
            start_unix_ns=unix_ns(start),
        )
    )
    assert opened.state == "open"
    assert not opened.HasField("energy_j"), "nothing was measured yet: unknown, not 0"
    sleep_until(stop)
    window = metered.stub.StopWindow(
        pb.StopWindowRequest(
            window_id=opened.window_id,
            stop_unix_ns=unix_ns(stop),
            wait_s=10,
            usage=types_pb2.Usage(
                prompt_tokens=12, output_tokens=7, first_token_unix_ns=unix_ns(start + 200 * MS)
            ),
        )
    )
    assert window.state == "final"
    truth = gpu.true_energy_j(start, stop)
    assert window.energy_j == pytest.approx(truth, rel=0.05)
    assert window.energy_j == pytest.approx(window.idle_energy_j + window.active_energy_j)
    assert window.idle_energy_j == pytest.approx(BASE_W * 0.7, rel=0.05)
    assert window.device_energy_j >= window.energy_j - 1e-9
    assert window.source == "energy_counter"
    assert list(window.flags) == []
    assert window.duration_s == pytest.approx(0.7, abs=1e-4)
    assert window.ttft_s == pytest.approx(0.2, abs=1e-4)
    assert window.joules_per_output_token == pytest.approx(window.energy_j / 7)
    assert window.avg_power_w == pytest.approx(320, rel=0.05)
    assert window.sm_clock_mhz > 0
    assert metered.stub.GetWindow(pb.GetWindowRequest(window_id=window.window_id)) == window


def test_two_overlapping_windows_share_equally(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    start = time.monotonic_ns() + 300 * MS
    stop = start + 600 * MS
    gpu.script_pulses([(start, stop, 320.0)], base_w=BASE_W)
    sleep_until(start)
    start_unix_ns = unix_ns(start)
    ids = [
        metered.stub.StartWindow(
            pb.StartWindowRequest(devices=[gpu.uuid], start_unix_ns=start_unix_ns)
        )
        for _ in range(2)
    ]
    sleep_until(stop)
    stopped = [
        metered.stub.StopWindow(
            pb.StopWindowRequest(window_id=window.window_id, stop_unix_ns=start_unix_ns + 600 * MS)
        )
        for window in ids
    ]
    a, b = (
        metered.stub.GetWindow(pb.GetWindowRequest(window_id=window.window_id, wait_s=10))
        for window in stopped
    )
    # Not quite to the last digit: the two clocks were read for each of them.
    assert a.energy_j == pytest.approx(b.energy_j, rel=1e-3)
    assert a.energy_j + b.energy_j == pytest.approx(gpu.true_energy_j(start, stop), rel=0.05)
    assert a.device_energy_j == pytest.approx(a.energy_j + b.energy_j, rel=0.01)


def test_a_window_without_devices_is_on_all_of_them(metered: Metered) -> None:
    opened = metered.stub.StartWindow(pb.StartWindowRequest())
    time.sleep(0.5)
    window = metered.stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id, wait_s=10))
    assert list(window.devices) == [gpu.uuid for gpu in metered.double.gpus]
    assert window.energy_j == pytest.approx(2 * BASE_W * window.duration_s, rel=0.05)
    assert sum(part.own_energy_j for part in window.device_energies) == pytest.approx(
        window.energy_j
    )


def test_a_parents_energy_is_its_own_and_its_childrens(metered: Metered) -> None:
    uuids = [metered.double.gpus[0].uuid]
    parent = metered.stub.StartWindow(pb.StartWindowRequest(devices=uuids))
    time.sleep(0.3)
    child = metered.stub.StartWindow(
        pb.StartWindowRequest(devices=uuids, parent_id=parent.window_id)
    )
    time.sleep(0.4)
    metered.stub.StopWindow(pb.StopWindowRequest(window_id=child.window_id))
    time.sleep(0.2)
    whole = metered.stub.StopWindow(pb.StopWindowRequest(window_id=parent.window_id, wait_s=10))
    part = metered.stub.GetWindow(pb.GetWindowRequest(window_id=child.window_id))
    assert part.state == "final"
    own = whole.device_energies[0].own_energy_j
    assert whole.energy_j == pytest.approx(own + part.energy_j, rel=1e-9)
    assert whole.energy_j == pytest.approx(BASE_W * whole.duration_s, rel=0.05)
    assert own == pytest.approx(BASE_W * (whole.duration_s - part.duration_s), rel=0.1)


def test_the_same_start_or_stop_again_gets_the_same_answer(metered: Metered) -> None:
    request = pb.StartWindowRequest(
        window_id=str(uuid.uuid4()), request_id="r", devices=[metered.double.gpus[0].uuid]
    )
    first = metered.stub.StartWindow(request)
    again = metered.stub.StartWindow(request)
    assert again.start_unix_ns == first.start_unix_ns
    time.sleep(0.2)
    stopped = metered.stub.StopWindow(pb.StopWindowRequest(window_id=first.window_id))
    assert stopped.state in ("stopped", "final")
    final = metered.stub.StopWindow(pb.StopWindowRequest(window_id=first.window_id, wait_s=10))
    assert final.stop_unix_ns == stopped.stop_unix_ns
    # And when it is history: what is final never changes.
    assert metered.stub.StartWindow(request) == final
    assert metered.stub.StopWindow(pb.StopWindowRequest(window_id=first.window_id)) == final
    other = pb.StartWindowRequest(window_id=first.window_id, request_id="other")
    refused(lambda: metered.stub.StartWindow(other), grpc.StatusCode.INVALID_ARGUMENT, "window_id")


def test_a_window_told_late_still_gets_its_energy(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    start = time.monotonic_ns() + 300 * MS
    stop = start + 800 * MS
    gpu.script_pulses([(start, stop, 320.0)], base_w=BASE_W)
    sleep_until(stop + 2 * S)
    opened = metered.stub.StartWindow(
        pb.StartWindowRequest(devices=[gpu.uuid], start_unix_ns=unix_ns(start))
    )
    window = metered.stub.StopWindow(
        pb.StopWindowRequest(window_id=opened.window_id, stop_unix_ns=unix_ns(stop), wait_s=10)
    )
    assert "late" in window.flags
    # Nobody had said that more than a look a second was needed then.
    assert window.energy_j == pytest.approx(gpu.true_energy_j(start, stop), rel=0.25)


def test_samples_of_a_gpu_at_rest_are_booked_before_a_window_starts(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    start = time.monotonic_ns() + 3 * S
    sleep_until(start + 3 * S)
    opened = metered.stub.StartWindow(
        pb.StartWindowRequest(devices=[gpu.uuid], start_unix_ns=unix_ns(start))
    )
    stop = time.monotonic_ns()
    window = metered.stub.StopWindow(
        pb.StopWindowRequest(window_id=opened.window_id, stop_unix_ns=unix_ns(stop), wait_s=10)
    )
    assert "late" in window.flags, "its steps were over when it was told"
    assert window.energy_j == pytest.approx(BASE_W * (stop - start) / S, rel=0.05)


def test_a_window_started_with_a_token_is_changed_only_with_it(metered: Metered) -> None:
    opened = metered.stub.StartWindow(pb.StartWindowRequest(session_token="secret"))
    for token in ("", "guess"):
        stop = pb.StopWindowRequest(window_id=opened.window_id, session_token=token)
        refused(
            lambda stop=stop: metered.stub.StopWindow(stop),
            grpc.StatusCode.PERMISSION_DENIED,
            "session_token",
        )
    stopped = metered.stub.StopWindow(
        pb.StopWindowRequest(window_id=opened.window_id, session_token="secret")
    )
    assert stopped.state == "stopped"
    stored = metered.daemon.rows("select token_digest from windows")
    assert b"secret" not in stored[0]["token_digest"]


def test_history_comes_newest_first_page_by_page_and_filtered(metered: Metered) -> None:
    stub = metered.stub
    uuids = [gpu.uuid for gpu in metered.double.gpus]
    for number in range(7):
        opened = stub.StartWindow(
            pb.StartWindowRequest(
                request_id=f"req-{number}",
                devices=[uuids[number % 2]],
                tags={"model": "ab"[number % 2], "number": str(number)},
            )
        )
        if number < 5:
            stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id))
    seen: list[str] = []
    token = ""
    while True:
        page = stub.ListWindows(pb.ListWindowsRequest(page_size=3, page_token=token))
        seen += [window.request_id for window in page.windows]
        token = page.next_page_token
        if not token:
            break
        assert len(page.windows) == 3
    assert seen == [f"req-{number}" for number in reversed(range(7))]

    def having(**conditions: object) -> list[str]:
        found = stub.ListWindows(
            pb.ListWindowsRequest(filter=types_pb2.WindowFilter(**conditions))  # type: ignore[arg-type]
        )
        return sorted(window.request_id for window in found.windows)

    assert having(request_id="req-3") == ["req-3"]
    assert having(tags={"model": "b"}) == ["req-1", "req-3", "req-5"]
    assert having(tags={"model": "b", "number": "1"}) == ["req-1"]
    assert having(devices=[uuids[1]]) == ["req-1", "req-3", "req-5"]
    assert having(states=["open"]) == ["req-5", "req-6"]
    middle = stub.ListWindows(
        pb.ListWindowsRequest(filter=types_pb2.WindowFilter(request_id="req-4"))
    ).windows[0]
    assert having(until_unix_ns=middle.start_unix_ns) == ["req-0", "req-1", "req-2", "req-3"]
    # What still runs has not ended before anything.
    assert having(since_unix_ns=middle.start_unix_ns) == ["req-4", "req-5", "req-6"]


def test_control_goes_through_its_own_door(metered: Metered) -> None:
    from greend_proto.v1 import control_pb2_grpc

    with metered.daemon.channel() as channel:
        reading = control_pb2_grpc.ControlServiceStub(channel)
        refused(
            lambda: reading.AcquireLimit(control_pb2.AcquireLimitRequest(ttl_s=-1)),
            grpc.StatusCode.PERMISSION_DENIED,
            "control.sock",
        )
    with metered.daemon.control_stub() as control:
        refused(
            lambda: control.ListLeases(control_pb2.ListLeasesRequest()),
            grpc.StatusCode.UNIMPLEMENTED,
            "ListLeases",
        )
