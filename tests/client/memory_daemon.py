"""A daemon that measures nothing and keeps windows in memory, on a real socket."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc

from greend_proto.v1 import metering_pb2, metering_pb2_grpc, types_pb2

GPU_0 = "GPU-aaaa0000-0000-5000-8000-000000000000"
GPU_1 = "GPU-bbbb1111-0000-5000-8000-000000000001"
POWER_W = 100.0
OFFSET_NS = time.time_ns() - time.monotonic_ns()

Refusal = tuple[grpc.StatusCode, str]


def device(index: int, uuid: str, name: str = "NVIDIA H100 80GB HBM3") -> types_pb2.Device:
    return types_pb2.Device(
        uuid=uuid,
        index=index,
        name=name,
        state="ok",
        state_since_unix_ns=1,
        capabilities=types_pb2.Capabilities(energy_counter=True, power=True, energy_scope="gpu"),
        floor_w=70.5,
        limits=types_pb2.Limits(power_limit_w=700, min_sm_clock_mhz=210, max_sm_clock_mhz=1980),
    )


def sample(device: str, power_w: float = POWER_W) -> types_pb2.Sample:
    return types_pb2.Sample(
        device=device,
        unix_ns=time.time_ns(),
        monotonic_ns=time.monotonic_ns(),
        energy_counter_j=1e6,
        power_w=power_w,
        sm_clock_mhz=1755,
        gpu_utilization_percent=87,
    )


Answer = metering_pb2.RecordWindowsResponse | Refusal | None


class Start:
    """A start that came."""

    def __init__(self, event: metering_pb2.WindowEvent, session_token: str) -> None:
        self.window_id, self.monotonic_ns = event.window_id, event.monotonic_ns
        self.session_token = session_token
        start = event.start
        self.request_id, self.parent_id = start.request_id, start.parent_id
        self.devices, self.tags, self.weight = list(start.devices), dict(start.tags), start.weight
        self.iteration_driven = start.iteration_driven


class Stop:
    """A stop that came."""

    def __init__(self, event: metering_pb2.WindowEvent, session_token: str) -> None:
        self.window_id, self.monotonic_ns = event.window_id, event.monotonic_ns
        self.session_token = session_token


class Session:
    """What a session's client told, and what it is to be told; the end is None."""

    def __init__(self, opening: metering_pb2.OpenSession) -> None:
        self.opening = opening
        self.taken = 0
        self.answers: deque[Answer] = deque()


