"""Rule 1 from what is stored, whatever becomes of events on their way."""

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.metering.events import Event, Iteration, PhaseBegin, Stop, Weight
from greend.model import NS_PER_MS, NS_PER_S
from greend.store.engine import DATABASE_NAME
from tests.energy.world import Device
from tests.metering.host import Host, host, start

MS = NS_PER_MS
BEGIN_NS = 4 * NS_PER_S
END_NS = 14 * NS_PER_S
IDS = [f"01970000-0000-7000-8000-{number:012d}" for number in range(5)]

# An event: which window, when, of what kind; how late it comes, whether it comes twice, or never.
EVENT = st.tuples(
    st.sampled_from(IDS),
    st.integers(0, 4_000),
    st.sampled_from(["weight", "phase", "iteration", "stop"]),
    st.integers(0, 5_000),
    st.sampled_from(["once", "once", "again", "twice", "lost"]),
)


def made(window_id: str, at_ns: int, kind: str) -> Event:
    """An event of this kind."""
    what: Any = {
        "weight": Weight(2.5),
        "phase": PhaseBegin("decode"),
        "iteration": Iteration(at_ns + 40 * MS, {window_id: 1.0, IDS[0]: 3.0}),
        "stop": Stop(),
    }[kind]
    return Event(0, at_ns, "" if kind == "iteration" else window_id, what)


async def play(directory: Path, told: Sequence[tuple[int, Event, str]], device: Device) -> None:
    rng = random.Random(1)
    waiting = sorted(told, key=lambda item: item[0])
    async with host(directory, 0.25) as daemon:
        while daemon.time.now_ns < END_NS + 3 * NS_PER_S:
            before_ns, daemon.time.now_ns = (
                daemon.time.now_ns,
                daemon.time.now_ns + round(40 * MS * rng.uniform(0.7, 1.3)),
            )
            while waiting and waiting[0][0] <= daemon.time.now_ns:
                _, event, fate = waiting.pop(0)
                await deliver(daemon, event, fate)
            if before_ns < END_NS <= daemon.time.now_ns:
                # As for owners that are gone: who did not tell ends now.
                for window_id in IDS:
                    await deliver(daemon, Event(0, END_NS, window_id, Stop()), "once")
            daemon.meter.sampled([device.sample(daemon.time.now_ns)])
            await asyncio.sleep(0)


async def deliver(daemon: Host, event: Event, fate: str) -> None:
    """Told, told again with the same number, or with another; what is refused is refused."""
    if fate == "lost":
        return
    daemon.sequence += 1
    numbered = replace(event, sequence=daemon.sequence)
    await daemon.session.take([numbered])
    if fate == "again":
        await daemon.session.take([numbered])
    if fate == "twice":
        daemon.sequence += 1
        await daemon.session.take([replace(event, sequence=daemon.sequence)])


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 4_000)), min_size=1, max_size=5),
    st.lists(EVENT, max_size=25),
)
def test_every_joule_is_stored_once_whatever_comes_late_twice_or_never(
    starts: list[tuple[int, int]], events: list[tuple[str, int, str, int, str]]
) -> None:
    told = [
        (BEGIN_NS + (at + late) * MS, start(window_id, BEGIN_NS + at * MS, 1.0), "again")
        for window_id, (at, late) in zip(IDS, starts, strict=False)
    ]
    told += [
        (BEGIN_NS + (at + late + 40) * MS, made(window_id, BEGIN_NS + at * MS, kind), fate)
        for window_id, at, kind, late, fate in events
    ]
    work = [(BEGIN_NS + at * MS, BEGIN_NS + (at + 300) * MS) for at, _ in starts]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "host"
        asyncio.run(play(path, told, Device(work)))
        with closing(sqlite3.connect(path / DATABASE_NAME)) as database:
            minutes = database.execute(
                "select sum(measured_mj), sum(windows_mj), sum(idle_mj), sum(unattributed_mj),"
                " sum(gap_mj) from minutes"
            ).fetchone()
            windows = database.execute("select state, own_mj from windows").fetchall()
    measured_mj, *booked_mj = minutes
    assert sum(booked_mj) == pytest.approx(measured_mj, rel=1e-9)
    assert len(windows) == len(starts)
    assert {state for state, _ in windows} == {"final"}
    assert sum(own_mj for _, own_mj in windows) == pytest.approx(booked_mj[0], rel=1e-9, abs=1e-6)
