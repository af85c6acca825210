"""What a stream of events must be answered: a simple reference.

It knows who owns which window and whether it runs, and says of each event whether it has to
be taken, has to be refused and how, or may be either.
"""

import time
import uuid
from dataclasses import dataclass, field

import grpc

from greend_proto.v1 import metering_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
DENIED = grpc.StatusCode.PERMISSION_DENIED
TOO_LATE = grpc.StatusCode.OUT_OF_RANGE

Codes = frozenset[grpc.StatusCode]
TAKEN: Codes = frozenset()
# What DESIGN.md's "Bad input" has for events; a limit is not reached here.
ANY: Codes = frozenset({grpc.StatusCode.OK, INVALID, NOT_FOUND, DENIED, TOO_LATE})


@dataclass
class KnownWindow:
    """A window whose start was told."""

    window_id: str
    owner: str  # the session's secret
    start: pb.WindowEvent
    stopped: bool = False
    # Its start or stop may not have been taken: the line was cut.
    doubtful: bool = False


@dataclass
class KnownSession:
    """A session as its client sees it."""

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    taken: int = 0
    # By sequence number, of what was taken for certain; OK: it was not refused.
    answers: dict[int, grpc.StatusCode] = field(default_factory=dict)
    told: dict[int, pb.WindowEvent] = field(default_factory=dict)


def usual(window_id: str) -> str:
    """An id in its usual form; empty: it is none."""
    try:
        return str(uuid.UUID(window_id))
    except ValueError:
        return ""


class Model:
    """All sessions of one example."""

    def __init__(self) -> None:
        self.windows: dict[str, KnownWindow] = {}

    def expect(self, session: KnownSession, event: pb.WindowEvent) -> Codes:
        """How a new event may be refused; TAKEN: it must not be."""
        kind = event.WhichOneof("event")
        if kind is None:
            return frozenset({INVALID})
        if kind == "iteration":
            return self._iteration(session, event)
        if not usual(event.window_id):
            return frozenset({INVALID})
        window = self.windows.get(usual(event.window_id))
        if kind == "start":
            return self._start(session, event, window)
        if window is None:
            return frozenset({NOT_FOUND})
        if window.doubtful:
            return ANY
        if window.owner != session.token:
            return frozenset({DENIED})
        if kind == "stop" and window.stopped:
            return TAKEN  # the same stop again gets the same answer again
        if window.stopped or kind in ("usage", "first_token"):
            return ANY
        return self._instant(event, window) | self._value(event)

    def apply(self, session: KnownSession, event: pb.WindowEvent, *, doubtful: bool) -> None:
        """An event was taken, or, if in doubt, perhaps."""
        kind = event.WhichOneof("event")
        if kind not in ("start", "stop"):
            return
        window = self.windows.get(usual(event.window_id))
        if kind == "start" and (window is None or window.doubtful):
            made = KnownWindow(usual(event.window_id), session.token, event, doubtful=doubtful)
            self.windows[made.window_id] = made
        elif kind == "stop" and window is not None:
            window.stopped = True
            window.doubtful |= doubtful

    def refused(self, session: KnownSession, event: pb.WindowEvent) -> None:
        """An event that was in doubt was refused."""
        window = self.windows.get(usual(event.window_id))
        if window is not None and window.start == event and window.doubtful:
            del self.windows[window.window_id]

    def closed(self, session: KnownSession) -> None:
        """Nothing more of it comes: its windows are ended, too."""
        for window in self.windows.values():
            if window.owner == session.token:
                window.stopped = True

    def _start(
        self, session: KnownSession, event: pb.WindowEvent, window: KnownWindow | None
    ) -> Codes:
        if window is not None:
            if window.doubtful:
                return ANY
            if window.owner != session.token:
                return frozenset({DENIED})
            same = window.start.start == event.start
            return TAKEN if same and window.start.monotonic_ns == event.monotonic_ns else ANY
        start = event.start
        codes: set[grpc.StatusCode] = set()
        if start.devices and "GPU-none" in start.devices:
            codes.add(NOT_FOUND)
        if not all(key.islower() for key in start.tags) or len(start.request_id) > 256:
            codes.add(INVALID)
        if start.HasField("weight") and not 1e-3 <= start.weight <= 1e6:
            codes.add(INVALID)
        ahead_ns = event.monotonic_ns - time.monotonic_ns()
        if ahead_ns > 5 * 10**9:
            codes.add(INVALID)
        if ahead_ns < -(10**12):
            codes.add(TOO_LATE)
        elif ahead_ns < -(10**9):
            return ANY  # so far back the timeline may reach
        if start.parent_id == event.window_id and start.parent_id:
            codes.add(INVALID)
        return frozenset(codes)

    def _instant(self, event: pb.WindowEvent, window: KnownWindow) -> Codes:
        late = event.monotonic_ns < window.start.monotonic_ns
        early = event.monotonic_ns - time.monotonic_ns() > 5 * 10**9
        return frozenset({INVALID}) if late or early else TAKEN

    def _value(self, event: pb.WindowEvent) -> Codes:
        wrong = (event.WhichOneof("event") == "weight" and not 1e-3 <= event.weight <= 1e6) or (
            event.WhichOneof("event") == "phase" and not 0 < len(event.phase) <= 256
        )
        return frozenset({INVALID}) if wrong else TAKEN

    def _iteration(self, session: KnownSession, event: pb.WindowEvent) -> Codes:
        members = [self.windows.get(window_id) for window_id in event.iteration.costs]
        costs = list(event.iteration.costs.values())
        clean = (
            all(
                member is not None
                and member.owner == session.token
                and not (member.stopped or member.doubtful)
                and member.start.monotonic_ns <= event.monotonic_ns
                for member in members
            )
            and all(0 < cost < 1e6 for cost in costs)
            and 0 < event.iteration.stop_monotonic_ns - event.monotonic_ns < 10**9
            and abs(event.monotonic_ns - time.monotonic_ns()) < 10**9
            and costs
        )
        return TAKEN if clean else ANY
