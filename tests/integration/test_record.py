"""RecordWindows on the real path: sessions, order, resending, phases, iterations."""

import os
import signal
import time
import uuid
from pathlib import Path

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import daemon, sleep_until
from tests.integration.conftest import BASE_W, Metered
from tests.integration.recording import (
    Event,
    Stream,
    begin,
    change,
    end,
    new_id,
    now_ns,
    ran,
    session,
)
from tests.integration.small_disk import small_disk
from tests.integration.test_windows import MS, S
from tests.nvml_double import NvmlDouble


def test_a_window_with_all_that_can_happen_to_it(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    start = now_ns() + 300 * MS
    middle, stop = start + 300 * MS, start + 700 * MS
    gpu.script_pulses([(start, middle, 320.0), (middle, stop, 200.0)], base_w=BASE_W)
    window_id = new_id()
    with session(metered.stub) as stream:
        sleep_until(start)
        fields = {"request_id": "req-1", "devices": [gpu.uuid], "tags": {"model": "llama"}}
        stream.tell(begin(1, start, window_id, **fields))
        opened = metered.stub.GetWindow(pb.GetWindowRequest(window_id=window_id))
        assert opened.state == "open"
        stream.send(
            change(2, start, window_id, phase="prefill"),
            change(3, start, window_id, usage=types_pb2.Usage(prompt_tokens=12, output_tokens=1)),
        )
        sleep_until(middle)
        stream.tell(
            change(4, middle, window_id, phase="decode"),
            change(5, middle, window_id, first_token=Event.FirstToken()),
        )
        sleep_until(stop)
        stream.tell(
            change(6, stop, window_id, usage=types_pb2.Usage(output_tokens=7)),
            end(7, stop, window_id),
        )
        (window,) = stream.final(window_id)
        assert stream.refusals == {}
    assert (window.state, window.request_id) == ("final", "req-1")
    assert dict(window.tags) == {"model": "llama"}
    assert window.energy_j == pytest.approx(gpu.true_energy_j(start, stop), rel=0.05)
    assert (window.usage.prompt_tokens, window.usage.output_tokens) == (12, 7)
    assert window.ttft_s == pytest.approx(0.3)
    assert window.duration_s == pytest.approx(0.7)
    assert window.joules_per_output_token == pytest.approx(window.energy_j / 7)
    assert 0 < window.uncertainty_j < window.energy_j / 4
    phases = list(window.phases)
    assert [phase.name for phase in phases] == ["prefill", "decode"]
    assert phases[0].start_unix_ns == window.start_unix_ns
    assert phases[0].stop_unix_ns == phases[1].start_unix_ns == window.start_unix_ns + 300 * MS
    assert phases[1].stop_unix_ns == window.stop_unix_ns
    for name in ("energy_j", "idle_energy_j", "active_energy_j"):
        parts = sum(getattr(phase, name) for phase in phases)
        assert parts == pytest.approx(getattr(window, name), rel=1e-9)
    truth = gpu.true_energy_j(start, middle)
    assert phases[0].energy_j == pytest.approx(truth, rel=0.1)
    assert all(0 < phase.uncertainty_j < phase.energy_j for phase in phases)
    # As told, so stored.
    assert metered.stub.GetWindow(pb.GetWindowRequest(window_id=window_id)) == window


def test_iterations_give_to_their_members_by_cost(metered: Metered) -> None:
    gpu = metered.double.gpus[0]
    start = now_ns() + 300 * MS
    middle, pause, stop = start + 300 * MS, start + 600 * MS, start + 900 * MS
    # Whatever the GPU does in the pause is not the windows'.
    gpu.script_pulses([(start, stop, 360.0)], base_w=BASE_W)
    first, second = new_id(), new_id()
    with session(metered.stub) as stream:
        sleep_until(start)
        stream.tell(
            begin(1, start, first, devices=[gpu.uuid], iteration_driven=True),
            begin(2, start, second, devices=[gpu.uuid]),  # it becomes so with its first
            ran(3, start, middle, {first: 7, second: 0}),
        )
        sleep_until(pause)
        stream.tell(ran(4, middle, pause, {first: 1, second: 3}))
        sleep_until(stop)
        stream.tell(end(5, stop, first), end(6, stop, second))
        one, two = stream.final(first, second)
        assert stream.refusals == {}
    early = gpu.true_energy_j(start, middle) - BASE_W * 0.3
    late = gpu.true_energy_j(middle, pause) - BASE_W * 0.3
    assert one.active_energy_j == pytest.approx(early + late / 4, rel=0.1)
    assert two.active_energy_j == pytest.approx(late * 3 / 4, rel=0.1)
    assert one.idle_energy_j == pytest.approx(BASE_W * 0.9 / 2, rel=0.05)
    assert one.idle_energy_j == pytest.approx(two.idle_energy_j, rel=0.01)


def test_a_childs_uncertainty_is_its_parents_too(metered: Metered) -> None:
    devices = [gpu.uuid for gpu in metered.double.gpus]
    outer, inner = new_id(), new_id()
    at = now_ns()
    with session(metered.stub) as stream:
        stream.tell(
            begin(1, at, outer, devices=devices),
            begin(2, at + 1, inner, devices=devices, parent_id=outer),
        )
        sleep_until(at + 400 * MS)
        stream.tell(end(3, at + 300 * MS, inner), end(4, at + 400 * MS, outer))
        whole, part = stream.final(outer, inner)
    assert whole.energy_j > part.energy_j > 0
    assert whole.uncertainty_j > part.uncertainty_j > 0


def test_what_was_sent_before_is_acknowledged_again_and_not_applied_again(
    metered: Metered,
) -> None:
    gpu = metered.double.gpus[0]
    first, second = new_id(), new_id()
    start = now_ns() + 200 * MS
    gpu.script_pulses([(start, start + 400 * MS, 360.0)], base_w=BASE_W)
    sleep_until(start + 400 * MS)
    with session(metered.stub) as stream:
        on = {"devices": [gpu.uuid], "iteration_driven": True}
        told = [begin(1, start, first, **on), begin(2, start, second, **on)]
        stream.tell(*told, ran(3, start, start + 400 * MS, {first: 1}), end(4, start - S, first))
        assert stream.refusals.keys() == {4}
        stream.refusals.clear()
        before = stream.responses
        # Not even if it is another under the same number.
        stream.send(*told, ran(3, start, start + 400 * MS, {second: 1}), end(4, start, first))
        stream.read_until(lambda: stream.responses > before)
        assert stream.acknowledged == 4
        assert stream.refusals[4][0] is grpc.StatusCode.INVALID_ARGUMENT, "it is told again"
        stop = start + 400 * MS
        stream.tell(end(5, stop, first), end(6, stop, second))
        one, two = stream.final(first, second)
    assert one.active_energy_j == pytest.approx(0.4 * (360 - BASE_W), rel=0.1)
    assert two.active_energy_j == pytest.approx(0, abs=0.05 * one.active_energy_j)


def test_a_session_goes_on_after_its_stream_was_cut(metered: Metered) -> None:
    token = uuid.uuid4().hex
    window_id, other = new_id(), new_id()
    at = now_ns()
    stream = Stream(metered.stub, session_token=token)
    stream.tell(begin(1, at, window_id), change(2, at, window_id, weight=2.0))
    stop = end(3, now_ns(), window_id)
    stream.tell(stop)
    stream.cut()
    metered.stub.GetWindow(pb.GetWindowRequest(window_id=window_id, wait_s=10))
    with session(metered.stub, token) as stream:
        assert stream.acknowledged == 3, "the first answer says what is there"
        stream.tell(change(2, at, window_id, weight=2.0), stop, begin(4, at, other))
        (window,) = stream.final(window_id)  # it became final while nobody listened
        assert window.state == "final"
        assert stream.refusals == {}
        stream.tell(end(5, now_ns(), other))
        stream.final(other)


def test_a_new_stream_of_a_session_takes_over(metered: Metered) -> None:
    token = uuid.uuid4().hex
    old = Stream(metered.stub, session_token=token)
    with session(metered.stub, token) as new:
        code, words = old.error()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "another stream" in words
        window_id = new_id()
        new.tell(begin(1, now_ns(), window_id), end(2, now_ns(), window_id))
        new.final(window_id)


def test_an_event_of_before_the_last_one_may_come_after_it(metered: Metered) -> None:
    """Sequence numbers order what is said, not what happened."""
    gpu = metered.double.gpus[0]
    window_id = new_id()
    at = now_ns()
    with session(metered.stub) as stream:
        sleep_until(at + 300 * MS)
        stream.tell(
            begin(1, at, window_id, devices=[gpu.uuid]),
            end(2, at + 300 * MS, window_id),
            change(3, at + 200 * MS, window_id, phase="late"),
            change(4, at + 100 * MS, window_id, phase="early"),
            change(5, at + 250 * MS, window_id, usage=types_pb2.Usage(output_tokens=3)),
        )
        (window,) = stream.final(window_id)
        assert stream.refusals == {}
    assert [phase.name for phase in window.phases] == ["", "early", "late"]
    lengths = [phase.stop_unix_ns - phase.start_unix_ns for phase in window.phases]
    assert lengths == [100 * MS] * 3
    assert window.usage.output_tokens == 3


def test_acknowledged_is_committed_and_told_again_after_a_restart(metered: Metered) -> None:
    token = uuid.uuid4().hex
    window_id, late = new_id(), new_id()
    at = now_ns()
    told = [
        begin(1, at, window_id, tags={"model": "llama"}),
        change(2, at, window_id, phase="prefill"),
        change(3, at, window_id, usage=types_pb2.Usage(output_tokens=3)),
    ]
    Stream(metered.stub, session_token=token).tell(*told)
    metered.daemon.stop(signal.SIGKILL)
    (row,) = metered.daemon.rows("select window_id, output_tokens, phases from windows")
    assert (row["window_id"], row["output_tokens"]) == (window_id, 3)
    assert "prefill" in str(row["phases"])
    metered.daemon.start()
    with metered.daemon.stub() as stub, session(stub, token) as stream:
        assert stream.acknowledged == 3
        # What was taken is told again by a client that missed the answer; others are new.
        stream.tell(told[0], end(4, now_ns(), window_id), begin(5, now_ns(), late))
        assert stream.refusals == {}
        (window,) = stream.final(window_id)
        assert (window.state, [phase.name for phase in window.phases]) == ("final", ["prefill"])
        assert "recovered" in window.flags
        code, words = stream.refused(change(6, at, window_id, phase="decode"))
        assert code is grpc.StatusCode.OUT_OF_RANGE
        assert "is final" in words
        stream.tell(end(7, now_ns(), late))
        stream.final(late)
    with metered.daemon.stub() as stub, session(stub) as stranger:
        for event in (told[0], end(1, at, window_id)):
            event.sequence = stranger.acknowledged + 1
            assert stranger.refused(event)[0] is grpc.StatusCode.PERMISSION_DENIED


def test_what_a_full_disk_did_not_take_is_taken_when_it_is_sent_again(
    double: NvmlDouble, tmp_path: Path
) -> None:
    token = uuid.uuid4().hex
    ids = [new_id() for _ in range(150)]
    tags = {f"key{number}": "v" * 250 for number in range(8)}
    environment = os.environ | double.environment
    with (
        small_disk(tmp_path / "state", size_mib=3) as disk,
        daemon(
            *("--state-dir", str(disk.path)),
            environment=environment,
            prefix=disk.prefix,
            devices=2,
        ) as running,
        running.stub() as stub,
    ):
        disk.fill()
        at = now_ns()
        told = [begin(n, at, one, tags=tags) for n, one in enumerate(ids, 1)]
        stream = Stream(stub, session_token=token)
        stream.send(*told)
        code, words = stream.error()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "disk is full: free space" in words
        assert stub.GetStatus(pb.GetStatusRequest()).open_windows == 150
        disk.free()
        with session(stub, token) as stream:
            assert stream.acknowledged == 0
            stream.tell(*told)
            stream.tell(*(end(150 + n, now_ns(), one) for n, one in enumerate(ids, 1)))
            assert stream.refusals == {}
            finals = stream.final(*ids)
        asked = pb.ListWindowsRequest(page_size=1000)
        stored = {window.window_id: window for window in stub.ListWindows(asked).windows}
    assert all(window.energy_j > 0 for window in finals)
    assert stored == {window.window_id: window for window in finals}


def wait_until_final_s(stub: object, window_id: str) -> float:
    begun = time.monotonic()
    final = stub.GetWindow(pb.GetWindowRequest(window_id=window_id, wait_s=15))  # type: ignore[attr-defined]
    assert final.state == "final"
    return time.monotonic() - begun


def stopped(metered: Metered) -> str:
    opened = metered.stub.StartWindow(pb.StartWindowRequest())
    metered.stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id))
    return opened.window_id


