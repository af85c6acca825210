"""No daemon, a slow daemon, a daemon that refuses: the caller never notices."""

import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from greend_client import Client, ResultUnavailable, Stats, Window
from greend_client._sender import Sender
from greend_proto.v1 import metering_pb2, types_pb2
from tests.client.memory_daemon import (
    GPU_0,
    MemoryDaemon,
    Refusal,
    Start,
    Stop,
    device,
    serving,
    until,
)

Message = metering_pb2.RecordWindowsRequest


def run(client: Client, name: str = "", **arguments: Any) -> Window:
    with client.window(name, **arguments) as window:
        pass
    return window


def unavailable(window: Window, timeout: float | None = 10) -> ResultUnavailable:
    with pytest.raises(ResultUnavailable) as error:
        window.result(timeout)
    return error.value


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "greend_client"]


def kept(client: Client) -> int:
    outbox = client._sender._outbox
    return len(outbox.events) + len(outbox.inbox)


def test_without_a_daemon_nothing_raises_and_one_warning_says_what_to_do(
    socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(f"unix://{socket}") as client:
        windows = [run(client) for _ in range(100)]
        began = time.monotonic()
        for window in (windows[0], windows[-1]):
            error = unavailable(window, timeout=None)
            assert error.code is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 5
        (warning,) = warnings(caplog)
        assert client.stats() == Stats(delivered=0, kept=100, lost=0, refused=0)
    assert f"no greend daemon answers at unix://{socket}" in warning
    assert "systemctl start greend" in warning
    (_, at_the_end) = warnings(caplog)
    assert at_the_end.startswith("greend: 100 windows are lost: no greend daemon")
    assert client.stats() == Stats(delivered=0, kept=0, lost=100, refused=0)


def test_windows_from_before_the_daemon_was_there_are_sent_with_their_own_instants(
    socket: Path, daemon: MemoryDaemon
) -> None:
    with Client(f"unix://{socket}") as client:
        windows = [run(client, str(n)) for n in range(5)]
        unavailable(windows[0])
        before_ns = time.time_ns()
        with serving(daemon, socket):
            for n, window in enumerate(windows):
                result = window.result(10)
                assert result.request_id == str(n)
                assert result.start_unix_ns < before_ns
            assert len(daemon.seen(Start)) == len(daemon.seen(Stop)) == 5


def test_a_window_over_a_restart_of_the_daemon_is_not_lost(
    socket: Path, daemon: MemoryDaemon
) -> None:
    with Client(f"unix://{socket}") as client:
        with serving(daemon, socket):
            window = client.window().start()
            daemon.wait_for(lambda: daemon.windows)
        window.stop()
        assert unavailable(window).code is grpc.StatusCode.UNAVAILABLE
        with serving(daemon, socket):
            assert window.result(10).state == "final"


def test_the_windows_that_finished_first_are_lost_first(
    socket: Path, daemon: MemoryDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(f"unix://{socket}") as client:
        client._sender._outbox.bound(20)
        open_window = client.window("open").start()
        windows = []
        for number in range(1000):
            windows.append(run(client, str(number)))
            assert kept(client) <= 21
        assert unavailable(windows[0]).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        with serving(daemon, socket):
            open_window.stop()
            assert open_window.result(10).request_id == "open"
            assert [w.result(10).request_id for w in windows[-9:]] == [
                str(n) for n in range(991, 1000)
            ]
            lost = client.stats().lost
            assert 985 <= lost <= 991
            # The daemon is told, too.
            until(lambda: daemon.seen(Message)[-1].lost_windows == lost, "told")
    told = warnings(caplog)
    assert sum("given up" in warning for warning in told) == 1
    assert len(told) == 2


def test_windows_that_all_run_are_bounded_too(socket: Path) -> None:
    with Client(f"unix://{socket}") as client:
        client._sender._outbox.bound(20)
        windows = [client.window().start() for _ in range(100)]
        assert kept(client) <= 21
        for window in windows:
            window.stop()
        assert kept(client) <= 41
        assert unavailable(windows[99]).code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_slow_daemon_does_not_slow_the_caller_nor_the_end(
    socket: Path, daemon: MemoryDaemon
) -> None:
    daemon.gate.clear()
    with serving(daemon, socket) as address:
        client = Client(address)
        began = time.monotonic()
        windows = [run(client) for _ in range(100)]
        assert time.monotonic() - began < 1
        daemon.wait_for(lambda: daemon.requests)
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 4
        assert unavailable(windows[0]).code is grpc.StatusCode.CANCELLED


def test_close_sends_what_is_still_to_be_sent(address: str, daemon: MemoryDaemon) -> None:
    client = Client(address)
    windows = [run(client) for _ in range(50)]
    client.close()
    client.close()
    assert set(daemon.windows) == {window.window_id for window in windows}
    assert windows[0].result().state == "final"  # it came with the answer to the stop
    assert not [t for t in threading.enumerate() if t.name == "greend-client-sender"]


def test_a_window_after_close_is_lost_without_an_error(address: str) -> None:
    client = Client(address)
    client.close()
    assert unavailable(run(client)).code is grpc.StatusCode.CANCELLED


def test_the_thread_starts_with_the_first_window(address: str) -> None:
    with Client(address) as client:
        client.status()
        assert not [t for t in threading.enumerate() if t.name == "greend-client-sender"]
        run(client)
        assert [t for t in threading.enumerate() if t.name == "greend-client-sender"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"gpus": [7]}, "NOT_FOUND"),
        ({"gpus": "MIG-1"}, "NOT_FOUND"),
        ({"gpus": 1.5}, "INVALID_ARGUMENT"),
        ({"weight": "heavy"}, "INVALID_ARGUMENT"),
        ({"parent": 3}, "INVALID_ARGUMENT"),
    ],
)
def test_wrong_arguments_warn_once_and_lose_only_their_windows(
    client: Client, arguments: Any, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [run(client, **arguments) for _ in range(3)]
    right = run(client)
    assert right.result(10).state == "final"
    assert {unavailable(window).code for window in wrong} == {grpc.StatusCode[code]}
    assert len(warnings(caplog)) == 1


def test_a_refused_start_tells_why_and_its_other_events_say_nothing(
    client: Client, daemon: MemoryDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(request: Any) -> Refusal | None:
        if isinstance(request, Start) and request.request_id == "bad":
            return grpc.StatusCode.INVALID_ARGUMENT, "tags: at most 32"
        return None

    daemon.refuse = refuse
    bad, good = run(client, "bad"), run(client, "good")
    assert good.result(10).request_id == "good"
    error = unavailable(bad)
    assert (error.code, str(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "tags: at most 32")
    assert daemon.windows.keys() == {good.window_id}
    assert len(warnings(caplog)) == 1


def test_a_lost_gpu_costs_its_own_windows_only(client: Client, daemon: MemoryDaemon) -> None:
    def refuse(request: Any) -> Refusal | None:
        if isinstance(request, Start) and list(request.devices) == [GPU_0]:
            return grpc.StatusCode.UNAVAILABLE, "GPU 0 is lost since 12:00"
        return None

    daemon.refuse = refuse
    lost, good = run(client, gpus=0), run(client, gpus=1)
    assert good.result(10).state == "final"
    error = unavailable(lost)
    assert (error.code, str(error)) == (grpc.StatusCode.UNAVAILABLE, "GPU 0 is lost since 12:00")


def test_a_stop_is_sent_again_while_the_daemons_disk_is_full(
    client: Client, daemon: MemoryDaemon
) -> None:
    full = threading.Event()
    full.set()

    def refuse(request: Any) -> Refusal | None:
        stops = getattr(request, "batch", None) and any(
            event.HasField("stop") for event in request.batch.events
        )
        if stops and full.is_set():
            return grpc.StatusCode.RESOURCE_EXHAUSTED, "disk full"
        return None

    daemon.refuse = refuse
    window = run(client)
    assert str(unavailable(window)) == "disk full"
    full.clear()
    assert window.result(10).state == "final"


def test_token_counts_that_are_none_do_not_keep_a_window_open(
    client: Client, daemon: MemoryDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with client.window() as window:
            window.tokens(output="many")  # type: ignore[arg-type]
        assert window.result(10).output_tokens is None
    assert len(warnings(caplog)) == 1


def test_gpus_that_come_later_are_found(client: Client, daemon: MemoryDaemon) -> None:
    run(client).result(10)
    daemon.devices.append(device(2, "GPU-new"))
    assert run(client, gpus=2).result(10).devices == ("GPU-new",)


def test_no_thread_to_be_had_raises_nothing_in_the_callers_path(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with Client(address) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", NoThread)
            first = run(client)
        assert run(client).result(10).state == "final"
        assert first.result(10).state == "final"
    assert len(warnings(caplog)) == 1


def test_many_threads_may_measure_at_once(client: Client, daemon: MemoryDaemon) -> None:
    windows: list[Window] = []

    def work() -> None:
        windows.extend(run(client) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(window.result(30).state == "final" for window in windows)
    assert len(daemon.windows) == 400


def test_a_sender_never_used_closes_at_once() -> None:
    def get_window(request: metering_pb2.GetWindowRequest, timeout_s: float) -> types_pb2.Window:
        raise AssertionError

    began = time.monotonic()
    Sender("unix:///nowhere", get_window).close(2)
    assert time.monotonic() - began < 0.5