class MemoryDaemon(metering_pb2_grpc.MeteringServiceServicer):
    """Answers as the daemon does; a window has 100 J for each second of it.

    ``refuse`` may name an error for a request, or for one event of a stream: of those,
    starts and stops are ``Start`` and ``Stop``, others messages; ``finalize`` says whether windows
    become final by themselves or wait for ``make_final``. Feeds tell what is added to
    ``samples`` and what becomes final.
    """

    def __init__(self) -> None:
        self.devices = [device(0, GPU_0), device(1, GPU_1)]
        self.status = metering_pb2.GetStatusResponse(
            version="1.2.3",
            state="serving",
            start_unix_ns=1,
            pid=42,
            devices_ok=2,
            devices_total=2,
            parts=[metering_pb2.GetStatusResponse.Part(name="driver", state="ok")],
        )
        self.windows: dict[str, types_pb2.Window] = {}
        self.ledger: list[types_pb2.LedgerRow] = []
        self.groups: list[metering_pb2.SummarizeWindowsResponse.Group] = []
        self.samples = [sample(GPU_0), sample(GPU_1)]
        self.finals: list[types_pb2.Window] = []
        self.watchers = 0  # feeds that are open
        self.requests: list[Any] = []
        self.time_left_s: dict[type[Any], float] = {}  # that the last call of a kind came with
        self.refuse: Callable[[Any], Refusal | None] = lambda request: None
        self.finalize = True
        self.tell_results = True  # on the stream
        self._sessions: dict[str, Session] = {}
        self._owners: dict[str, Session] = {}  # by window id
        self.gate = threading.Event()  # calls wait here
        self.gate.set()
        self._changed = threading.Condition()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def make_final(self) -> None:
        with self._changed:
            for window in self.windows.values():
                if window.state == "stopped":
                    self._finalize(window)
            self._changed.notify_all()

    def seen(self, kind: type[Any]) -> list[Any]:
        return [request for request in list(self.requests) if isinstance(request, kind)]

    def events(self, kind: str) -> list[metering_pb2.WindowEvent]:
        """Events other than starts and stops that came, of one kind."""
        return [e for e in self.seen(metering_pb2.WindowEvent) if e.WhichOneof("event") == kind]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until a request has made a condition true."""
        with self._changed:
            assert self._changed.wait_for(condition, 10)

    # The RPCs.

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        return self.status

    def ListDevices(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        return metering_pb2.ListDevicesResponse(devices=self.devices)

    def RecordWindows(self, requests: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        first = next(requests)
        self._enter(first, context)
        session = self._sessions.setdefault(first.open.session_token, Session(first.open))
        session.answers.clear()
        # What comes is read beside: results go out at any time.
        threading.Thread(target=self._read, args=(session, requests, context), daemon=True).start()
        context.add_callback(self._notify)
        yield metering_pb2.RecordWindowsResponse(acknowledged_sequence=session.taken)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: session.answers or not context.is_active())
                if not context.is_active():
                    return
                answer = session.answers.popleft()
            if answer is None:
                return
            if isinstance(answer, tuple):
                context.abort(*answer)
            yield answer

    def _read(self, session: Session, requests: Any, context: grpc.ServicerContext) -> None:
        try:
            for request in requests:
                answer = self._take(session, request)
                with self._changed:
                    session.answers.append(answer)
                    self._changed.notify_all()
        except grpc.RpcError:
            pass  # the stream was cut

    def _take(self, session: Session, request: metering_pb2.RecordWindowsRequest) -> Answer:
        if request.WhichOneof("message") == "close":
            return None
        self.gate.wait(30)
        with self._changed:
            self.requests.append(request)
        refusal = self.refuse(request)
        if refusal is not None:
            return refusal
        answer = metering_pb2.RecordWindowsResponse()
        for event in request.batch.events:
            if event.sequence > session.taken:
                session.taken = event.sequence
                refusal = self._happened(session, event)
                if refusal is not None:
                    answer.refusals.add(
                        sequence=event.sequence, code=refusal[0].value[0], message=refusal[1]
                    )
        answer.acknowledged_sequence = session.taken
        return answer

    def _happened(self, session: Session, event: metering_pb2.WindowEvent) -> Refusal | None:
        kind = event.WhichOneof("event")
        token = session.opening.session_token
        told: Any = event
        if kind in ("start", "stop"):
            told = (Start if kind == "start" else Stop)(event, token)
        with self._changed:
            self.requests.append(told)
            self._changed.notify_all()
        refusal = self.refuse(told)
        if refusal is not None or kind == "iteration":
            return refusal
        with self._changed:
            if kind == "start":
                self._open(session, event)
                return None
            window = self.windows.get(event.window_id)
            if window is None:
                return grpc.StatusCode.NOT_FOUND, f"no window {event.window_id}"
            self._change(session, window, kind or "", event)
            self._changed.notify_all()
        return None

    def _open(self, session: Session, event: metering_pb2.WindowEvent) -> None:
        start = event.start
        self._owners[event.window_id] = session
        self.windows.setdefault(
            event.window_id,
            types_pb2.Window(
                window_id=event.window_id,
                request_id=start.request_id,
                tags=start.tags,
                devices=start.devices,
                state="open",
                weight=start.weight,
                parent_id=start.parent_id,
                start_unix_ns=event.monotonic_ns + OFFSET_NS,
            ),
        )

    def _change(
        self,
        session: Session,
        window: types_pb2.Window,
        kind: str,
        event: metering_pb2.WindowEvent,
    ) -> None:
        if kind == "usage":
            window.usage.MergeFrom(event.usage)
        elif kind == "first_token":
            window.usage.first_token_unix_ns = event.monotonic_ns + OFFSET_NS
        elif kind == "phase":
            window.phases.add(name=event.phase, start_unix_ns=event.monotonic_ns + OFFSET_NS)
        elif kind == "stop" and window.state == "open":
            window.state = "stopped"
            window.stop_unix_ns = event.monotonic_ns + OFFSET_NS
            window.duration_s = (window.stop_unix_ns - window.start_unix_ns) / 1e9
            if self.finalize:
                self._finalize(window)
        elif kind == "stop" and window.state == "final":
            session.answers.append(metering_pb2.RecordWindowsResponse(windows=[window]))

    def GetWindow(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        with self._changed:
            window = self._find(request.window_id, context)
            self._changed.wait_for(
                lambda: window.state == "final" or not context.is_active(), request.wait_s
            )
            return window

    def ListWindows(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        with self._changed:
            chosen = [w for w in self.windows.values() if _meets(w, request.filter)]
        chosen.sort(key=lambda window: -window.start_unix_ns)
        first = int(request.page_token or 0)
        last = first + (request.page_size or 100)
        return metering_pb2.ListWindowsResponse(
            windows=chosen[first:last], next_page_token=str(last) if last < len(chosen) else ""
        )

    def GetLedger(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        rows = [row for row in self.ledger if not request.devices or row.device in request.devices]
        return metering_pb2.GetLedgerResponse(rows=rows)

    def SummarizeWindows(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        return metering_pb2.SummarizeWindowsResponse(groups=self.groups)

    def GetSnapshot(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter(request, context)
        with self._changed:
            latest = {sample.device: sample for sample in self.samples}
        wanted = [s for d, s in latest.items() if not request.devices or d in request.devices]
        return metering_pb2.GetSnapshotResponse(samples=wanted)

    def WatchSamples(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        for sample in self._feed(request, context, self.samples):
            if not request.devices or sample.device in request.devices:
                yield sample

    def WatchWindows(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        for window in self._feed(request, context, self.finals):
            if _meets(window, request.filter):
                yield window

    def tell(self, *samples: types_pb2.Sample) -> None:
        """Add samples, for feeds to tell."""
        with self._changed:
            self.samples.extend(samples)
            self._changed.notify_all()

    def _feed(self, request: Any, context: grpc.ServicerContext, items: list[Any]) -> Iterator[Any]:
        """Tell all items, and then those that are added, while the call lasts."""
        self._enter(request, context)
        with self._changed:
            self.watchers += 1
            self._changed.notify_all()
        if not context.add_callback(self._end_feed):
            self._end_feed()
        told = 0
        while context.is_active():
            with self._changed:
                while len(items) <= told and context.is_active():
                    self._changed.wait()
                new = items[told:]
            told += len(new)
            yield from new

    def _end_feed(self) -> None:
        with self._changed:
            self.watchers -= 1
            self._changed.notify_all()

    def _enter(self, request: Any, context: grpc.ServicerContext) -> None:
        with self._changed:
            self.requests.append(request)
            self.time_left_s[type(request)] = context.time_remaining() or 0.0
            self._changed.notify_all()
        self.gate.wait(30)
        refusal = self.refuse(request)
        if refusal is not None:
            context.abort(*refusal)

    def _find(self, window_id: str, context: grpc.ServicerContext) -> types_pb2.Window:
        if window_id not in self.windows:
            self._abort(context, grpc.StatusCode.NOT_FOUND, f"no window {window_id}")
        return self.windows[window_id]

    @staticmethod
    def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> NoReturn:
        context.abort(code, details)

    def _finalize(self, window: types_pb2.Window) -> None:
        window.state = "final"
        window.energy_j = POWER_W * window.duration_s
        window.source = "energy_counter"
        self.finals.append(window)
        owner = self._owners.get(window.window_id)
        if owner is not None and self.tell_results:
            owner.answers.append(metering_pb2.RecordWindowsResponse(windows=[window]))


def _meets(window: types_pb2.Window, wanted: types_pb2.WindowFilter) -> bool:
    stop_ns = window.stop_unix_ns if window.HasField("stop_unix_ns") else None
    return (
        all(window.tags.get(key) == value for key, value in wanted.tags.items())
        and (not wanted.HasField("request_id") or window.request_id == wanted.request_id)
        and (not wanted.states or window.state in wanted.states)
        and (not wanted.devices or bool(set(window.devices) & set(wanted.devices)))
        and (
            not wanted.HasField("since_unix_ns")
            or stop_ns is None
            or stop_ns >= wanted.since_unix_ns
        )
        and (not wanted.HasField("until_unix_ns") or window.start_unix_ns < wanted.until_unix_ns)
    )


@contextmanager
def serving(daemon: MemoryDaemon, socket: Path) -> Iterator[str]:
    """Serve a daemon on a socket; yields its address."""
    address = f"unix://{socket}"
    with ThreadPoolExecutor(16) as workers:
        server = grpc.server(workers)
        metering_pb2_grpc.add_MeteringServiceServicer_to_server(daemon, server)
        server.add_insecure_port(address)
        server.start()
        try:
            yield address
        finally:
            daemon.gate.set()
            server.stop(None).wait()
            with daemon._changed:  # a feed may not have been told that its call ended
                daemon._changed.notify_all()


def until(condition: Callable[[], object], what: str, limit_s: float = 10) -> None:
    """Wait for something that tells nobody when it happens."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.005)
