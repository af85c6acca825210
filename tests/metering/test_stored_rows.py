"""Rule 1 from what is stored, whatever becomes of events on their way."""

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from greend.metering.events import Event, Iteration, PhaseBegin, Stop, Weight
from greend.metering.starts import WindowStart
from greend.model import NS_PER_MS, NS_PER_S
from greend.store.engine import DATABASE_NAME
from tests.energy.world import Device
from tests.metering.host import Host, host, start

MS = NS_PER_MS
BEGIN_NS = 4 * NS_PER_S
END_NS = 14 * NS_PER_S
IDS = [f"01970000-0000-7000-8000-{number:012d}" for number in range(5)]

KINDS = ["weight", "phase", "iteration", "iteration", "iteration", "stop"]
# How an event comes: also with the same number again, with another one, or never.
FATES = ["once", "once", "again", "twice", "lost"]


def begun(window_id: str, at_ns: int, *, driven: bool) -> Event:
    """A start; of a window that iterations drive, or of a plain one."""
    event = start(window_id, at_ns, 1.0)
    assert isinstance(event.what, WindowStart)
    return replace(event, what=replace(event.what, iteration_driven=driven))


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


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_every_joule_is_stored_once_whatever_comes_late_twice_or_never(seed: int) -> None:
    rng = random.Random(seed)  # lists that hypothesis draws are too short to meet in time
    starts = [rng.randrange(3_000) for _ in IDS]
    told = [
        (
            BEGIN_NS + (at + rng.choice([0, rng.randrange(4_000)])) * MS,
            begun(window_id, BEGIN_NS + at * MS, driven=rng.random() < 0.5),
            "again",
        )
        for window_id, at in zip(IDS, starts, strict=True)
    ]
    for _ in range(40):
        at, late = rng.randrange(4_000), rng.choice([0, rng.randrange(5_000)])
        event = made(rng.choice(IDS), BEGIN_NS + at * MS, rng.choice(KINDS))
        told.append((BEGIN_NS + (at + late + 40) * MS, event, rng.choice(FATES)))
    # Some of it while nobody claims it, for late events to take.
    work = [(BEGIN_NS + at * MS, BEGIN_NS + (at + 1_500) * MS) for at in starts]
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
