"""DESIGN.md's table "Bad input" over RecordWindows: each event is refused by itself."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import types_pb2
from tests.daemon import daemon
from tests.integration.conftest import Metered, set_base_power
from tests.integration.recording import Event, Stream, begin, change, end, new_id, now_ns, ran
from tests.integration.recording import session as new_session
from tests.integration.test_windows import S, refused
from tests.nvml_double import NvmlDouble

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
DENIED = grpc.StatusCode.PERMISSION_DENIED
TOO_LATE = grpc.StatusCode.OUT_OF_RANGE
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNKNOWN_ID = "01970000-0000-7000-8000-000000000000"
BIG, SMALL = 2**63 - 1, -(2**63)
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    """One daemon for all rows: none of them may leave anything behind."""
    with NvmlDouble(tmp_path_factory.mktemp("double"), ["a100", "a100"]) as double:
        set_base_power(double)
        with (
            daemon(environment=os.environ | double.environment, devices=2) as running,
            running.stub() as stub,
        ):
            yield Metered(double, running, stub)


OPENINGS: dict[str, tuple[dict[str, Any], grpc.StatusCode, list[str]]] = {
    "no secret": ({}, INVALID, ["session_token", "empty"]),
    "a secret over 256 bytes": ({"session_token": "s" * 257}, INVALID, ["256 bytes"]),
    "another boot": ({"boot_id": str(uuid.uuid4())}, PRECONDITION, ["boot_id", "another boot"]),
    "a boot that is no id": ({"boot_id": "ünbekannt"}, PRECONDITION, ["boot_id", "another boot"]),
    **{
        f"a lateness of {lateness_s}": (
            {"lateness_s": lateness_s},
            INVALID,
            ["lateness_s", "between 0 and 120"],
        )
        for lateness_s in (-1e-9, 120.001, NAN, INFINITY)
    },
}


@pytest.mark.parametrize("row", OPENINGS)
def test_a_session_is_refused_with(host: Metered, row: str) -> None:
    fields, status, words = OPENINGS[row]
    fields = fields if row == "no secret" else {"session_token": uuid.uuid4().hex} | fields
    stream = Stream(host.stub)
    stream.send_message(open=pb.OpenSession(**fields))
    code, message = stream.error()
    assert code is status
    assert all(word in message for word in words), message


def test_this_boot_and_any_allowance_up_to_the_largest_are_right(host: Metered) -> None:
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    for lateness_s in (0, 120):
        with new_session(host.stub, boot_id=boot_id, lateness_s=lateness_s, uid=1, pid=2):
            pass


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"batch": pb.EventBatch()},
        {"close": pb.CloseSession()},
    ],
)
def test_the_first_message_opens_the_session(host: Metered, message: dict[str, Any]) -> None:
    stream = Stream(host.stub)
    stream.send_message(**message)
    assert stream.error() == (INVALID, "open: the first message of the stream opens the session")


@pytest.mark.parametrize("message", [{}, {"open": pb.OpenSession(session_token="again")}])
def test_then_come_batches(host: Metered, message: dict[str, Any]) -> None:
    stream = Stream(host.stub, session_token=uuid.uuid4().hex)
    stream.send_message(**message)
    code, words = stream.error()
    assert code is INVALID
    assert "`batch`" in words


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ([0], "sequence 0 after 0"),
        ([1, 1], "sequence 1 after 1"),
        ([3, 2], "sequence 2 after 3"),
        (range(1, 10_002), "10001 in a batch, at most 10000"),
    ],
)
def test_a_batch_out_of_order_is_refused_whole(
    host: Metered, sequences: Sequence[int], words: str
) -> None:
    token = uuid.uuid4().hex
    stream = Stream(host.stub, session_token=token)
    stream.send(*(begin(number, now_ns(), new_id()) for number in sequences))
    code, message = stream.error()
    assert code is INVALID
    assert words in message
    assert host.stub.GetStatus(pb.GetStatusRequest()).open_windows == 0
    with new_session(host.stub, token) as stream:
        assert stream.acknowledged == 0


def starts(**fields: Any) -> Callable[[str], Event]:
    """A start of a window of its own, at `at_ns` or now."""
    window_id = fields.pop("window_id", None)
    at_ns = fields.pop("at_ns", None)
    return lambda _: begin(
        0,
        at_ns() if at_ns else now_ns(),
        new_id() if window_id is None else window_id,
        **fields,
    )


def changes(ahead_ns: int = 0, **what: Any) -> Callable[[str], Event]:
    return lambda window_id: change(0, now_ns() + ahead_ns, window_id, **what)


def runs(
    costs: Callable[[str], dict[str, float]], length_ns: int = 1, ahead_ns: int = -10
) -> Callable[[str], Event]:
    def make(window_id: str) -> Event:
        start_ns = now_ns() + ahead_ns
        return ran(0, start_ns, start_ns + length_ns, costs(window_id))

    return make


def stops(at_ns: Callable[[], int]) -> Callable[[str], Event]:
    return lambda window_id: end(0, at_ns(), window_id)


USAGE = types_pb2.Usage(output_tokens=1)
Row = tuple[Callable[[str], Event], grpc.StatusCode, list[str]]
# An event that is told of an open window (its id is given), with the code and words of its
# refusal.
EVENTS: dict[str, Row] = {
    "unknown device": (
        starts(devices=["GPU-none"]),
        NOT_FOUND,
        ["devices", "'GPU-none'", "there are: GPU-"],
    ),
    "more than 32 tags": (
        starts(tags={f"k{n}": "" for n in range(33)}),
        INVALID,
        ["tags: 33", "at most 32"],
    ),
    "a key over 64 bytes": (starts(tags={"k" * 65: ""}), INVALID, ["tags: key", "64 bytes"]),
    "a value over 256 bytes": (
        starts(tags={"model": "v" * 257}),
        INVALID,
        ["tags", "'model'", "256 bytes"],
    ),
    "a key of another form": (starts(tags={"Model": ""}), INVALID, ["[a-z][a-z0-9_.]*"]),
    "a start over 1 s in the future": (
        starts(at_ns=lambda: now_ns() + 2 * S),
        INVALID,
        ["monotonic_ns", "in the future, at most 1 s", "CLOCK_MONOTONIC"],
    ),
    "a start at the end of time": (starts(at_ns=lambda: BIG), INVALID, ["monotonic_ns"]),
    "a start older than the timeline": (
        starts(at_ns=lambda: now_ns() - 3600 * S),
        TOO_LATE,
        ["monotonic_ns: 3600.", "reaches back"],
    ),
    "a start on the Unix clock": (
        starts(at_ns=time.time_ns),
        INVALID,
        ["monotonic_ns", "future", "CLOCK_MONOTONIC"],
    ),
    "a start at the beginning of time": (starts(at_ns=lambda: SMALL), TOO_LATE, ["monotonic_ns"]),
    "a window id that is none": (starts(window_id="7"), INVALID, ["window_id: '7'", "UUID"]),
    "no window id": (starts(window_id=""), INVALID, ["window_id", "UUID"]),
    "a parent id that is none": (starts(parent_id="7"), INVALID, ["parent_id: '7'", "UUID"]),
    "its own parent": (
        starts(window_id=UNKNOWN_ID, parent_id=UNKNOWN_ID),
        INVALID,
        ["parent_id", "ancestor"],
    ),
    "a request id over 256 bytes": (starts(request_id="r" * 257), INVALID, ["request_id"]),
    **{
        f"a start with a weight of {weight}": (
            starts(weight=weight),
            INVALID,
            ["weight", "between 0.001 and 1e+06"],
        )
        for weight in (0.0, 1.1e6, NAN)
    },
    **{
        f"a weight of {weight}": (
            changes(weight=weight),
            INVALID,
            ["weight", "between 0.001 and 1e+06"],
        )
        for weight in (0.0, 9.9e-4, 1.1e6, -1.0, NAN, INFINITY)
    },
    "the same id with other tags": (
        lambda window_id: begin(0, now_ns(), window_id, tags={"other": "tag"}),
        INVALID,
        ["was started already, with another tags"],
    ),
    "the same id at another instant": (
        lambda window_id: begin(0, now_ns(), window_id),
        INVALID,
        ["was started already, at another instant"],
    ),
    "a phase without a name": (changes(phase=""), INVALID, ["phase", "empty"]),
    "a phase with a name over 256 bytes": (changes(phase="p" * 257), INVALID, ["256 bytes"]),
    "a change before the start": (
        changes(phase="p", ahead_ns=-3 * S),
        INVALID,
        ["monotonic_ns", "s before the window's start"],
    ),
    "a change in the future": (changes(weight=2.0, ahead_ns=2 * S), INVALID, ["future"]),
    "usage in the future": (changes(usage=USAGE, ahead_ns=2 * S), INVALID, ["future"]),
    "a first token before the start": (
        changes(first_token=Event.FirstToken(), ahead_ns=-3 * S),
        INVALID,
        ["before the window's start"],
    ),
    "a stop before its start": (
        stops(lambda: now_ns() - 3 * S),
        INVALID,
        ["monotonic_ns", "s before the window's start"],
    ),
    "a stop over 1 s in the future": (stops(lambda: now_ns() + 2 * S), INVALID, ["future"]),
    "a stop at the beginning of time": (stops(lambda: SMALL), INVALID, ["before"]),
    **{
        f"a cost of {cost}": (
            runs(lambda window_id, cost=cost: {window_id: cost}),  # type: ignore[misc]
            INVALID,
            ["costs", str(cost)],
        )
        for cost in (-1.0, NAN, INFINITY)
    },
    "costs of 0": (runs(lambda window_id: {window_id: 0.0}), INVALID, ["none is above 0"]),
    "costs whose sum is no number": (
        runs(lambda window_id: {window_id: 1.7e308, window_id.upper(): 1.7e308}),
        INVALID,
        ["costs: their sum is not finite"],
    ),
    "no costs": (runs(lambda _: {}), INVALID, ["none is above 0"]),
    "an iteration without a length": (
        runs(lambda window_id: {window_id: 1.0}, length_ns=0),
        INVALID,
        ["stop_monotonic_ns"],
    ),
    "an iteration older than the timeline": (
        runs(lambda window_id: {window_id: 1.0}, ahead_ns=-3600 * S),
        TOO_LATE,
        ["monotonic_ns", "timeline", "reaches back"],
    ),
    "an iteration in the future": (
        runs(lambda window_id: {window_id: 1.0}, ahead_ns=2 * S),
        INVALID,
        ["stop_monotonic_ns", "future"],
    ),
    "an iteration of an unknown window": (
        runs(lambda window_id: {window_id: 1.0, UNKNOWN_ID: 1.0}),
        NOT_FOUND,
        [f"no window {UNKNOWN_ID}", "open now: "],
    ),
    "an iteration of what is no id": (
        runs(lambda window_id: {window_id: 1.0, "7": 1.0}),
        INVALID,
        ["costs: '7'", "UUID"],
    ),
    "nothing": (lambda window_id: change(0, now_ns(), window_id), INVALID, ["event"]),
}
OF_A_WINDOW: dict[str, Callable[[str], Event]] = {
    "weight": changes(weight=2.0),
    "phase": changes(phase="p"),
    "usage": changes(usage=USAGE),
    "first token": changes(first_token=Event.FirstToken()),
    "stop": stops(now_ns),
    "iteration": runs(lambda window_id: {window_id: 1.0}),
}


@pytest.fixture
def stream(host: Metered) -> Iterator[Stream]:
    with new_session(host.stub) as stream:
        yield stream
    assert host.stub.GetStatus(pb.GetStatusRequest()).open_windows == 0


def numbered(events: Sequence[Event], first: int) -> list[Event]:
    for number, event in enumerate(events, first):
        event.sequence = number
    return list(events)


@pytest.mark.parametrize("row", EVENTS)
def test_an_event_is_refused_alone(stream: Stream, row: str) -> None:
    make, status, words = EVENTS[row]
    window_id, other = new_id(), new_id()
    at = now_ns()
    batch = [begin(1, at, window_id), make(window_id), begin(3, at, other), end(4, at, other)]
    stream.tell(*numbered(batch, 1))
    assert stream.refusals.keys() == {2}
    code, message = stream.refusals[2]
    assert code is status, message
    assert all(word in message for word in words), message
    stream.tell(end(5, now_ns(), window_id))
    assert [window.state for window in stream.final(window_id, other)] == ["final"] * 2
    assert stream.refusals.keys() == {2}


@pytest.mark.parametrize("kind", OF_A_WINDOW)
def test_of_an_unknown_window(stream: Stream, kind: str) -> None:
    event = OF_A_WINDOW[kind](UNKNOWN_ID)
    code, message = stream.refused(*numbered([event], 1))
    assert code is NOT_FOUND
    assert f"no window {UNKNOWN_ID}; open now: none" in message


@pytest.mark.parametrize("kind", OF_A_WINDOW)
@pytest.mark.parametrize("over", [False, True])
def test_of_somebody_elses_window(host: Metered, stream: Stream, kind: str, over: bool) -> None:
    window_id = new_id()
    with new_session(host.stub) as owner:
        owner.tell(begin(1, now_ns(), window_id))
        if over:
            owner.tell(end(2, now_ns(), window_id))
            owner.final(window_id)
        event = OF_A_WINDOW[kind](window_id)
        if event.HasField("weight"):
            event.weight = -1  # permission is checked before arguments
        code, message = stream.refused(*numbered([event], 1))
        assert code is DENIED, message
        assert "belongs to another session" in message
        assert stream.refused(begin(2, now_ns(), window_id))[0] is DENIED
        kept = host.stub.GetWindow(pb.GetWindowRequest(window_id=window_id))
        assert kept.state == ("final" if over else "open")
        if not over:
            refused(lambda: host.stub.StopWindow(pb.StopWindowRequest(window_id=window_id)), DENIED)
            owner.tell(end(2, now_ns(), window_id))


def test_of_a_window_that_is_final(stream: Stream) -> None:
    window_id = new_id()
    at = now_ns()
    stream.tell(begin(1, at, window_id), end(2, at, window_id))
    (final,) = stream.final(window_id)
    again = [begin(3, at, window_id), end(4, at, window_id), ran(5, at, at + 1, {window_id: 1})]
    stream.windows.clear()
    stream.tell(*again)  # a stop again, and an iteration that says nothing of it
    assert stream.final(window_id) == [final]
    assert stream.refusals == {}
    late = [event for kind, event in OF_A_WINDOW.items() if kind not in ("stop", "iteration")]
    stream.tell(*numbered([make(window_id) for make in late], 6))
    assert stream.refusals.keys() == {6, 7, 8, 9}
    for code, message in stream.refusals.values():
        assert code is TOO_LATE
        assert "is final, and never changes again" in message


def test_after_its_stop(stream: Stream) -> None:
    window_id = new_id()
    at = now_ns()
    late = [make for kind, make in OF_A_WINDOW.items() if kind not in ("stop", "iteration")]
    stream.tell(
        begin(1, at, window_id),
        end(2, at, window_id),
        *numbered([make(window_id) for make in late], 3),
        end(7, now_ns(), window_id),  # again: it ended when it ended
    )
    assert stream.refusals.keys() == {3, 4, 5, 6}
    for code, message in stream.refusals.values():
        assert code is INVALID
        assert "after the window's stop" in message
    (window,) = stream.final(window_id)
    assert window.duration_s == 0


def test_too_many_phases(stream: Stream) -> None:
    window_id = new_id()
    at = now_ns() - 1000
    phases = [change(0, at + n, window_id, phase=f"p{n}") for n in range(65)]
    stream.tell(*numbered([begin(1, at, window_id), *phases, end(0, at + 100, window_id)], 1))
    assert stream.refusals.keys() == {66}
    code, message = stream.refusals[66]
    assert code is INVALID
    assert "at most 64" in message
    (window,) = stream.final(window_id)
    assert [phase.name for phase in window.phases] == [f"p{n}" for n in range(64)]


def test_nothing_is_acknowledged_before_its_refusal_is_told(host: Metered) -> None:
    """They are more than go into a message."""
    token, count = uuid.uuid4().hex, 450

    def hear(stream: Stream) -> None:
        while stream.acknowledged < count:
            assert stream.refusals.keys() >= set(range(1, stream.acknowledged + 1))
            stream.read()
        assert stream.refusals.keys() == set(range(1, count + 1))

    stream = Stream(host.stub, session_token=token)
    stream.send(*numbered([end(0, now_ns(), new_id()) for _ in range(count)], 1))
    hear(stream)
    stream.cut()
    with new_session(host.stub, token) as again:
        hear(again)


def test_too_many_members(stream: Stream) -> None:
    ids = [f"01970000-0000-7000-8000-{n:012d}" for n in range(10_001)]
    at = now_ns()
    code, message = stream.refused(ran(1, at - 10, at, dict.fromkeys(ids, 1.0)))
    assert code is INVALID
    assert "10001 windows, at most 10000" in message
    del ids[1:]
    assert stream.refused(ran(2, at - 10, at, dict.fromkeys(ids, 1.0)))[0] is NOT_FOUND


def test_too_many_open_windows(double: NvmlDouble, tmp_path: Any) -> None:
    configuration = tmp_path / "greend.toml"
    configuration.write_text("[metering]\nmost_open_windows = 3\n")
    with (
        daemon(
            *("--config", str(configuration)),
            environment=os.environ | double.environment,
            devices=2,
        ) as running,
        running.stub() as stub,
        new_session(stub) as stream,
    ):
        ids = [new_id() for _ in range(4)]
        at = now_ns()
        stream.tell(*(begin(n, at, one) for n, one in enumerate(ids, 1)))
        assert stream.refusals.keys() == {4}
        code, message = stream.refusals[4]
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "most_open_windows" in message
        stream.tell(*(end(4 + n, at + 1, one) for n, one in enumerate(ids[:3], 1)))
        stream.final(*ids[:3])
