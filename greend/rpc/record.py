"""RecordWindows: events in; acknowledgements, refusals and final windows out."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from greend.errors import FailedPrecondition, InvalidArgument
from greend.metering.events import (
    Change,
    Event,
    FirstToken,
    Iteration,
    PhaseBegin,
    Stop,
    Weight,
)
from greend.metering.session import Session, check_count
from greend.metering.sessions import Connection, Opening, Sessions
from greend.metering.starts import WindowStart
from greend.rpc import convert
from greend.rpc.interceptor import code_of
from greend_proto.v1 import metering_pb2 as pb

# A message of so many windows with the most tags stays within gRPC's usual 4 MiB.
MOST_ITEMS = 200
# Events that are converted, applied and committed before others are let in.
AT_ONCE = 500

Item = TypeVar("Item")


async def record(
    sessions: Sessions, requests: AsyncIterator[pb.RecordWindowsRequest]
) -> AsyncIterator[pb.RecordWindowsResponse]:
    """Answers one stream, until the client ends it or goes on with another one."""
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("message") != "open":
        raise InvalidArgument("open: the first message of the stream opens the session")
    opening = first.open
    async with sessions.connect(
        Opening(
            opening.session_token,
            opening.boot_id,
            opening.lateness_s,
            opening.uid,
            opening.pid,
            opening.last_sequence,
        )
    ) as connection:
        session = connection.session
        sessions.gave_up(session, first.lost_windows)
        news = _news(session, 0)
        yield news
        if session.refusals:
            session.news.set()
        reading = asyncio.create_task(_read(sessions, connection, opening.session_token, requests))
        reading.add_done_callback(lambda _: session.news.set())
        try:
            while connection.current:
                await session.news.wait()
                session.news.clear()
                ended = reading.done()
                while connection.current:
                    news = _news(session, news.acknowledged_sequence)
                    yield news
                    if not session.finals and not session.refusals:
                        break
                if ended:
                    reading.result()
                    return
            raise FailedPrecondition("open: the session has gone on with another stream")
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(
    sessions: Sessions,
    connection: Connection,
    token: str,
    requests: AsyncIterator[pb.RecordWindowsRequest],
) -> None:
    async for request in requests:
        sessions.gave_up(connection.session, request.lost_windows)
        match request.WhichOneof("message"):
            case "batch":
                await _take(connection, token, request.batch)
            case "close":
                connection.closed = True
                return
            case _:
                raise InvalidArgument("message: after `open` come `batch` and `close`")


async def _take(connection: Connection, token: str, batch: pb.EventBatch) -> None:
    """A part at a time: neither the loop nor a commit is one session's for long.

    Whoever tells too many a second is not read from: its own flow control holds it up.
    """
    check_count(len(batch.events))
    if batch.events and not connection.told:
        # A stream begins with what its client has not heard the acknowledgement of.
        connection.told = True
        connection.session.heard(batch.events[0].sequence - 1)
    for begin in range(0, len(batch.events), AT_ONCE):
        part = batch.events[begin : begin + AT_ONCE]
        await connection.session.take([_event(event, token) for event in part])
        wait_s = connection.allowance.take(len(part), time.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)


def _news(session: Session, acknowledged: int) -> pb.RecordWindowsResponse:
    """What is new since `acknowledged` was told on the stream."""
    news = pb.RecordWindowsResponse()
    for window in _some(session.finals):
        news.windows.add(**convert.window_fields(window))
    for refused in _some(session.refusals):
        news.refusals.add(
            sequence=refused.sequence, code=code_of(refused.error), message=str(refused.error)
        )
    # A client forgets what is acknowledged: it hears of every refusal before.
    news.acknowledged_sequence = acknowledged if session.refusals else session.acknowledged
    return news


def _some(items: deque[Item]) -> Iterator[Item]:
    for _ in range(MOST_ITEMS):
        if not items:
            return
        yield items.popleft()


def _event(event: pb.WindowEvent, token: str) -> Event:
    return Event(event.sequence, event.monotonic_ns, event.window_id, _what(event, token))


def _what(event: pb.WindowEvent, token: str) -> WindowStart | Change | Iteration | None:
    match event.WhichOneof("event"):
        case "start":
            start = event.start
            return WindowStart(
                window_id=event.window_id,
                request_id=start.request_id,
                devices=list(start.devices),
                tags=dict(start.tags),
                weight=start.weight if start.HasField("weight") else None,
                session_token=token,
                parent_id=start.parent_id,
                start_ns=event.monotonic_ns,
                iteration_driven=start.iteration_driven,
            )
        case "stop":
            return Stop()
        case "usage":
            return convert.usage_from_message(event.usage)
        case "first_token":
            return FirstToken()
        case "phase":
            return PhaseBegin(event.phase)
        case "weight":
            return Weight(event.weight)
        case "iteration":
            return Iteration(event.iteration.stop_monotonic_ns, dict(event.iteration.costs))
        case _:
            return None
