"""Summaries, samples and live feeds."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import grpc
import pytest

from greend_client import Client, GreendError, Group, Sample, Statistics, Watch
from greend_proto.v1 import metering_pb2
from tests.client.memory_daemon import GPU_0, GPU_1, MemoryDaemon, sample, serving, until

UNKNOWN = Statistics(None, None, None, None)


def test_a_summary_comes_as_groups(client: Client, daemon: MemoryDaemon) -> None:
    group = metering_pb2.SummarizeWindowsResponse.Group(
        tags={"model": "llama"}, start_unix_ns=5, count=3, energy_j=6, uncertainty_j=0.25
    )
    group.usage.output_tokens = 12
    group.joules_per_request.MergeFrom(
        metering_pb2.SummarizeWindowsResponse.Statistics(mean=2, p50=1, p95=3, p99=4)
    )
    daemon.groups = [group, metering_pb2.SummarizeWindowsResponse.Group()]
    first, second = client.summary(
        by=["model"], since="1h", bucket_s=60, idle="exclude", devices=1, request_id="r", app="chat"
    )
    assert first == Group(
        tags={"model": "llama"},
        start_unix_ns=5,
        count=3,
        energy_j=6,
        prompt_tokens=None,
        cached_tokens=None,
        output_tokens=12,
        joules_per_request=Statistics(2, 1, 3, 4),
        joules_per_output_token=UNKNOWN,
        uncertainty_j=0.25,
    )
    assert second.uncertainty_j is None
    assert (second.count, second.energy_j, second.start_unix_ns) == (0, 0, None)
    assert second.joules_per_request == UNKNOWN
    request = daemon.requests[-1]
    assert (list(request.by), request.bucket_s, request.idle) == (["model"], 60, "exclude")
    assert dict(request.filter.tags) == {"app": "chat"}
    assert (request.filter.request_id, list(request.filter.devices)) == ("r", [GPU_1])
    assert request.filter.HasField("since_unix_ns")


def test_a_summary_is_given_a_minute(client: Client, daemon: MemoryDaemon) -> None:
    client.summary()
    assert daemon.time_left_s[metering_pb2.SummarizeWindowsRequest] > 50


def test_a_summary_by_one_key_may_name_it_alone(client: Client, daemon: MemoryDaemon) -> None:
    assert client.summary("model") == []
    request = daemon.requests[-1]
    assert (list(request.by), request.idle) == (["model"], "include")
    assert not request.HasField("bucket_s")


def test_a_snapshot_has_the_latest_sample_of_each_device(
    client: Client, daemon: MemoryDaemon
) -> None:
    daemon.tell(sample(GPU_1, power_w=55))
    first, second = client.snapshot()
    assert (first.device, first.power_w, first.sm_clock_mhz) == (GPU_0, 100, 1755)
    assert first.temperature_c is None
    assert (second.device, second.power_w) == (GPU_1, 55)
    assert client.snapshot(devices=1) == [second]


def test_samples_are_told_as_they_come(client: Client, daemon: MemoryDaemon) -> None:
    with client.watch_samples(devices=0, interval_s=0.5) as samples:
        assert next(samples).power_w == 100
        daemon.tell(sample(GPU_1, power_w=1), sample(GPU_0, power_w=2))
        assert next(samples).power_w == 2
    (request,) = daemon.seen(metering_pb2.WatchSamplesRequest)
    assert (list(request.devices), request.interval_s) == ([GPU_0], 0.5)


def test_windows_are_told_as_they_become_final(client: Client, daemon: MemoryDaemon) -> None:
    with client.watch_windows(model="llama") as windows:
        for model in ("qwen", "llama"):
            with client.window(model=model) as window:
                pass
        result = next(windows)
    assert (result.window_id, result.state) == (window.window_id, "final")
    assert result.tags == {"model": "llama"}


def nobody_watches(daemon: MemoryDaemon) -> None:
    daemon.wait_for(lambda: daemon.watchers == 0)


def watch(client: Client, daemon: MemoryDaemon) -> Watch[Sample]:
    samples = client.watch_samples()
    for _ in daemon.samples:
        next(samples)
    return samples


def test_a_feed_that_is_closed_ends_and_the_daemon_is_told(
    client: Client, daemon: MemoryDaemon
) -> None:
    samples = watch(client, daemon)
    assert daemon.watchers == 1
    samples.close()
    samples.close()
    assert list(samples) == []
    nobody_watches(daemon)


def test_closing_from_another_thread_ends_an_iteration_that_waits(
    client: Client, daemon: MemoryDaemon
) -> None:
    samples = watch(client, daemon)
    rest: list[Sample] = []
    waiting = threading.Thread(target=lambda: rest.extend(samples))
    waiting.start()
    samples.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert rest == []
    nobody_watches(daemon)


def test_closing_the_client_ends_its_feeds(client: Client, daemon: MemoryDaemon) -> None:
    samples = watch(client, daemon)
    client.close()
    assert list(samples) == []
    with pytest.raises(GreendError, match="closed") as error:
        client.watch_samples()
    assert error.value.code is grpc.StatusCode.CANCELLED


def test_a_feed_that_is_forgotten_ends(client: Client, daemon: MemoryDaemon) -> None:
    samples = watch(client, daemon)
    del samples
    gc.collect()
    nobody_watches(daemon)


def test_a_daemon_that_goes_away_is_an_error_of_the_feed(
    socket: Path, daemon: MemoryDaemon
) -> None:
    with Client(f"unix://{socket}") as client:
        with serving(daemon, socket):
            samples = watch(client, daemon)
        with pytest.raises(GreendError):
            next(samples)
        assert list(samples) == []
        with pytest.raises(GreendError, match="greend serve") as error:
            next(client.watch_samples())
        assert error.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_refused_feed_says_the_daemons_words(client: Client, daemon: MemoryDaemon) -> None:
    daemon.refuse = lambda request: (grpc.StatusCode.INVALID_ARGUMENT, "interval_s: at least 0")
    with pytest.raises(GreendError, match=r"^interval_s: at least 0$"):
        next(client.watch_samples(interval_s=-1))


def test_ctrl_c_ends_a_feed(address: str, daemon: MemoryDaemon) -> None:
    code = """
        import signal, sys, greend_client
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client = greend_client.Client(sys.argv[1])
        try:
            with client.watch_samples() as samples:
                for sample in samples:
                    print(sample.device, flush=True)
        except KeyboardInterrupt:
            assert list(samples) == []
            print("ended")
    """
    program = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), address]
    began = time.monotonic()
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for _ in daemon.samples:
            running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "ended\n"
    assert running.returncode == 0
    nobody_watches(daemon)
    assert time.monotonic() - began < 20


def test_waiting_for_results_leaves_nothing_behind(client: Client, daemon: MemoryDaemon) -> None:
    daemon.gate.clear()
    with client.window() as window:
        pass
    for _ in range(3):
        with pytest.raises(GreendError):
            window.result(0.001)
    assert client._sender._outbox.waiting.empty
    daemon.gate.set()
    assert window.result(10).state == "final"
    until(lambda: client._sender._outbox.waiting.empty, "nobody waits")
