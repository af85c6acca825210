import pickle
import subprocess
import sys
import textwrap
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

import greend_client
from greend_client import Client, GreendError, LedgerRow, ResultUnavailable, _uuid7
from greend_client._times import unix_ns
from greend_proto.v1 import metering_pb2, types_pb2
from tests.client.memory_daemon import GPU_0, GPU_1, MemoryDaemon, serving

HOUR_NS = 3600 * 10**9


def python(code: str, *arguments: str) -> str:
    program = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout


def test_the_public_names_are_these() -> None:
    assert greend_client.__all__ == [
        "Client",
        "Device",
        "GreendError",
        "Group",
        "LedgerRow",
        "MigInstance",
        "Part",
        "Phase",
        "ResultUnavailable",
        "Sample",
        "Statistics",
        "Stats",
        "Status",
        "Watch",
        "Window",
        "WindowResult",
        "current_window",
    ]
    assert all(hasattr(greend_client, name) for name in greend_client.__all__)


def test_importing_starts_no_thread_and_sets_no_variable_but_what_forks_need() -> None:
    code = """
        import os, threading
        os.environ.pop("GRPC_ENABLE_FORK_SUPPORT", None)
        before = dict(os.environ)
        import greend_client
        assert threading.active_count() == 1
        assert before | {"GRPC_ENABLE_FORK_SUPPORT": "1"} == dict(os.environ)
    """
    python(code)


def test_a_program_that_just_ends_has_its_windows_sent(address: str, daemon: MemoryDaemon) -> None:
    code = """
        import sys, greend_client
        client = greend_client.Client(sys.argv[1])
        for n in range(20):
            with client.window(str(n)): pass
    """
    python(code, address)
    assert [window.state for window in daemon.windows.values()] == ["final"] * 20


def test_addresses_come_from_the_argument_the_environment_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Client() as client:
        assert client.address == "unix:///run/greend/greend.sock"
        assert client.control_address == "unix:///run/greend/control.sock"
    monkeypatch.setenv("GREEND_ADDRESS", "unix:///a")
    monkeypatch.setenv("GREEND_CONTROL_ADDRESS", "unix:///b")
    with Client() as client:
        assert (client.address, client.control_address) == ("unix:///a", "unix:///b")
    monkeypatch.delenv("GREEND_CONTROL_ADDRESS")
    # Both sockets lie in the runtime directory.
    for reading, control in {
        "unix:///tmp/g/greend.sock": "unix:///tmp/g/control.sock",
        "unix:///tmp/g/other.sock": "unix:///run/greend/control.sock",
        "dns:host/greend.sock": "unix:///run/greend/control.sock",
    }.items():
        with Client(reading) as client:
            assert client.control_address == control
    with Client("unix:///c", "unix:///d") as client:
        assert (client.address, client.control_address) == ("unix:///c", "unix:///d")


def windows(daemon: MemoryDaemon, count: int) -> None:
    for n in range(count):
        daemon.windows[str(n)] = types_pb2.Window(
            window_id=str(n),
            request_id=f"r{n}",
            state="final",
            start_unix_ns=n,
            devices=[(GPU_0, GPU_1)[n % 2]],
            tags={"model": "llama" if n % 2 else "qwen"},
            energy_j=n,
        )


def test_history_gives_every_page_and_asks_for_them_as_needed(
    client: Client, daemon: MemoryDaemon
) -> None:
    windows(daemon, 1200)
    history = client.history()
    assert len(daemon.requests) == 0
    assert next(history).window_id == "1199"
    assert len(daemon.requests) == 1
    assert [int(result.window_id) for result in history] == list(range(1198, -1, -1))
    assert len(daemon.requests) == 3


def test_history_chooses_by_all_conditions(client: Client, daemon: MemoryDaemon) -> None:
    windows(daemon, 10)
    assert [r.window_id for r in client.history(model="llama")] == ["9", "7", "5", "3", "1"]
    assert [r.window_id for r in client.history(request_id="r4")] == ["4"]
    assert [r.window_id for r in client.history(devices=1, request_id="r4")] == []
    assert len(list(client.history(devices=[0, GPU_1]))) == 10
    assert list(client.history(states=["open"])) == []
    list(client.history(since="1h", until=1700000000.5))
    sent = daemon.requests[-1].filter
    assert abs(sent.since_unix_ns - (time.time_ns() - HOUR_NS)) < 60 * 10**9
    assert sent.until_unix_ns == 1700000000500000000


def test_history_of_a_device_that_is_gone_is_the_daemons_to_judge(
    client: Client, daemon: MemoryDaemon
) -> None:
    list(client.history(devices="GPU-gone"))
    assert daemon.requests[-1].filter.devices == ["GPU-gone"]
    with pytest.raises(GreendError, match='no GPU "9"') as error:
        client.history(devices=9)
    assert error.value.code is grpc.StatusCode.NOT_FOUND


