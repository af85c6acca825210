"""What travels on the stream, and how: batches, acknowledgements, results, cuts."""

import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from greend_client import Client, ResultUnavailable, Window, aio
from greend_proto.v1 import metering_pb2
from tests.client.memory_daemon import GPU_0, MemoryDaemon, Refusal, Start, Stop, serving, until

Batch = metering_pb2.RecordWindowsRequest
Event = metering_pb2.WindowEvent


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "greend_client"]


def batches(daemon: MemoryDaemon) -> list[Any]:
    return [r.batch for r in daemon.seen(Batch) if r.WhichOneof("message") == "batch"]


def openings(daemon: MemoryDaemon) -> list[Any]:
    return [r.open for r in daemon.seen(Batch) if r.HasField("open")]


def test_the_session_says_who_it_is_and_what_it_needs(address: str, daemon: MemoryDaemon) -> None:
    with Client(address, lateness_s=30) as client:
        # Not with the first window: that may be told of long after it ended.
        daemon.wait_for(lambda: daemon.seen(Batch))
        (request,) = daemon.seen(Batch)
        opening = request.open
        assert opening.lateness_s == client.lateness_s == 30
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert opening.boot_id == boot_id
        assert opening.pid > 0
        assert len(opening.session_token) == 32


def test_events_travel_in_batches_with_their_own_instants(
    client: Client, daemon: MemoryDaemon
) -> None:
    daemon.gate.clear()
    before_ns = time.monotonic_ns()
    windows = []
    for number in range(300):
        with client.window(str(number), gpus=0) as window:
            pass
        windows.append(window)
    after_ns = time.monotonic_ns()
    daemon.gate.set()
    assert all(window.result(20).state == "final" for window in windows)
    sizes = [len(batch.events) for batch in batches(daemon)]
    assert sum(sizes) == 600
    assert max(sizes) == 200
    events = [event for batch in batches(daemon) for event in batch.events]
    assert [event.sequence for event in events] == list(range(1, 601))
    instants = [event.monotonic_ns for event in events]
    assert instants == sorted(instants)
    assert before_ns <= instants[0] <= instants[-1] <= after_ns


def test_results_come_back_without_further_calls(client: Client, daemon: MemoryDaemon) -> None:
    daemon.finalize = False
    windows = [client.window(str(n)).start() for n in range(5)]
    for window in windows:
        window.stop()
    daemon.wait_for(lambda: len(daemon.seen(Stop)) == 5)
    threading.Timer(0.1, daemon.make_final).start()
    assert [window.result(10).request_id for window in windows] == list("01234")
    assert daemon.seen(metering_pb2.GetWindowRequest) == []


def test_what_did_not_come_on_the_stream_is_asked_for(socket: Path, daemon: MemoryDaemon) -> None:
    daemon.finalize = False
    with Client(f"unix://{socket}") as client:
        with serving(daemon, socket):
            with client.window() as window:
                pass
            until(lambda: window._record.acknowledged_on, "acknowledged")
        daemon.make_final()
        with serving(daemon, socket):
            assert window.result(10).state == "final"
        assert len(daemon.seen(metering_pb2.GetWindowRequest)) == 1


def test_what_was_not_acknowledged_is_sent_again_under_its_number(
    client: Client, daemon: MemoryDaemon
) -> None:
    cut = threading.Event()

    def refuse(request: Any) -> Refusal | None:
        if isinstance(request, Batch) and request.HasField("batch") and not cut.is_set():
            cut.set()
            return grpc.StatusCode.UNAVAILABLE, "just a moment"
        return None

    daemon.refuse = refuse
    with client.window() as window:
        window.tokens(output=3)
    until(lambda: cut.is_set() and window._record.answer, "sent again")
    assert window.result(10).output_tokens == 3
    numbers = [[event.sequence for event in batch.events] for batch in batches(daemon)]
    assert numbers[0][0] == 1
    assert [n for batch in numbers[1:] for n in batch] == [1, 2, 3]
    first, second = openings(daemon)
    assert first.session_token == second.session_token
    assert first.last_sequence <= second.last_sequence == 3


