"""What becomes of windows whose session is gone: one run of a minute, looked at in parts."""

import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2
from tests.daemon import Daemon, daemon
from tests.integration.recording import Stream, begin, end, new_id, now_ns, session
from tests.integration.test_windows import refused

AWAY_S = 30
# Until a client that does not answer is cut: asked every 20 s, it has 10 s to answer.
FROZEN_S = 30

# A client of its own process: opens a window, says its id, and waits.
CLIENT = """
import sys, time, greend_client
client = greend_client.Client(sys.argv[1])
window = client.window("frozen").start()
client.window("first").start().stop()
time.sleep(1)
print(window.window_id, flush=True)
time.sleep(600)
"""


@dataclass
class Gone:
    """The windows of the run, by what became of their sessions."""

    cut_ns: int = 0
    windows: dict[str, types_pb2.Window] = field(default_factory=dict)
    told: dict[str, types_pb2.Window] = field(default_factory=dict)
    refusals: dict[int, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    frozen_after_s: float = 0.0


def unix_ns(instant_ns: int) -> int:
    return instant_ns + time.time_ns() - time.monotonic_ns()


class Run:
    """A daemon whose clients go away in several ways."""

    def __init__(self, running: Daemon, frozen: "subprocess.Popen[str]") -> None:
        self.running = running
        self.gone = Gone()
        self.ids: dict[str, str] = {}
        self.frozen = frozen
        assert frozen.stdout is not None
        self.ids["frozen"] = frozen.stdout.readline().strip()
        frozen.send_signal(signal.SIGSTOP)
        self.frozen_s = time.monotonic()

    def play(self) -> Gone:
        with self.running.stub() as stub:
            tokens = {name: uuid.uuid4().hex for name in ("late", "back", "closed")}
            streams = {name: Stream(stub, session_token=token) for name, token in tokens.items()}
            for name, stream in streams.items():
                self.ids[name] = new_id()
                stream.tell(begin(1, now_ns(), self.ids[name]))
            for name, token in {
                "unary of late": tokens["late"],
                "unary of nobody": "",
                "unary of a secret alone": "known to no stream",
            }.items():
                request = pb.StartWindowRequest(session_token=token)
                self.ids[name] = stub.StartWindow(request).window_id
            streams["late"].refused(end(2, now_ns(), new_id()))
            time.sleep(0.5)
            streams["closed"].close()
            for name in ("late", "back"):
                streams[name].cut()
            self.gone.cut_ns = unix_ns(now_ns())
            time.sleep(AWAY_S / 2)
            back = Stream(stub, session_token=tokens["back"])
            assert back.acknowledged == 1
            self.look(stub, "back", "late")
            assert self.gone.windows["late"].state == "open", "it may come back"
            time.sleep(AWAY_S / 2 + 2)
            self.look(stub, *self.ids)
            with session(stub, tokens["late"]) as late:
                assert late.acknowledged == 2
                # What it had not told before, and what it had.
                late.tell(end(2, now_ns(), new_id()), end(3, now_ns(), self.ids["late"]))
                self.gone.told["late"] = late.final(self.ids["late"])[0]
                self.gone.refusals = late.refusals
            back.tell(end(2, now_ns(), self.ids["back"]))
            self.gone.told["back"] = back.final(self.ids["back"])[0]
            back.close()
            self.wait_for_frozen(stub)
        return self.gone

    def look(self, stub: metering_pb2_grpc.MeteringServiceStub, *names: str) -> None:
        for name in names:
            asked = pb.GetWindowRequest(window_id=self.ids[name])
            self.gone.windows[name] = stub.GetWindow(asked)

    def wait_for_frozen(self, stub: metering_pb2_grpc.MeteringServiceStub) -> None:
        deadline = self.frozen_s + AWAY_S + FROZEN_S + 10
        while time.monotonic() < deadline:
            self.look(stub, "frozen")
            if self.gone.windows["frozen"].state == "final":
                self.gone.frozen_after_s = time.monotonic() - self.frozen_s
                return
            time.sleep(0.5)


@pytest.fixture(scope="module")
def gone() -> Iterator[Gone]:
    with daemon("--simulate", "h100x1", devices=1) as running:
        frozen = subprocess.Popen(
            [sys.executable, "-c", CLIENT, running.address], stdout=subprocess.PIPE, text=True
        )
        try:
            yield Run(running, frozen).play()
        finally:
            frozen.kill()
            frozen.communicate()
        assert "Traceback" not in running.log.read_text()


def test_a_session_that_is_gone_leaves_windows_that_ended_when_it_was_cut(gone: Gone) -> None:
    for name in ("late", "unary of late"):
        window = gone.windows[name]
        assert window.state == "final"
        assert "abandoned" in window.flags
        assert abs(window.stop_unix_ns - gone.cut_ns) < 0.2e9
        assert window.energy_j > 0


def test_one_that_comes_back_in_time_goes_on_as_if_nothing_had_happened(gone: Gone) -> None:
    assert gone.windows["back"].state == "open"
    final = gone.told["back"]
    assert "abandoned" not in final.flags
    assert final.stop_unix_ns - final.start_unix_ns > AWAY_S * 1e9


def test_one_that_comes_back_late_is_told_what_became_of_its_windows(gone: Gone) -> None:
    assert gone.told["late"] == gone.windows["late"]
    (refusal,) = gone.refusals.values()
    assert refusal[0] is grpc.StatusCode.NOT_FOUND, "as the first time"


def test_one_that_says_it_ends_leaves_windows_that_ended_then(gone: Gone) -> None:
    window = gone.windows["closed"]
    assert window.state == "final"
    assert "abandoned" in window.flags
    assert abs(window.stop_unix_ns - gone.cut_ns) < 0.2e9


def test_windows_that_no_stream_owns_stay_open(gone: Gone) -> None:
    assert gone.windows["unary of nobody"].state == "open"
    assert gone.windows["unary of a secret alone"].state == "open"


def test_a_frozen_client_is_found_and_cut(gone: Gone) -> None:
    window = gone.windows["frozen"]
    assert window.state == "final"
    assert "abandoned" in window.flags
    assert gone.frozen_after_s > AWAY_S
    # Its last sign of life is that it was still connected.
    assert (window.stop_unix_ns - window.start_unix_ns) / 1e9 < FROZEN_S + 5


def test_too_many_windows_of_one_session_leave_room_for_others(tmp_path: Path) -> None:
    configuration = tmp_path / "greend.toml"
    configuration.write_text("[metering]\nmost_windows_per_session = 3\nmost_sessions = 2\n")
    with (
        daemon("--simulate", "h100x1", "--config", str(configuration), devices=1) as running,
        running.stub() as stub,
        session(stub, "a") as many,
        session(stub, "b") as few,
    ):
        told = [begin(number, now_ns(), new_id()) for number in range(1, 5)]
        code, words = many.refused(*told)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "3 windows of this session" in words
        assert "most_windows_per_session" in words
        refused(
            lambda: stub.StartWindow(pb.StartWindowRequest(session_token="a")),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "3 windows of this session",
        )
        few.tell(begin(1, now_ns(), new_id()))
        nobodys = [stub.StartWindow(pb.StartWindowRequest()) for _ in range(3)]
        refused(
            lambda: stub.StartWindow(pb.StartWindowRequest()),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "3 windows without a session",
        )
        for window in nobodys:
            stop = pb.StopWindowRequest(window_id=window.window_id, wait_s=10)
            assert stub.StopWindow(stop).state == "final"
        stub.StartWindow(pb.StartWindowRequest())
        many.tell(end(5, now_ns(), told[0].window_id))
        many.final(told[0].window_id)
        many.tell(begin(6, now_ns(), new_id()))
        assert many.refusals.keys() == {4}

        third = Stream(stub)
        third.send_message(open=pb.OpenSession(session_token="c"))
        code, words = third.error()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 sessions" in words
        assert "most_sessions" in words


def test_a_start_whose_caller_gave_up_does_not_stay_open() -> None:
    with daemon("--simulate", "h100x1", devices=1) as running, running.stub() as stub:
        known = pb.StartWindowRequest(window_id=new_id())
        database = sqlite3.connect(running.directory / "greend.db", isolation_level=None)
        with closing(database):
            database.execute("begin immediate")
            calls = [stub.StartWindow.future(one) for one in (pb.StartWindowRequest(), known)]
            wait_for_open(stub, 2)
            for call in calls:
                call.cancel()
            wait_for_open(stub, 1)
            database.execute("rollback")
        # Its caller can say it again; the other's id was told to nobody.
        assert stub.StartWindow(known).state == "open"
        (nobodys,) = (
            window
            for window in stub.ListWindows(pb.ListWindowsRequest()).windows
            if window.window_id != known.window_id
        )
        asked = pb.GetWindowRequest(window_id=nobodys.window_id, wait_s=10)
        final = stub.GetWindow(asked)
        assert (final.state, final.stop_unix_ns) == ("final", final.start_unix_ns)
        assert "abandoned" in final.flags


def wait_for_open(stub: metering_pb2_grpc.MeteringServiceStub, count: int) -> None:
    deadline = time.monotonic() + 4  # a locked store gives up after 5 s
    while stub.GetStatus(pb.GetStatusRequest()).open_windows != count:
        assert time.monotonic() < deadline, stub.GetStatus(pb.GetStatusRequest())
        time.sleep(0.01)
