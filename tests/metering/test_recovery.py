"""Rule 1 from what is stored, however often and whenever the daemon is killed."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
END_NS = 30 * NS_PER_S
IDS = [f"01970000-0000-7000-8000-{number:012d}" for number in range(8)]


@dataclass(frozen=True)
class Kill:
    """At an instant, for so long."""

    at_ns: int
    down_ns: int


def history(rng: random.Random) -> Iterator[Event]:
    """Windows that overlap, with weights, phases, iterations, and children."""
    for number, window_id in enumerate(IDS):
        at_ns = 3 * NS_PER_S + rng.randrange(15 * NS_PER_S)
        stop_ns = at_ns + rng.randrange(10 * MS, 5 * NS_PER_S)
        event = start(window_id, at_ns, rng.choice([0.5, 1.0, 4.0]))
        assert isinstance(event.what, WindowStart)
        driven, parent_id = rng.random() < 0.3, IDS[number - 1] if rng.random() < 0.3 else ""
        if number == 0:
            parent_id = ""
        what = replace(event.what, iteration_driven=driven, parent_id=parent_id)
        yield replace(event, what=what)
        yield Event(0, stop_ns, window_id, Stop())
        for _ in range(3):
            within_ns = rng.randrange(at_ns, stop_ns)
            change = Weight(2.5) if rng.random() < 0.5 else PhaseBegin("decode")
            yield Event(0, within_ns, window_id, change)
            length_ns = rng.randrange(1, 300 * MS)
            costs = {window_id: 1.0, rng.choice(IDS): 2.0}
            yield Event(0, within_ns, "", Iteration(within_ns + length_ns, costs))


async def run(
    directory: Path, events: Sequence[Event], kills: Sequence[Kill], device: Device
) -> Path:
    """Tells events as soon as they have happened and somebody listens; returns the database."""
    rng = random.Random(1)
    waiting = sorted(events, key=lambda event: (told_ns(event), event.at_ns))
    now_ns, sequence, place = 0, 0, directory / "0"
    for number, kill in enumerate([*kills, Kill(END_NS, 0)]):
        async with host(place, 0.25, now_ns) as daemon:
            daemon.sequence = sequence
            released_ns = now_ns + 2 * NS_PER_S
            while daemon.time.now_ns < kill.at_ns:
                daemon.time.now_ns += round(40 * MS * rng.uniform(0.7, 1.3))
                while waiting and told_ns(waiting[0]) <= daemon.time.now_ns:
                    await tell(daemon, waiting.pop(0))
                if daemon.time.now_ns >= released_ns:
                    daemon.meter.release()
                daemon.meter.sampled([device.sample(daemon.time.now_ns)])
                daemon.meter.tick()
                await daemon.write()
            now_ns, sequence = daemon.time.now_ns + kill.down_ns, daemon.sequence
            if number == len(kills):
                break
            place = directory / str(number + 1)
            place.mkdir()
            # What a kill leaves is what is committed.
            with (
                closing(sqlite3.connect(directory / str(number) / DATABASE_NAME)) as left,
                closing(sqlite3.connect(place / DATABASE_NAME)) as found,
            ):
                left.backup(found)
    return place / DATABASE_NAME


def told_ns(event: Event) -> int:
    return event.what.stop_ns if isinstance(event.what, Iteration) else event.at_ns


async def tell(daemon: Host, event: Event) -> None:
    """What is refused is refused."""
    daemon.sequence += 1
    await daemon.session.take([replace(event, sequence=daemon.sequence)])


def check(database: Path, device: Device, ends_ns: Sequence[int]) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        minutes = [dict(row) for row in connection.execute("select * from minutes")]
        shares = [str(row["shares"]) for row in connection.execute("select shares from windows")]
        states = {row["state"] for row in connection.execute("select state from windows")}
        left = connection.execute("select count(*) from claims").fetchone()[0]
    total = {
        name: sum(row[f"{name}_mj"] for row in minutes)
        for name in ("measured", "windows", "idle", "unattributed", "gap")
    }
    booked = sum(amount for name, amount in total.items() if name != "measured")
    assert booked == pytest.approx(total["measured"], rel=1e-9)
    assert min(total.values()) >= -1e-6
    assert states == {"final"}
    assert left == 0
    own_mj = sum(share[0] + share[1] for item in shares for share in json.loads(item).values())
    assert own_mj == pytest.approx(total["windows"], rel=1e-9)
    # All that the counter counted, from its first step to the last one that was closed.
    assert any(
        total["measured"] == pytest.approx(device.energy_mj(end) - device.energy_mj(begin), abs=2)
        for begin in range(0, 300 * MS, 100 * MS)
        for end in ends_ns
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kills=st.lists(
        st.tuples(st.integers(3_000, 23_000), st.sampled_from([0, 50, 400, 3_000])), max_size=3
    ),
)
def test_no_kill_costs_a_joule(seed: int, kills: list[tuple[int, int]]) -> None:
    rng = random.Random(seed)
    events = list(history(rng))
    device = Device([(event.at_ns, event.at_ns + 900 * MS) for event in events[::4]])
    planned = [Kill(at_ms * MS, down_ms * MS) for at_ms, down_ms in sorted(kills)]
    with TemporaryDirectory() as directory:
        database = asyncio.run(run(Path(directory), events, planned, device))
        check(database, device, range(END_NS - NS_PER_S, END_NS + 4 * NS_PER_S, 100 * MS))
