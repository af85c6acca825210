"""What is deleted and what is kept are what was there, whatever is asked for."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from greend.errors import InvalidArgument
from greend.metering.pruning import UNSETTLED_NS, Pruned, Pruner, check_prune
from greend.metering.query import matches
from greend.model import NS_PER_S, Booking, Window, WindowState
from greend.store.engine import DATABASE_NAME, migrate, open_engine
from greend.store.prunable import Prunable
from greend.store.reader import StoreReader, WindowQuery
from greend.store.writer import StoreWriter

NOW = 1_800 * NS_PER_S
INSTANTS = st.integers(0, 2_000).map(lambda seconds: seconds * NS_PER_S)
TAGS = st.dictionaries(st.sampled_from(["model", "a.b"]), st.sampled_from(["x", "y", "'%"]))
DEVICES = st.lists(st.sampled_from(["GPU-0", "GPU-1"]), unique=True)
REQUEST_IDS = st.sampled_from(["", "r"])


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(INSTANTS)
    state = draw(st.sampled_from(WindowState))
    stop = None if state is WindowState.OPEN else start + draw(INSTANTS)
    if state is WindowState.FINAL and draw(st.booleans()):
        stop = None  # abandoned: nobody knows when it ended
    return Window(
        str(uuid.uuid4()),
        draw(REQUEST_IDS),
        draw(TAGS),
        tuple(draw(DEVICES)),
        start,
        stop_unix_ns=stop,
        state=state,
    )


QUERIES = st.builds(
    WindowQuery,
    since_unix_ns=st.none() | INSTANTS,
    until_unix_ns=st.none() | INSTANTS,
    tags=TAGS,
    request_id=st.none() | REQUEST_IDS,
    devices=DEVICES,
    states=st.sampled_from([(), ("final",)]),
)
BOOKINGS = st.builds(
    Booking,
    device=st.sampled_from(["GPU-0", "GPU-1"]),
    minute_unix_s=st.integers(0, 35).map(lambda minute: 60 * minute),
    measured_mj=st.just(1.0),
)


@contextmanager
def store(directory: Path) -> Iterator[tuple[StoreReader, StoreWriter, Pruner, Prunable]]:
    engine = open_engine(directory / DATABASE_NAME)
    migrate(engine)
    writer, prunable = StoreWriter(engine), Prunable(engine)
    pruner = Pruner(prunable, writer, is_active=lambda window_id: False, now_unix_ns=lambda: NOW)
    try:
        yield StoreReader(engine), writer, pruner, prunable
    finally:
        writer.stop(5)
        engine.dispose()


async def told(pruner: Pruner, query: WindowQuery, *, minutes: bool, dry_run: bool) -> Pruned:
    return [step async for step in pruner.prune(query, minutes=minutes, dry_run=dry_run)][-1]


def meant(query: WindowQuery, window: Window) -> bool:
    return (
        window.state is WindowState.FINAL
        and matches(query, window)
        and (query.since_unix_ns or 0) <= window.start_unix_ns < NOW
    )


@settings(max_examples=60)
@given(st.lists(windows(), max_size=30), st.lists(BOOKINGS, max_size=30), QUERIES, st.booleans())
def test_what_is_deleted_and_what_is_kept_are_what_was_there(
    before: list[Window], bookings: list[Booking], query: WindowQuery, minutes: bool
) -> None:
    try:
        check_prune(query, minutes)
    except InvalidArgument:
        assume(False)
    doomed = {window.window_id for window in before if meant(query, window)}
    all_minutes = {(booking.device, booking.minute_unix_s) for booking in bookings}
    since_ns = query.since_unix_ns or 0
    settled_ns = NOW - UNSETTLED_NS
    until_ns = min(settled_ns if query.until_unix_ns is None else query.until_unix_ns, settled_ns)
    doomed_minutes = {
        key
        for key in all_minutes
        if minutes and since_ns <= key[1] * NS_PER_S and (key[1] + 60) * NS_PER_S <= until_ns
    }
    with (
        TemporaryDirectory() as directory,
        store(Path(directory)) as (reader, writer, pruner, prunable),
    ):
        writer.write(windows=before, bookings=bookings).result()
        seen = asyncio.run(told(pruner, query, minutes=minutes, dry_run=True))
        assert (seen.matching.count, seen.windows) == (len(doomed), 0)
        assert seen.matching_minutes == len(doomed_minutes)
        assert len(reader.windows(WindowQuery(), limit=100)) == len(before)

        done = asyncio.run(told(pruner, query, minutes=minutes, dry_run=False))
        assert (done.windows, done.minutes) == (len(doomed), len(doomed_minutes))
        after = {window.window_id: window for window in reader.windows(WindowQuery(), limit=100)}
        assert after == {
            window.window_id: window for window in before if window.window_id not in doomed
        }
        left = prunable.minutes(None, 10**18, limit=100)
        assert set(left) == all_minutes - doomed_minutes