def test_what_will_never_be_told_is_not_said_to_be_still_to_come(
    client: Client, daemon: MemoryDaemon
) -> None:
    """A daemon that was started again waits for all that is to come."""
    with client.window() as window:
        pass
    assert window.result(10).state == "final"
    with client.window(gpus=[99]) as wrong:
        pass
    until(lambda: wrong._record.error, "there is no such GPU")
    until(lambda: client.stats().kept == 0, "all is delivered or refused")
    stream = client._sender._outbox.stream
    assert stream is not None
    stream.cut_unanswered()
    until(lambda: len(openings(daemon)) == 2, "it is back")
    assert openings(daemon)[1].last_sequence == 0


def test_a_first_phase_that_is_named_at_once_begins_with_the_window(
    client: Client, daemon: MemoryDaemon
) -> None:
    later, at_once = client.window(gpus=0).start(), client.window(gpus=0).start()
    at_once.phase("prefill")
    at_once.phase("decode")
    time.sleep(0.002)
    later.phase("prefill")
    for window in (at_once, later):
        window.stop()
        window.result(10)
    began = {start.window_id: start.monotonic_ns for start in daemon.seen(Start)}
    first, second, third = daemon.events("phase")
    assert first.monotonic_ns == began[at_once.window_id]
    assert second.monotonic_ns > first.monotonic_ns
    assert third.monotonic_ns > began[later.window_id]


def test_phases_and_weights_are_told_as_they_happen(client: Client, daemon: MemoryDaemon) -> None:
    window = client.window("r", gpus=0)
    window.set_weight(2)
    window.phase("too early")
    window.start()
    window.phase("prefill")
    window.set_weight(0.5)
    window.phase("decode")
    window.stop()
    window.phase("too late")
    window.set_weight(3)
    window.result(10)
    (start,) = daemon.seen(Start)
    assert start.weight == 2
    assert [event.phase for event in daemon.events("phase")] == ["prefill", "decode"]
    assert [event.weight for event in daemon.events("weight")] == [0.5]


def test_iterations_name_windows_or_ids(client: Client, daemon: MemoryDaemon) -> None:
    first = client.window(gpus=0, iteration_driven=True).start()
    second = client.window(gpus=0).start()
    start_ns = time.monotonic_ns() - 100
    costs: dict[Window | str, float] = {first: 3, second.window_id: 1.5}
    client.iteration(start_ns, start_ns + 50, costs)
    first.stop()
    second.stop()
    second.result(10)
    assert [start.iteration_driven for start in daemon.seen(Start)] == [True, False]
    (event,) = daemon.events("iteration")
    assert (event.monotonic_ns, event.iteration.stop_monotonic_ns) == (start_ns, start_ns + 50)
    assert event.iteration.costs == {first.window_id: 3, second.window_id: 1.5}


