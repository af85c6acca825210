"""What can be asked of a running daemon: summaries, snapshots, live feeds, reflection."""

import itertools
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.integration.conftest import BASE_W, Metered
from tests.integration.test_windows import refused


def measure(metered: Metered, seconds: float, output_tokens: int, **tags: str) -> types_pb2.Window:
    opened = metered.stub.StartWindow(
        pb.StartWindowRequest(devices=[metered.double.gpus[0].uuid], tags=tags)
    )
    time.sleep(seconds)
    return metered.stub.StopWindow(
        pb.StopWindowRequest(
            window_id=opened.window_id,
            wait_s=10,
            usage=types_pb2.Usage(prompt_tokens=10, output_tokens=output_tokens),
        )
    )


def test_windows_are_summed_up_by_tags(metered: Metered) -> None:
    windows = [
        measure(metered, 0.1 * number, 5, model="ab"[number % 2], n=str(number))
        for number in (1, 2, 3)
    ]
    windows.append(measure(metered, 0.1, 0))
    still_open = metered.stub.StartWindow(pb.StartWindowRequest(tags={"model": "a"}))

    def groups(**fields: object) -> list[pb.SummarizeWindowsResponse.Group]:
        request = pb.SummarizeWindowsRequest(**fields)  # type: ignore[arg-type]
        return list(metered.stub.SummarizeWindows(request).groups)

    (everything,) = groups()
    assert everything.count == 4, "the open one is not final"
    total = sum(window.energy_j for window in windows)
    assert everything.energy_j == pytest.approx(total)
    assert everything.usage.output_tokens == 15
    assert everything.usage.prompt_tokens == 40

    by_model = {group.tags.get("model"): group for group in groups(by=["model"])}
    assert set(by_model) == {"a", "b", None}
    b = by_model["b"]  # numbers 1 and 3
    energies = sorted([windows[0].energy_j, windows[2].energy_j])
    assert b.count == 2
    assert b.joules_per_request.mean == pytest.approx(sum(energies) / 2)
    assert b.joules_per_request.p50 == pytest.approx(energies[0])
    assert b.joules_per_request.p99 == pytest.approx(energies[1])
    assert b.joules_per_output_token.mean == pytest.approx(sum(energies) / 2 / 5)
    assert not by_model[None].HasField("joules_per_output_token"), "unknown is absent"

    # Independent errors of several windows are less than their sum, common ones are not.
    bounds = [window.uncertainty_j for window in windows]
    assert max(bounds) < everything.uncertainty_j < sum(bounds)
    (alone,) = groups(filter=types_pb2.WindowFilter(tags={"n": "3"}))
    assert alone.uncertainty_j == pytest.approx(windows[2].uncertainty_j)

    (active,) = groups(idle="exclude")
    assert not active.HasField("uncertainty_j"), "nothing bounds this part alone"
    tokens = [window.active_energy_j / 5 for window in windows[:3]]
    assert active.joules_per_output_token.mean == pytest.approx(sum(tokens) / 3)
    assert active.joules_per_output_token.p99 == pytest.approx(max(tokens))
    assert active.energy_j == pytest.approx(sum(window.active_energy_j for window in windows))
    assert active.energy_j < 0.2 * everything.energy_j, "idle GPUs"
    (one,) = groups(filter=types_pb2.WindowFilter(tags={"n": "2"}))
    assert one.energy_j == pytest.approx(windows[1].energy_j)
    buckets = groups(bucket_s=3600.0)
    assert sum(group.count for group in buckets) == 4
    assert all(group.start_unix_ns % (3600 * 10**9) == 0 for group in buckets)
    metered.stub.StopWindow(pb.StopWindowRequest(window_id=still_open.window_id))

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    refused(lambda: groups(by=["Model'"]), invalid, "by")
    refused(lambda: groups(bucket_s=0.0), invalid, "bucket_s")
    refused(lambda: groups(idle="half"), invalid, "idle")


def test_a_snapshot_has_the_latest_sample_of_each_device(metered: Metered) -> None:
    samples = metered.stub.GetSnapshot(pb.GetSnapshotRequest()).samples
    assert [sample.device for sample in samples] == [gpu.uuid for gpu in metered.double.gpus]
    for sample in samples:
        assert sample.power_w == pytest.approx(BASE_W, rel=0.05)
        assert sample.energy_counter_j > 0
        assert abs(sample.unix_ns - time.time_ns()) < 5e9
        assert sample.gpu_utilization_percent == 0
        assert sample.HasField("temperature_c")
    refused(
        lambda: metered.stub.GetSnapshot(pb.GetSnapshotRequest(devices=["GPU-none"])),
        grpc.StatusCode.NOT_FOUND,
        metered.double.gpus[0].uuid,
    )


def test_who_watches_gets_samples_at_the_fast_rate_or_as_asked(metered: Metered) -> None:
    uuid = metered.double.gpus[1].uuid
    feed = metered.stub.WatchSamples(pb.WatchSamplesRequest(devices=[uuid]))
    seen = [next(feed) for _ in range(20)]
    feed.cancel()
    assert {sample.device for sample in seen} == {uuid}
    times = [sample.monotonic_ns for sample in seen]
    assert times == sorted(times)
    assert (times[-1] - times[0]) / 19 < 0.1e9, "a look a second would be the slow rate"

    rare = metered.stub.WatchSamples(pb.WatchSamplesRequest(devices=[uuid], interval_s=0.3))
    times = [next(rare).monotonic_ns for _ in range(4)]
    rare.cancel()
    assert min(after - before for before, after in itertools.pairwise(times)) >= 0.3e9


def test_who_watches_windows_gets_each_that_becomes_final(metered: Metered) -> None:
    feed = metered.stub.WatchWindows(
        pb.WatchWindowsRequest(filter=types_pb2.WindowFilter(tags={"model": "a"}))
    )
    feed.initial_metadata()
    watching = measure(metered, 0.1, 1, model="a")
    measure(metered, 0.1, 1, model="b")
    last = measure(metered, 0.1, 1, model="a")
    seen = [next(feed), next(feed)]
    feed.cancel()
    assert [window.window_id for window in seen] == [watching.window_id, last.window_id]
    assert seen[1] == last


def test_each_door_tells_what_it_serves(metered: Metered) -> None:
    expected = {
        False: {"greend.v1.MeteringService", "grpc.health.v1.Health"},
        True: {
            "greend.v1.AdminService",
            "greend.v1.ControlService",
            "grpc.health.v1.Health",
        },
    }
    for control, services in expected.items():
        with metered.daemon.channel(control=control) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest()).status == 1
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            (answer,) = stub.ServerReflectionInfo(iter([request]))
            told = {service.name for service in answer.list_services_response.service}
            assert services <= told
            assert not (expected[not control] - services) & told