def test_the_ledger_comes_as_rows(client: Client, daemon: MemoryDaemon) -> None:
    daemon.ledger = [
        types_pb2.LedgerRow(device=GPU_0, start_unix_ns=1, stop_unix_ns=2, measured_j=3, idle_j=3),
        types_pb2.LedgerRow(device=GPU_1),
    ]
    row = LedgerRow(
        device=GPU_0,
        start_unix_ns=1,
        stop_unix_ns=2,
        measured_j=3,
        windows_j=0,
        idle_j=3,
        unattributed_j=0,
        gap_j=0,
        unknown_s=0,
    )
    assert client.ledger(devices=0) == [row]
    assert len(client.ledger(since=5, until=datetime(2025, 1, 1, tzinfo=UTC))) == 2
    request = daemon.requests[-1]
    assert request.since_unix_ns == 5 * 10**9
    assert request.until_unix_ns == 1735689600 * 10**9


def test_devices_and_status_come_as_values(client: Client, daemon: MemoryDaemon) -> None:
    first, second = client.devices()
    assert (first.index, first.uuid, first.state) == (0, GPU_0, "ok")
    assert (first.floor_w, first.context_floor_w) == (70.5, None)
    assert (first.power_limit_w, first.max_sm_clock_mhz) == (700, 1980)
    assert first.energy_counter
    assert second.state_reason is None
    status = client.status()
    assert (status.version, status.state, status.pid) == ("1.2.3", "serving", 42)
    assert [(part.name, part.state, part.message) for part in status.parts] == [
        ("driver", "ok", None)
    ]


def test_reading_without_a_daemon_is_an_error_that_says_what_to_do(socket: Path) -> None:
    with Client(f"unix://{socket}") as client:
        for call in (client.status, client.devices, client.ledger, lambda: list(client.history())):
            with pytest.raises(GreendError, match="greend serve") as error:
                call()
            assert error.value.code is grpc.StatusCode.UNAVAILABLE


def test_the_daemons_own_words_reach_the_caller(client: Client, daemon: MemoryDaemon) -> None:
    daemon.refuse = lambda request: (grpc.StatusCode.UNAVAILABLE, "no driver since 12:00")
    with pytest.raises(GreendError, match=r"^no driver since 12:00$") as error:
        client.status()
    assert error.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_daemon_that_hangs_is_an_error_in_time(client: Client, daemon: MemoryDaemon) -> None:
    daemon.gate.clear()
    with pytest.raises(GreendError, match="in time") as error:
        client.call(client.stub.GetStatus, metering_pb2.GetStatusRequest(), timeout_s=0.1)
    assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_call_can_wait_for_the_daemon(socket: Path, daemon: MemoryDaemon) -> None:
    with Client(f"unix://{socket}") as client:
        with pytest.raises(GreendError):
            client.status()
        with serving(daemon, socket):
            request = metering_pb2.GetStatusRequest()
            client.call(client.stub.GetStatus, request, timeout_s=10, wait_for_daemon=True)


def test_a_closed_client_says_so(address: str) -> None:
    client = Client(address)
    client.close()
    with pytest.raises(GreendError, match="closed") as error:
        client.status()
    assert error.value.code is grpc.StatusCode.CANCELLED


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ResultUnavailable("why", grpc.StatusCode.NOT_FOUND)))
    assert (str(error), error.code) == ("why", grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    ("when", "nanoseconds"),
    [
        (0, 0),
        (1.5, 1_500_000_000),
        ("1970-01-02T00:00:00Z", 86400 * 10**9),
        ("1970-01-01T01:00:00+01:00", 0),
        (datetime(1970, 1, 2, tzinfo=UTC), 86400 * 10**9),
        ("2025-01-31", round(datetime(2025, 1, 31).timestamp() * 1e9)),
        ("2025-01-31 12:30", round(datetime(2025, 1, 31, 12, 30).timestamp() * 1e9)),
    ],
)
def test_instants_are_understood(when: Any, nanoseconds: int) -> None:
    assert unix_ns(when) == nanoseconds


@pytest.mark.parametrize(
    ("ago", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5 h", 5400), ("7d", 604800), ("1w", 604800)],
)
def test_times_ago_are_understood(ago: str, seconds: int) -> None:
    assert abs(time.time_ns() - seconds * 10**9 - unix_ns(ago)) < 10 * 10**9


@pytest.mark.parametrize("when", ["yesterday", "24", "", "-1h", float("nan"), float("inf"), [1]])
def test_what_is_no_instant_is_invalid(when: Any) -> None:
    with pytest.raises(GreendError) as error:
        unix_ns(when)
    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_uuid7_begins_with_its_time_and_sorts_by_it() -> None:
    made_ns = 1_700_000_000_123_456_789
    numbers = [_uuid7.draw() for _ in range(1000)]
    uuids = [uuid.UUID(_uuid7.text(number, made_ns)) for number in numbers]
    assert {one.version for one in uuids} == {7}
    assert {one.variant for one in uuids} == {"specified in RFC 4122"}
    assert {one.int >> 80 for one in uuids} == {made_ns // 10**6}
    assert sorted(set(uuids)) == uuids
    assert uuid.UUID(_uuid7.text(0, made_ns + 1000)) > uuids[-1]


def test_windows_of_forked_processes_have_ids_of_their_own() -> None:
    program = """
        import os, sys
        from greend_client import _uuid7
        first = _uuid7.draw()
        if os.fork() == 0:
            print(_uuid7.draw(), flush=True)
            os._exit(0)
        os.wait()
        print(_uuid7.draw(), first + 1)
    """
    child, parent, following = map(int, python(program).split())
    assert parent == following
    assert abs(child - parent) > 10**9