def test_windows_that_are_lost_are_left_out_of_iterations(
    client: Client, daemon: MemoryDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    lost, good = client.window(gpus=9).start(), client.window(gpus=0).start()
    now_ns = time.monotonic_ns()
    client.iteration(now_ns - 10, now_ns, {lost: 1, good: 2})
    client.iteration(now_ns - 10, now_ns, {lost: 1})
    good.stop()
    good.result(10)
    (event,) = daemon.events("iteration")
    assert event.iteration.costs == {good.window_id: 2}
    assert len(warnings(caplog)) == 1


class Hostile(dict[Any, Any]):
    def items(self) -> Any:
        raise KeyError("hostile")


NOW_NS = time.monotonic_ns()


@pytest.mark.parametrize(
    "wrong",
    [
        (None, NOW_NS, {}),
        (NOW_NS, 1.5, {}),
        (NOW_NS, NOW_NS, {}),
        (NOW_NS, NOW_NS - 1, {}),
        (NOW_NS, NOW_NS + 10**15, {}),
        (NOW_NS - 1, NOW_NS, None),
        (NOW_NS - 1, NOW_NS, Hostile()),
        (NOW_NS - 1, NOW_NS, {"an id": "dear"}),
        (NOW_NS - 1, NOW_NS, {7: 1.0}),
        (-(10**30), NOW_NS, {"an id": 1.0}),
    ],
)
def test_a_wrong_iteration_raises_nothing_and_is_warned_of_once(
    client: Client, daemon: MemoryDaemon, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        client.iteration(*wrong)
    with client.window(gpus=0) as window:
        pass
    assert window.result(10).state == "final"
    assert daemon.events("iteration") == []
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("what", [{"weight": "heavy"}, {"phase": object()}])
def test_what_cannot_be_told_costs_itself_alone(
    client: Client, what: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with client.window(gpus=0) as window:
        window.set_weight(what.get("weight", 1))
        window.phase(what.get("phase", "p"))
    assert window.result(10).state == "final"
    assert len(warnings(caplog)) == ("weight" in what)  # anything can be a name


def test_an_event_that_is_refused_costs_itself_alone(
    client: Client, daemon: MemoryDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(request: Any) -> Refusal | None:
        if isinstance(request, Event) and request.HasField("phase"):
            return grpc.StatusCode.INVALID_ARGUMENT, "phase: at most 64"
        return None

    daemon.refuse = refuse
    for _ in range(2):
        with client.window(gpus=0) as window:
            window.phase("one too many")
        assert window.result(10).state == "final"
    assert warnings(caplog) == ["greend: a window's phase is not told: phase: at most 64"]


def test_a_stop_that_is_refused_costs_the_result(client: Client, daemon: MemoryDaemon) -> None:
    def refuse(request: Any) -> Refusal | None:
        if isinstance(request, Stop):
            return grpc.StatusCode.NOT_FOUND, "no such window"
        return None

    daemon.refuse = refuse
    with client.window(gpus=0) as window:
        pass
    with pytest.raises(ResultUnavailable, match="no such window") as error:
        window.result(10)
    assert error.value.code is grpc.StatusCode.NOT_FOUND


def test_a_session_that_is_refused_is_told_by_results(
    address: str, daemon: MemoryDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(request: Any) -> Refusal | None:
        if isinstance(request, Batch) and request.HasField("open"):
            return grpc.StatusCode.INVALID_ARGUMENT, "lateness_s: 500.0 is not between 0 and 120"
        return None

    daemon.refuse = refuse
    with Client(address, lateness_s=500) as client:
        with client.window(gpus=0) as window:
            pass
        with pytest.raises(ResultUnavailable, match="between 0 and 120") as error:
            window.result(10)
        assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(warnings(caplog)) == 1


def test_windows_nobody_holds_any_more_are_not_kept(client: Client, daemon: MemoryDaemon) -> None:
    for _ in range(100):
        with client.window(gpus=0):
            pass
    last = client.window(gpus=0).start()
    last.stop()
    last.result(10)
    until(lambda: not client._sender._outbox.events, "all is acknowledged")
    until(lambda: not client._sender._outbox.unsettled, "nothing is kept")


def test_the_asyncio_client_tells_the_same(address: str, daemon: MemoryDaemon) -> None:
    import asyncio

    async def main() -> None:
        async with aio.Client(address, lateness_s=1) as client:
            async with client.window("r", gpus=[0], iteration_driven=True) as window:
                window.phase("decode")
                window.set_weight(2)
                now_ns = time.monotonic_ns()
                client.iteration(now_ns - 10, now_ns, {window: 1})
            result = await window.result(10)
            assert [phase.name for phase in result.phases] == ["decode"]

    asyncio.run(main())
    (start,) = daemon.seen(Start)
    assert (start.devices, start.iteration_driven) == ([GPU_0], True)
    assert len(daemon.events("iteration")) == len(daemon.events("weight")) == 1
    assert daemon.seen(Batch)[0].open.lateness_s == 1
    assert daemon.seen(metering_pb2.GetWindowRequest) == []
