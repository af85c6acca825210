"""Deleting history: through the control door, final windows only, while measuring goes on."""

import threading
import time
from typing import Any

import grpc
import pytest

from greend.metering.pruning import STEP_ROWS
from greend.model import Booking
from greend_client import Client
from greend_proto.v1 import admin_pb2, admin_pb2_grpc, types_pb2
from greend_proto.v1 import metering_pb2 as pb
from tests.integration.conftest import Metered
from tests.integration.history import DEVICE, past_window, remember, remember_many
from tests.integration.test_reading import measure
from tests.integration.test_windows import refused

S = 1_000_000_000
DAY = 86_400 * S


def prune(
    metered: Metered, *, dry_run: bool = False, minutes: bool = False, **conditions: Any
) -> list[admin_pb2.PruneWindowsResponse]:
    """Everything that the daemon says meanwhile."""
    chosen = types_pb2.WindowFilter(**conditions)
    request = admin_pb2.PruneWindowsRequest(filter=chosen, dry_run=dry_run, minutes=minutes)
    with metered.daemon.admin_stub() as stub:
        return list(stub.PruneWindows(request))


def kept(metered: Metered) -> set[str]:
    return {row["window_id"] for row in metered.daemon.rows("select window_id from windows")}


def test_history_is_not_deleted_through_the_reading_door(metered: Metered) -> None:
    with metered.daemon.channel() as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        # Denied before the request is looked at: this one has no condition.
        refused(
            lambda: list(stub.PruneWindows(admin_pb2.PruneWindowsRequest())),
            grpc.StatusCode.PERMISSION_DENIED,
            "control.sock",
            "GREEND_CONTROL_ADDRESS",
            "greend-control",
        )


def test_what_must_not_be_deleted_is_refused_with_what_can_be_said(metered: Metered) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    conditions = ["since_unix_ns", "until_unix_ns", "tags", "request_id", "devices"]
    refused(lambda: prune(metered), invalid, "filter", *conditions)
    refused(lambda: prune(metered, states=["final"]), invalid, *conditions)
    refused(lambda: prune(metered, until_unix_ns=1, states=["open"]), invalid, "filter.states")
    refused(lambda: prune(metered, until_unix_ns=1, since_unix_ns=2), invalid, "until_unix_ns")
    refused(lambda: prune(metered, tags={"Model": "a"}), invalid, "tags")
    refused(lambda: prune(metered, minutes=True, tags={"model": "a"}), invalid, "minutes")
    device = metered.double.gpus[0].uuid
    refused(
        lambda: prune(metered, minutes=True, until_unix_ns=1, devices=[device]), invalid, "minutes"
    )
    unknown = grpc.StatusCode.NOT_FOUND
    refused(lambda: prune(metered, devices=[DEVICE]), unknown, "devices", DEVICE, device)


