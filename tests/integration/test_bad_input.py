"""DESIGN.md's table "Bad input", row by row: over the socket, with status and message.

Its other rows are in test_exhausted.py (too many windows, a full disk) and
test_unavailable.py (GPUs that do not answer). Those of leases come with the service that
applies them: unknown lease; clocks outside the range, min above max, ttl over the
maximum; a device the door may not control; a function the GPU or driver lacks.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from greend_proto.v1 import control_pb2, control_pb2_grpc, types_pb2
from greend_proto.v1 import metering_pb2 as pb
from tests.daemon import daemon
from tests.integration.conftest import Metered, set_base_power
from tests.integration.test_windows import S, refused
from tests.nvml_double import NvmlDouble

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNKNOWN_ID = "01970000-0000-7000-8000-000000000000"
BIG, SMALL = 2**63 - 1, -(2**63)


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


def start(**fields: Any) -> pb.StartWindowRequest:
    return pb.StartWindowRequest(**fields)


def listed(page_size: int = 0, page_token: str = "", **conditions: Any) -> pb.ListWindowsRequest:
    return pb.ListWindowsRequest(
        filter=types_pb2.WindowFilter(**conditions), page_size=page_size, page_token=page_token
    )


def summed(**fields: Any) -> pb.SummarizeWindowsRequest:
    return pb.SummarizeWindowsRequest(**fields)


def ahead(seconds: float) -> int:
    return time.time_ns() + round(seconds * S)


# What is asked when the test runs, with the status and words of the answer.
STARTS: dict[str, tuple[Callable[[], pb.StartWindowRequest], grpc.StatusCode, list[str]]] = {
    "unknown device": (
        lambda: start(devices=["GPU-none"]),
        NOT_FOUND,
        ["devices", "'GPU-none'", "there are: GPU-"],
    ),
    "an index for a device": (lambda: start(devices=["0"]), NOT_FOUND, ["there are: GPU-"]),
    "more than 32 tags": (
        lambda: start(tags={f"k{n}": "" for n in range(33)}),
        INVALID,
        ["tags: 33", "at most 32"],
    ),
    "a key over 64 bytes": (lambda: start(tags={"k" * 65: ""}), INVALID, ["tags: key", "64 bytes"]),
    "a key over 64 bytes in fewer characters": (
        lambda: start(tags={"k" + "é" * 32: ""}),
        INVALID,
        ["tags: key", "64 bytes"],
    ),
    "a value over 256 bytes": (
        lambda: start(tags={"model": "v" * 257}),
        INVALID,
        ["tags", "'model'", "256 bytes"],
    ),
    **{
        f"the key {key!r}": (
            lambda key=key: start(tags={key: "v"}),  # type: ignore[misc]
            INVALID,
            ["tags: key", "[a-z][a-z0-9_.]*"],
        )
        for key in ("", "Model", "1st", "_x", "a b", "a-b", "a\n", "é", "a\x00")
    },
    **{
        f"a weight of {weight}": (
            lambda weight=weight: start(weight=weight),  # type: ignore[misc]
            INVALID,
            ["weight", "between 0.001 and 1e+06"],
        )
        for weight in (0.0, 9.9e-4, 1.1e6, -1.0, float("nan"), float("inf"), float("-inf"))
    },
    "a start over 1 s in the future": (
        lambda: start(start_unix_ns=ahead(2)),
        INVALID,
        ["start_unix_ns", "s in the future, at most 1 s", "clock"],
    ),
    "a start at the end of time": (
        lambda: start(start_unix_ns=BIG),
        INVALID,
        ["start_unix_ns", "future"],
    ),
    "a start older than the timeline": (
        lambda: start(start_unix_ns=ahead(-3600)),
        grpc.StatusCode.OUT_OF_RANGE,
        ["start_unix_ns: 3600.", "reaches back"],
    ),
    "a start in seconds for ns": (
        lambda: start(start_unix_ns=int(time.time())),
        grpc.StatusCode.OUT_OF_RANGE,
        ["start_unix_ns", "reaches back"],
    ),
    "a start at the beginning of time": (
        lambda: start(start_unix_ns=SMALL),
        grpc.StatusCode.OUT_OF_RANGE,
        ["start_unix_ns", "reaches back"],
    ),
    "a window id that is none": (
        lambda: start(window_id="7"),
        INVALID,
        ["window_id: '7'", "UUID"],
    ),
    "a parent id that is none": (
        lambda: start(parent_id="7"),
        INVALID,
        ["parent_id: '7'", "UUID"],
    ),
    "its own parent": (
        lambda: start(window_id=UNKNOWN_ID, parent_id=UNKNOWN_ID),
        INVALID,
        ["parent_id", "ancestor"],
    ),
    "a request id over 256 bytes": (
        lambda: start(request_id="r" * 257),
        INVALID,
        ["request_id", "256 bytes"],
    ),
}


@pytest.mark.parametrize("row", STARTS)
def test_a_start_is_refused_with(host: Metered, row: str) -> None:
    request, status, words = STARTS[row]
    refused(lambda: host.stub.StartWindow(request()), status, *words)
    assert host.stub.GetStatus(pb.GetStatusRequest()).open_windows == 0


STOPS: dict[str, tuple[Callable[[types_pb2.Window], dict[str, Any]], list[str]]] = {
    "a stop before its start": (
        lambda window: {"stop_unix_ns": window.start_unix_ns - S},
        ["stop_unix_ns: 1.000000 s before", "start"],
    ),
    "a stop at the beginning of time": (lambda _: {"stop_unix_ns": SMALL}, ["before", "start"]),
    "a stop over 1 s in the future": (
        lambda _: {"stop_unix_ns": ahead(2)},
        ["stop_unix_ns", "s in the future, at most 1 s"],
    ),
    "a stop at the end of time": (lambda _: {"stop_unix_ns": BIG}, ["stop_unix_ns", "future"]),
    "a wait that is not finite": (lambda _: {"wait_s": float("nan")}, ["wait_s: nan"]),
    "a wait below 0": (lambda _: {"wait_s": -1}, ["wait_s: -1"]),
}


@pytest.mark.parametrize("row", STOPS)
def test_a_stop_is_refused_with(host: Metered, row: str) -> None:
    fields, words = STOPS[row]
    opened = host.stub.StartWindow(start(request_id=row))
    known: dict[str, Any] = {"window_id": opened.window_id}
    refused(
        lambda: host.stub.StopWindow(pb.StopWindowRequest(**known, **fields(opened))),
        INVALID,
        *words,
    )
    assert host.stub.GetWindow(pb.GetWindowRequest(**known)).state == "open"
    assert host.stub.StopWindow(pb.StopWindowRequest(**known)).state in ("stopped", "final")


@pytest.mark.parametrize("call", ["GetWindow", "StopWindow"])
def test_unknown_window(host: Metered, call: str) -> None:
    opened = host.stub.StartWindow(start())
    make = {"GetWindow": pb.GetWindowRequest, "StopWindow": pb.StopWindowRequest}[call]
    ask: Callable[[str], object] = lambda name: getattr(host.stub, call)(make(window_id=name))  # noqa: E731
    refused(
        lambda: ask(UNKNOWN_ID),
        NOT_FOUND,
        f"window_id: no window {UNKNOWN_ID}",
        f"open now: {opened.window_id}",
    )
    for wrong in ("", "7", "'; drop table windows; --"):
        refused(lambda wrong=wrong: ask(wrong), INVALID, "window_id", "UUID")
    host.stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id))
    refused(lambda: ask(UNKNOWN_ID), NOT_FOUND, "open now:")


def test_the_same_start_or_stop_again(host: Metered) -> None:
    request = start(
        window_id=str(uuid.uuid4()),
        request_id="r",
        tags={"a": "b"},
        weight=2,
        devices=[host.double.gpus[0].uuid],
        start_unix_ns=ahead(-0.1),
        session_token="secret",
    )
    first = host.stub.StartWindow(request)
    again = host.stub.StartWindow(request)
    assert (again.window_id, again.start_unix_ns, again.tags) == (
        first.window_id,
        first.start_unix_ns,
        first.tags,
    )
    assert host.stub.GetStatus(pb.GetStatusRequest()).open_windows == 1
    stop = pb.StopWindowRequest(
        window_id=first.window_id, session_token="secret", stop_unix_ns=ahead(0), wait_s=10
    )
    final = host.stub.StopWindow(stop)
    assert final.state == "final"
    assert host.stub.StopWindow(stop) == host.stub.StartWindow(request) == final


def test_the_same_start_again_after_the_timeline_has_left_it_behind(metered: Metered) -> None:
    request = start(window_id=str(uuid.uuid4()), start_unix_ns=ahead(0))
    metered.stub.StartWindow(request)
    final = metered.stub.StopWindow(pb.StopWindowRequest(window_id=request.window_id, wait_s=10))
    metered.daemon.stop()
    metered.daemon.start(devices=2)  # with a timeline that begins now
    with metered.daemon.stub() as stub:
        refused(
            lambda: stub.StartWindow(start(start_unix_ns=request.start_unix_ns)),
            grpc.StatusCode.OUT_OF_RANGE,
        )
        assert stub.StartWindow(request) == final


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_id", "other"),
        ("tags", {"a": "c"}),
        ("weight", 3.0),
        ("start_unix_ns", 1),
        ("parent_id", UNKNOWN_ID),
    ],
)
@pytest.mark.parametrize("when", ["open", "final"])
def test_a_start_again_with_another(host: Metered, name: str, value: object, when: str) -> None:
    known: dict[str, Any] = {"window_id": str(uuid.uuid4()), "tags": {"a": "b"}}
    opened = host.stub.StartWindow(start(**known))
    stop = pb.StopWindowRequest(window_id=opened.window_id, wait_s=10)
    if when == "final":
        assert host.stub.StopWindow(stop).state == "final"
    refused(
        lambda: host.stub.StartWindow(start(**known | {name: value})),
        INVALID,
        "window_id",
        "started already",
        name,
    )
    host.stub.StopWindow(stop)
    assert host.stub.GetWindow(pb.GetWindowRequest(window_id=opened.window_id)).tags == {"a": "b"}


@pytest.mark.parametrize("token", ["", "wrong"])
@pytest.mark.parametrize("when", ["open", "final"])
def test_somebody_elses_window(host: Metered, token: str, when: str) -> None:
    mine: dict[str, Any] = {"window_id": str(uuid.uuid4()), "session_token": "secret"}
    host.stub.StartWindow(start(**mine))
    if when == "final":
        host.stub.StopWindow(pb.StopWindowRequest(**mine, wait_s=10))
    theirs = mine | {"session_token": token}
    denied, words = grpc.StatusCode.PERMISSION_DENIED, (mine["window_id"], "session_token")
    refused(lambda: host.stub.StartWindow(start(**theirs)), denied, *words)
    # Before arguments are looked at.
    wrong = pb.StopWindowRequest(**theirs, stop_unix_ns=BIG, wait_s=-1)
    refused(lambda: host.stub.StopWindow(wrong), denied, *words)
    kept = host.stub.StopWindow(pb.StopWindowRequest(**mine, wait_s=10))
    assert kept.state == "final"


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("AcquireLimit", control_pb2.AcquireLimitRequest(ttl_s=-1)),
        ("RenewLease", control_pb2.RenewLeaseRequest()),
        ("ReleaseLease", control_pb2.ReleaseLeaseRequest(lease_id="none")),
        ("ListLeases", control_pb2.ListLeasesRequest()),
        ("ListAudit", control_pb2.ListAuditRequest()),
    ],
)
def test_control_through_the_reading_door(host: Metered, name: str, request_: Any) -> None:
    with host.daemon.channel() as channel:
        method = getattr(control_pb2_grpc.ControlServiceStub(channel), name)
        refused(
            lambda: method(request_),
            grpc.StatusCode.PERMISSION_DENIED,
            "control.sock",
            "greend-control",
        )


MANY = ["GPU-none"] * 1001

READS: dict[str, tuple[Any, grpc.StatusCode, list[str]]] = {
    "page_size over 1000": (listed(page_size=1001), INVALID, ["page_size: 1001", "1 and 1000"]),
    "page_token of nobody": (listed(page_token="x"), INVALID, ["page_token", "this daemon"]),
    "page_token of another form": (
        listed(page_token="WzEsMiwzXQ=="),
        INVALID,
        ["page_token", "this daemon"],
    ),
    "page_token with half a character": (
        listed(page_token="WzAsICJcdWQ4MDAiXQ=="),
        INVALID,
        ["page_token", "this daemon"],
    ),
    "page_token with a huge figure": (
        listed(page_token="WzFlOTk5LCAiYSJd"),
        INVALID,
        ["page_token", "this daemon"],
    ),
    "an unknown state": (listed(states=["gone"]), INVALID, ["states: 'gone'", "open"]),
    "a filter on a device that is none": (
        listed(devices=["GPU-none"]),
        NOT_FOUND,
        ["devices", "'GPU-none'", "there are: GPU-"],
    ),
    "a filter on too many tags": (
        listed(tags={f"k{n}": "" for n in range(33)}),
        INVALID,
        ["tags: 33"],
    ),
    "a filter on a wrong key": (listed(tags={"A": ""}), INVALID, ["tags", "[a-z]"]),
    "an end before its begin": (
        listed(since_unix_ns=2 * S, until_unix_ns=S),
        INVALID,
        ["until_unix_ns: 1.000 s before since_unix_ns"],
    ),
    "a summary by a wrong key": (summed(by=["a'"]), INVALID, ["by: key", "[a-z]"]),
    "a summary by too many keys": (
        summed(by=[f"k{n}" for n in range(33)]),
        INVALID,
        ["by: 33", "at most 32"],
    ),
    "a summary by a key twice": (summed(by=["a", "a"]), INVALID, ["by", "twice"]),
    **{
        f"a bucket of {bucket_s} s": (summed(bucket_s=bucket_s), INVALID, ["bucket_s", "between"])
        for bucket_s in (0.0, 0.5, -1.0, 1e10, float("nan"), float("inf"))
    },
    "idle by halves": (summed(idle="half"), INVALID, ["idle: 'half'", "include", "exclude"]),
    "a summary of an unknown state": (
        summed(filter=types_pb2.WindowFilter(states=["gone"])),
        INVALID,
        ["states"],
    ),
    "the ledger of an unknown device": (
        pb.GetLedgerRequest(devices=["GPU-none"]),
        NOT_FOUND,
        ["devices", "there are: GPU-"],
    ),
    "the ledger of an interval turned round": (
        pb.GetLedgerRequest(since_unix_ns=2 * S, until_unix_ns=S),
        INVALID,
        ["until_unix_ns"],
    ),
    "a snapshot of an unknown device": (
        pb.GetSnapshotRequest(devices=["GPU-none"]),
        NOT_FOUND,
        ["devices", "there are: GPU-"],
    ),
    "a feed of an unknown device": (
        pb.WatchSamplesRequest(devices=["GPU-none"]),
        NOT_FOUND,
        ["devices", "there are: GPU-"],
    ),
    **{
        f"too many devices in a {type(request).__name__}": (
            request,
            INVALID,
            ["devices: 1001", "at most 1000"],
        )
        for request in (
            listed(devices=MANY),
            pb.GetLedgerRequest(devices=MANY),
            pb.GetSnapshotRequest(devices=MANY),
            pb.WatchSamplesRequest(devices=MANY),
        )
    },
    "a feed at a negative interval": (
        pb.WatchSamplesRequest(interval_s=-1),
        INVALID,
        ["interval_s: -1"],
    ),
    **{
        f"a feed at an interval of {interval_s} s": (
            pb.WatchSamplesRequest(interval_s=interval_s),
            INVALID,
            ["interval_s", "between 0 and 3600 s"],
        )
        for interval_s in (3601, float("inf"), float("nan"))
    },
    "a feed of windows in an unknown state": (
        pb.WatchWindowsRequest(filter=types_pb2.WindowFilter(states=["gone"])),
        INVALID,
        ["states: 'gone'"],
    ),
}


def ask(stub: Any, request: Any) -> object:
    """Makes the call that a request is for, to its first answer."""
    name = type(request).__name__.removesuffix("Request")
    answer = getattr(stub, name)(request, timeout=20)
    return next(answer) if name.startswith("Watch") else answer


@pytest.mark.parametrize("row", READS)
def test_reading_is_refused_with(host: Metered, row: str) -> None:
    request, status, words = READS[row]
    refused(lambda: ask(host.stub, request), status, *words)


@pytest.mark.parametrize(
    "request_",
    [
        listed(since_unix_ns=SMALL, until_unix_ns=BIG),
        summed(filter=types_pb2.WindowFilter(since_unix_ns=SMALL, until_unix_ns=BIG), bucket_s=1e9),
        pb.GetLedgerRequest(since_unix_ns=SMALL, until_unix_ns=BIG),
        listed(page_token="Wy05MjIzMzcyMDM2ODU0Nzc1ODA4LCAiIl0="),
        listed(tags={"a": "\x00'\""}, request_id="'; drop table windows; --"),
    ],
    ids=["windows", "summary", "ledger", "page_token", "text"],
)
def test_the_ends_of_time_and_any_text_can_be_asked_for(host: Metered, request_: Any) -> None:
    ask(host.stub, request_)


SERVICE = "/greend.v1.MeteringService"


@pytest.mark.parametrize(
    ("method", "data", "status", "words"),
    [
        (f"{SERVICE}/StartWindow", b"\xff\xff\xff", INVALID, "no message of its type"),
        (f"{SERVICE}/StartWindow", b"\x12\x01\xff", INVALID, "UTF-8"),
        (f"{SERVICE}/GetStatus", b"\x0a\xff", INVALID, "no message of its type"),
        ("/grpc.health.v1.Health/Check", b"\x0a\xff", INVALID, "no message of its type"),
        (f"{SERVICE}/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, f"{SERVICE}/Nothing"),
        ("/greend.v1.Nothing/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, "reflection"),
        ("/", b"", grpc.StatusCode.UNIMPLEMENTED, "reflection"),
        (
            f"{SERVICE}/StartWindow",
            bytes(5 * 2**20),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "larger than max",
        ),
    ],
    ids=["bytes", "text", "nothing known", "health", "method", "service", "no name", "size"],
)
def test_what_is_no_call_of_the_protocol(
    host: Metered, method: str, data: bytes, status: grpc.StatusCode, words: str
) -> None:
    with host.daemon.channel() as channel:
        call: Any = channel.unary_unary(method)
        refused(lambda: call(data, timeout=20), status, words)


def test_a_stream_of_what_is_no_message(host: Metered) -> None:
    with host.daemon.channel() as channel:
        call: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        refused(lambda: list(call(iter([b"\xff"]), timeout=20)), INVALID, "no message of its type")


def test_none_of_it_reached_the_log(host: Metered) -> None:
    log = host.daemon.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log
    assert host.stub.GetStatus(pb.GetStatusRequest()).state == "serving"
