"""Sessions: events at which greend fails, windows that would be their own ancestors, and
refusals that have to be heard."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from greend.errors import GreendError, Internal, InvalidArgument, NotFound
from greend.metering.events import Event, Stop, Weight
from greend.metering.session import Session
from greend.metering.starts import WindowStart
from greend.model import NS_PER_S
from greend.store.engine import DATABASE_NAME
from tests.metering.host import host, start

IDS = [f"01970000-0000-7000-8000-{number:012d}" for number in range(3)]


async def tell(session: Session, events: Sequence[Event]) -> dict[int, type[GreendError]]:
    """Tells events that are numbered from 1; says which were refused."""
    await session.take([replace(event, sequence=n) for n, event in enumerate(events, 1)])
    assert session.acknowledged == len(events)
    return heard(session)


def heard(session: Session) -> dict[int, type[GreendError]]:
    """Takes what a client would be told of refusals."""
    refused = {item.sequence: type(item.error) for item in session.refusals}
    session.refusals.clear()
    return refused


def test_an_event_at_which_greend_fails_is_refused_and_those_behind_it_are_applied(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        async with host(tmp_path / "host", 0.0) as daemon:
            daemon.time.now_ns = NS_PER_S
            events = [
                start(IDS[0], NS_PER_S, 1.0),
                Event(0, NS_PER_S, IDS[0], Weight("heavy")),  # type: ignore[arg-type]
                start(IDS[1], NS_PER_S, 1.0),
                Event(0, NS_PER_S, IDS[1], Stop()),
            ]
            assert await tell(daemon.session, events) == {2: Internal}
            assert await tell(daemon.session, events) == {2: Internal}, "it is not tried again"

    asyncio.run(play())


def test_nobody_is_their_own_ancestor_whoever_is_told_first(tmp_path: Path) -> None:
    def child(number: int, parent: int) -> Event:
        event = start(IDS[number], NS_PER_S, 1.0)
        assert isinstance(event.what, WindowStart)
        return replace(event, what=replace(event.what, parent_id=IDS[parent]))

    async def play() -> None:
        async with host(tmp_path / "host", 0.0) as daemon:
            daemon.time.now_ns = NS_PER_S
            events = [child(0, 1), child(1, 2), child(2, 2), child(2, 0)]
            refused = await tell(daemon.session, events)
            assert refused == {3: InvalidArgument, 4: InvalidArgument}

    asyncio.run(play())


def test_a_refusal_that_may_not_have_arrived_is_told_again_after_a_kill(tmp_path: Path) -> None:
    """What is committed says of its number that it was taken: a client would believe it."""

    async def play() -> None:
        async with host(tmp_path / "0", 0.0) as daemon:
            daemon.time.now_ns = NS_PER_S
            events = [start(IDS[0], NS_PER_S, 1.0), Event(0, NS_PER_S, IDS[1], Stop())]
            assert await tell(daemon.session, events) == {2: NotFound}
            await daemon.meter.flush()
            kill(tmp_path / "0", tmp_path / "1")
        async with host(tmp_path / "1", 0.0, NS_PER_S) as daemon:
            assert daemon.session.acknowledged == 2
            assert heard(daemon.session) == {2: NotFound}
            kill(tmp_path / "1", tmp_path / "2")
        async with host(tmp_path / "2", 0.0, NS_PER_S) as daemon:
            assert heard(daemon.session) == {2: NotFound}, "nobody knows yet that it arrived"
            daemon.session.heard(2)
            await daemon.session.take([Event(3, NS_PER_S, IDS[0], Stop())])
            kill(tmp_path / "2", tmp_path / "3")
        async with host(tmp_path / "3", 0.0, NS_PER_S) as daemon:
            assert daemon.session.acknowledged == 3
            assert heard(daemon.session) == {}

    asyncio.run(play())


def kill(directory: Path, left: Path) -> None:
    """What a kill leaves is what is committed."""
    left.mkdir()
    with (
        closing(sqlite3.connect(directory / DATABASE_NAME)) as database,
        closing(sqlite3.connect(left / DATABASE_NAME)) as found,
    ):
        database.backup(found)