def test_windows_go_by_their_start_and_those_that_are_not_final_stay(metered: Metered) -> None:
    begun = time.time_ns()
    past = [past_window(begun - days * DAY) for days in (1, 3, 2)]
    across = past_window(begun - 2 * DAY - S // 20)  # ends within the time asked for
    remember(metered.daemon.directory, [*past, across])
    running = metered.stub.StartWindow(pb.StartWindowRequest(start_unix_ns=begun))

    (told,) = prune(metered, dry_run=True, until_unix_ns=begun + S)
    assert told.matching_windows == 4
    assert told.deleted_windows == 0
    assert told.first_start_unix_ns == past[1].start_unix_ns
    assert told.last_start_unix_ns == past[0].start_unix_ns
    assert told.until_unix_ns < begun + S, "what starts from now on is not meant"
    assert len(kept(metered)) == 5

    first, *_, last = prune(metered, since_unix_ns=begun - 2 * DAY, until_unix_ns=begun - DAY)
    assert (first.matching_windows, first.deleted_windows) == (1, 0)
    assert (last.matching_windows, last.deleted_windows) == (1, 1)
    assert last.until_unix_ns == begun - DAY
    left = {past[0].window_id, past[1].window_id, across.window_id, running.window_id}
    assert kept(metered) == left

    assert prune(metered, until_unix_ns=time.time_ns())[-1].deleted_windows == 3
    assert kept(metered) == {running.window_id}
    metered.stub.StopWindow(pb.StopWindowRequest(window_id=running.window_id, wait_s=10))
    (last,) = prune(metered, dry_run=True, since_unix_ns=0)
    assert last.matching_windows == 1
    assert not prune(metered, dry_run=True, request_id="none")[0].HasField("first_start_unix_ns")


def test_a_child_or_a_parent_can_go_alone_and_nothing_else_changes(metered: Metered) -> None:
    uuids = [metered.double.gpus[0].uuid]

    def start(name: str, parent_id: str = "") -> str:
        request = pb.StartWindowRequest(
            request_id=name, devices=uuids, tags={"part": name}, parent_id=parent_id
        )
        return metered.stub.StartWindow(request).window_id

    def stop(window_id: str, wait_s: float) -> types_pb2.Window:
        request = pb.StopWindowRequest(window_id=window_id, wait_s=wait_s)
        return metered.stub.StopWindow(request)

    parent_id = start("parent")
    inside_id, child_id = start("inside", parent_id), start("child", parent_id)
    time.sleep(0.3)
    inside, child = stop(inside_id, 10), stop(child_id, 10)
    assert inside.state == child.state == "final"
    # The parent runs on, and will still be told what its child got.
    assert prune(metered, tags={"part": "child"})[-1].deleted_windows == 1
    refused(
        lambda: metered.stub.GetWindow(pb.GetWindowRequest(window_id=child_id)),
        grpc.StatusCode.NOT_FOUND,
    )
    assert prune(metered, tags={"part": "parent"})[-1].deleted_windows == 0
    parent = stop(parent_id, 10)
    assert parent.energy_j > inside.energy_j + child.energy_j
    ledger = metered.stub.GetLedger(pb.GetLedgerRequest(devices=uuids)).rows[0]

    assert prune(metered, request_id="parent")[-1].deleted_windows == 1
    assert metered.stub.GetWindow(pb.GetWindowRequest(window_id=inside_id)) == inside
    after = metered.stub.GetLedger(pb.GetLedgerRequest(devices=uuids)).rows[0]
    assert after.windows_j == pytest.approx(ledger.windows_j), "what was used was used"
    assert kept(metered) == {inside_id}


def test_measuring_goes_on_while_much_is_deleted(metered: Metered) -> None:
    old = time.time_ns() - DAY
    count = 40 * STEP_ROWS + 1
    remember_many(metered.daemon.directory, past_window(old, model="a"), count)
    measured: list[types_pb2.Window] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            measured.append(measure(metered, 0.02, 1, model="a"))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        told = prune(metered, until_unix_ns=old + DAY // 2)
    finally:
        ended.set()
        worker.join()
    deleted = [answer.deleted_windows for answer in told]
    assert deleted == sorted(deleted)
    assert len(told) > 40, "it is told how far it is"
    assert {answer.matching_windows for answer in told} == {count}
    assert deleted[-1] == count
    assert measured
    assert all(window.energy_j > 0 for window in measured)
    assert kept(metered) == {window.window_id for window in measured}
    (row,) = metered.daemon.rows("pragma integrity_check")
    assert list(row.values()) == ["ok"]


def test_a_call_that_is_cancelled_has_deleted_the_oldest(metered: Metered) -> None:
    old = time.time_ns() - DAY
    windows = [past_window(old + number) for number in range(100 * STEP_ROWS)]
    remember(metered.daemon.directory, windows)
    request = admin_pb2.PruneWindowsRequest(
        filter=types_pb2.WindowFilter(until_unix_ns=time.time_ns())
    )
    with metered.daemon.admin_stub() as stub:
        call = stub.PruneWindows(request)
        assert next(call).deleted_windows == 0
        assert next(call).deleted_windows == STEP_ROWS
        call.cancel()
        # Whatever step was under way has ended when these are told.
        again = stub.PruneWindows(
            admin_pb2.PruneWindowsRequest(filter=request.filter, dry_run=True)
        )
        assert 0 < next(again).matching_windows < len(windows)
    left = kept(metered)
    assert left == {window.window_id for window in windows[-len(left) :]}
    assert "Traceback" not in metered.daemon.log.read_text()


def test_minutes_that_late_windows_may_change_stay(metered: Metered) -> None:
    minute_s = time.time_ns() // S // 60 * 60
    bookings = [Booking(DEVICE, minute_s - 60 * n, 2.0, 1.0, 1.0) for n in range(60)]
    remember(metered.daemon.directory, bookings=bookings)
    last = prune(metered, minutes=True, until_unix_ns=time.time_ns())[-1]
    assert last.matching_minutes == last.deleted_minutes
    youngest = metered.daemon.rows("select minute_unix_s from minutes where device = ?", DEVICE)
    # That of now is never whole; as of the request it may be the one before.
    assert {row["minute_unix_s"] for row in youngest} >= {minute_s - 60 * n for n in range(15)}
    assert len(youngest) <= 17


def test_minutes_go_by_time_alone_and_only_as_a_whole(metered: Metered) -> None:
    minute_s = (time.time_ns() - DAY) // S // 60 * 60
    bookings = [Booking(DEVICE, minute_s + 60 * n, 2.0, 1.0, 1.0) for n in range(1300)]
    remember(metered.daemon.directory, [past_window(minute_s * S)], bookings)

    def minutes() -> list[int]:
        rows = metered.daemon.rows(
            "select minute_unix_s from minutes where device = ? order by 1", DEVICE
        )
        return [row["minute_unix_s"] for row in rows]

    before = minutes()
    assert prune(metered, until_unix_ns=(minute_s + 600) * S)[-1].deleted_windows == 1
    assert minutes() == before, "they are kept unless it is said"
    # Half of the first and half of the last minute are outside.
    interval: dict[str, Any] = {
        "since_unix_ns": (minute_s + 30) * S,
        "until_unix_ns": (minute_s + 60 * 1200 + 30) * S,
    }
    (told,) = prune(metered, minutes=True, dry_run=True, **interval)
    assert told.matching_minutes == 1199
    assert minutes() == before
    last = prune(metered, minutes=True, **interval)[-1]
    assert (last.matching_minutes, last.deleted_minutes) == (1199, 1199)
    assert minutes() == [before[0], *before[1200:]]


def test_a_client_sees_the_rest_of_the_history(metered: Metered) -> None:
    old = time.time_ns() - DAY
    remember(
        metered.daemon.directory, [past_window(old + n, model="ab"[n % 2]) for n in range(100)]
    )
    with Client(metered.daemon.address) as client:
        assert len(list(client.history(model="a"))) == 50
        other = metered.double.gpus[0].uuid
        prune(metered, tags={"model": "a"}, devices=[other])
        assert len(list(client.history(model="a"))) == 50, "all conditions hold together"
        prune(metered, tags={"model": "a"}, devices=[DEVICE, other])
        assert list(client.history(model="a")) == []
        (group,) = client.summary()
        assert group.count == 50
