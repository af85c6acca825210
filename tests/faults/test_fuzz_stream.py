"""RecordWindows' state machine under any order of opening, telling, cutting and closing.

Every example is told to one real daemon, and its answers are compared with session_model.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2
from tests.daemon import Daemon
from tests.faults.audit import check_conserved, check_nothing_open, check_shares
from tests.faults.host import Host, host
from tests.faults.session_model import ANY, KnownSession, Model
from tests.integration.recording import Event, Stream
from tests.nvml_double import NvmlDouble

# scripts/soak asks for more.
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "0"))
SESSIONS = 2
S = 1_000_000_000
OK = grpc.StatusCode.OK


class Saying(NamedTuple):
    """An event as it is drawn; what it names is known when it is told."""

    kind: str
    window: int  # of those known by then
    sequence: str
    instant: str
    number: float
    text: str


# Most of what is said is right, so that there is something for the rest to hurt.
KINDS = (
    *("start",) * 5,
    *("stop", "phase", "weight", "usage", "first_token", "iteration", "again") * 2,
    *("stranger", "no uuid", "nothing"),
)
SEQUENCES = ("next",) * 60 + ("skip", "skip", "repeat", "zero", "last", "huge")
INSTANTS = ("now",) * 30 + ("before", "old", "ahead", "least", "greatest")
NUMBERS = st.sampled_from([1.0, 2.5, 1e-3, 1e5]) | st.floats()
TEXTS = st.sampled_from(["decode"] * 8 + ["prefill", "prefill", "", "x" * 300, "Ünïcode", "\x00"])
SAYINGS = st.builds(
    Saying,
    kind=st.sampled_from(KINDS),
    window=st.integers(0, 5),
    sequence=st.sampled_from(SEQUENCES),
    instant=st.sampled_from(INSTANTS),
    number=NUMBERS,
    text=TEXTS,
)
INDICES = st.integers(0, SESSIONS - 1)


class StreamMachine(RuleBasedStateMachine):
    """A few sessions, each with at most one stream that is read."""

    loaded: Host  # set by the test

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.run_id = uuid.uuid4().hex
        self.sessions = [KnownSession() for _ in range(SESSIONS)]
        self.streams: dict[int, Stream] = {}
        self.channel = self.loaded.daemon.channel()
        self.stub = metering_pb2_grpc.MeteringServiceStub(self.channel)

    @rule(index=INDICES)
    def open(self, index: int) -> None:
        """Opens the session, or goes on with it; the stream before ends, and is told so."""
        session, before = self.sessions[index], self.streams.pop(index, None)
        stream = self.streams[index] = Stream(self.stub, session_token=session.token)
        told = max(session.told, default=0)
        assert session.taken <= stream.acknowledged <= max(told, session.taken)
        if before is not None:
            code, words = before.error()
            assert (code, "another stream" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)
        # What a cut left in doubt is told again, as clients do.
        again = [event for number, event in sorted(session.told.items()) if number > session.taken]
        if again:
            self._tell(index, again, again=True)

    @rule(index=INDICES, sayings=st.lists(SAYINGS, min_size=1, max_size=12))
    def tell(self, index: int, sayings: list[Saying]) -> None:
        """A batch, right or wrong."""
        if index not in self.streams:
            self.open(index)
        self._tell(index, self._events(index, sayings))

    @rule(index=INDICES, sayings=st.lists(SAYINGS, min_size=1, max_size=12))
    def tell_and_cut(self, index: int, sayings: list[Saying]) -> None:
        """A batch, and the line is cut before an answer is heard."""
        if index not in self.streams:
            self.open(index)
        session = self.sessions[index]
        events = self._events(index, sayings)
        stream = self.streams.pop(index)
        stream.send(*events)
        stream.cut()
        if in_order(events):
            for event in events:
                if event.sequence > session.taken:
                    session.told[event.sequence] = event
                    codes = self.model.expect(session, event)
                    if not codes or OK in codes:
                        self.model.apply(session, event, doubtful=True)

    @precondition(lambda self: self.streams)
    @rule(index=INDICES)
    def close(self, index: int) -> None:
        stream = self.streams.pop(index, None)
        if stream is not None:
            stream.close()
            self.model.closed(self.sessions[index])

    @precondition(lambda self: self.streams)
    @rule(index=INDICES, message=st.sampled_from(["open", "nothing"]))
    def say_what_has_no_place(self, index: int, message: str) -> None:
        stream = self.streams.pop(index, None)
        if stream is None:
            return
        token = self.sessions[index].token
        opening = {"open": pb.OpenSession(session_token=token)} if message == "open" else {}
        stream.send_message(**opening)
        assert stream.error()[0] is grpc.StatusCode.INVALID_ARGUMENT

    def teardown(self) -> None:
        """What was taken is there; windows that run are stopped."""
        if not hasattr(self, "sessions"):
            return
        for index in range(SESSIONS):
            self.open(index)
            if index in self.streams:
                self.streams.pop(index).close()
        self._stop_all()
        self._check_stored()
        self.channel.close()

    # Inside

    def _stop_all(self) -> None:
        for window in self.model.windows.values():
            request = pb.StopWindowRequest(window_id=window.window_id, session_token=window.owner)
            # One that is in doubt may not be there.
            with suppress(grpc.RpcError) if window.doubtful else nullcontext():
                self.stub.StopWindow(request, timeout=10)

    def _tell(self, index: int, events: list[Event], *, again: bool = False) -> None:
        session, stream = self.sessions[index], self.streams[index]
        if not in_order(events):
            stream.send(*events)
            assert stream.error()[0] is grpc.StatusCode.INVALID_ARGUMENT
            del self.streams[index]
            return
        expected = {}
        for event in events:
            if event.sequence > session.taken:
                session.told[event.sequence] = event
                codes = ANY if again else self.model.expect(session, event)
                expected[event.sequence] = codes
                if not again and (not codes or OK in codes):
                    self.model.apply(session, event, doubtful=OK in codes)
        before = stream.refused_times.copy()
        stream.tell(*events)
        assert stream.acknowledged == max(session.taken, events[-1].sequence)
        for sequence, codes in expected.items():
            times = stream.refused_times[sequence] - before[sequence]
            code = stream.refusals[sequence][0] if times else OK
            assert times <= 1 or again, "an event is refused once"
            assert code in (codes or {OK}), (session.told[sequence], code, stream.refusals)
            session.answers[sequence] = code
            if again and code is OK:
                self.model.apply(session, session.told[sequence], doubtful=False)
            elif again:
                self.model.refused(session, session.told[sequence])
        for number in {event.sequence for event in events} - expected.keys():
            self._answered_as_before(stream, number, before[number], session.answers.get(number))
        session.taken = stream.acknowledged

    def _answered_as_before(
        self, stream: Stream, number: int, before: int, answer: grpc.StatusCode | None
    ) -> None:
        """What was told again does nothing; what was refused is refused again."""
        if answer is None or answer is OK:
            assert stream.refused_times[number] == before
            return
        stream.read_until(lambda: stream.refused_times[number] > before)
        assert stream.refused_times[number] == before + 1
        assert stream.refusals[number][0] is answer

    def _events(self, index: int, sayings: list[Saying]) -> list[Event]:
        session = self.sessions[index]
        events: list[Event] = []
        last = max(session.told, default=session.taken)
        for saying in sayings:
            sequence = {
                "next": last + 1,
                "skip": last + 7,
                "repeat": min(session.told, default=1),
                "zero": 0,
                "last": 2**63 - 1,
                "huge": 2**64 - 1,
            }[saying.sequence]
            last = max(last, sequence)
            sequence = min(sequence, 2**64 - 1)
            events.append(self._event(session, saying, sequence, events))
        return events

    def _event(
        self, session: KnownSession, saying: Saying, sequence: int, batch: list[Event]
    ) -> Event:
        now_ns = time.monotonic_ns()
        at_ns = {
            "now": now_ns,
            "before": now_ns - 5 * S,
            "old": now_ns - 10**15,
            "ahead": now_ns + 10 * S,
            "least": -(2**63),
            "greatest": 2**63 - 1,
        }[saying.instant]
        known = [*self.model.windows, *(item.window_id for item in batch if item.HasField("start"))]
        window_id = known[saying.window % len(known)] if known else str(uuid.uuid4())
        event = Event(sequence=sequence, monotonic_ns=at_ns, window_id=window_id)
        self._say(session, event, saying, known)
        return event

    def _may_start_again(self, session: KnownSession, window_id: str) -> bool:
        """Whether it is known whose it will be."""
        window = self.model.windows.get(window_id)
        return window is not None and (not window.doubtful or window.owner == session.token)

    def _say(self, session: KnownSession, event: Event, saying: Saying, known: list[str]) -> None:
        match saying.kind:
            case "start" | "no uuid":
                event.window_id = str(uuid.uuid4()) if saying.kind == "start" else saying.text
                event.start.request_id = self.run_id
                if saying.text == "x" * 300:
                    event.start.devices.append("GPU-none")
                elif saying.text == "prefill":
                    event.start.weight = saying.number
                elif saying.text == "Ünïcode":
                    event.start.tags["NOT A KEY"] = saying.text
                elif saying.text == "" and known:
                    event.start.parent_id = event.window_id
            case "again" if self._may_start_again(session, event.window_id):
                told = self.model.windows[event.window_id].start
                event.start.CopyFrom(told.start)
                event.monotonic_ns = told.monotonic_ns
            case "stop":
                event.stop.SetInParent()
            case "phase":
                event.phase = saying.text
            case "weight":
                event.weight = saying.number
            case "usage":
                event.usage.CopyFrom(types_pb2.Usage(output_tokens=2**64 - 1, prompt_tokens=3))
                event.usage.first_token_unix_ns = event.monotonic_ns
            case "first_token":
                event.first_token.SetInParent()
            case "iteration":
                event.window_id = ""
                event.iteration.stop_monotonic_ns = min(event.monotonic_ns + 1000, 2**63 - 1)
                for window_id in known[:3]:
                    event.iteration.costs[window_id] = saying.number
            case "stranger":
                event.window_id = str(uuid.uuid4())
                event.stop.SetInParent()

    def _check_stored(self) -> None:
        """By GetWindow and by ListWindows; and the daemon is as before."""
        asked = pb.ListWindowsRequest(page_size=1000)
        asked.filter.request_id = self.run_id
        stored = {window.window_id for window in self.stub.ListWindows(asked, timeout=10).windows}
        certain = {item.window_id for item in self.model.windows.values() if not item.doubtful}
        assert certain <= stored <= self.model.windows.keys()
        for window_id in sorted(certain)[:3]:
            window = self.stub.GetWindow(pb.GetWindowRequest(window_id=window_id), timeout=10)
            assert window.request_id == self.run_id
        self.loaded.check_healthy()


def in_order(events: list[Event]) -> bool:
    numbers = [event.sequence for event in events]
    return numbers[0] > 0 and numbers[-1] < 2**63 and all(a < b for a, b in pairwise(numbers))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One daemon for all examples."""
    with (
        tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as path,
        NvmlDouble(Path(path), ["a100", "a100"]) as double,
        host(Daemon(Path(path), os.environ | double.environment), double) as running,
    ):
        yield running


@pytest.mark.timeout(120 + EXAMPLES)
def test_any_order_of_things_on_streams_is_answered_as_the_model_says(fuzzed: Host) -> None:
    StreamMachine.loaded = fuzzed
    run_state_machine_as_test(
        StreamMachine,
        settings=settings(
            max_examples=EXAMPLES or 60,
            stateful_step_count=25,
            derandomize=not EXAMPLES,
            deadline=None,
            report_multiple_bugs=False,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    fuzzed.wait_until_settled()
    fuzzed.check_healthy()
    assert fuzzed.daemon.stop() == 0
    check_nothing_open(fuzzed.daemon)
    check_shares(fuzzed.daemon, check_conserved(fuzzed.daemon))