def test_the_largest_allowance_of_the_live_sessions_holds_for_all(metered: Metered) -> None:
    token = uuid.uuid4().hex
    assert wait_until_final_s(metered.stub, stopped(metered)) < 1.5
    with session(metered.stub, token, lateness_s=3), session(metered.stub, lateness_s=1):
        assert 2.5 < wait_until_final_s(metered.stub, stopped(metered)) < 4.5
    assert wait_until_final_s(metered.stub, stopped(metered)) < 1.5, "it is closed"
    Stream(metered.stub, session_token=token, lateness_s=3).cut()
    assert 2.5 < wait_until_final_s(metered.stub, stopped(metered)) < 4.5, "it may come back"
    with session(metered.stub, token, lateness_s=0.1):
        assert wait_until_final_s(metered.stub, stopped(metered)) < 1.5


def test_a_daemon_that_ends_does_not_wait_for_what_may_come_late(metered: Metered) -> None:
    window_id = new_id()
    stream = Stream(metered.stub, session_token="t", lateness_s=60)
    at = now_ns()
    sleep_until(at + 500 * MS)
    stream.tell(begin(1, at, window_id), end(2, at + 400 * MS, window_id))
    metered.daemon.stop()
    (row,) = metered.daemon.rows("select state, flags from windows")
    assert (row["state"], row["flags"]) == ("final", "[]")
