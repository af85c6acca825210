"""Told in time, or late and within the allowance: the same readings give the same results."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from greend.metering.events import Event, Iteration, PhaseBegin, Stop
from greend.model import NS_PER_MS, NS_PER_S, Window
from tests.energy.world import Device
from tests.metering.host import host, start

LENGTH_NS = 5 * NS_PER_S
LATENESS_S = 30.0
# Iterations are told when they are over: within the usual allowance.
STEP_NS = 120 * NS_PER_MS


def events_of(number: int, rng: random.Random) -> list[Event]:
    """A window of 5 s that overlaps others, with a phase and some iterations."""
    window_id = f"01970000-0000-7000-8000-{number:012d}"
    at_ns = 20 * NS_PER_S + round(number * 0.37 * NS_PER_S)
    events = [
        start(window_id, at_ns, rng.choice([0.5, 1.0, 2.0])),
        Event(0, at_ns + rng.randrange(LENGTH_NS), window_id, PhaseBegin("decode")),
        Event(0, at_ns + LENGTH_NS, window_id, Stop()),
    ]
    if number % 3 == 0:
        events += [
            Event(
                0,
                at_ns + begin_ns,
                "",
                Iteration(at_ns + begin_ns + rng.randrange(1, STEP_NS), {window_id: 1.0}),
            )
            for begin_ns in range(0, LENGTH_NS // 2, STEP_NS)
        ]
    return events


async def measured(
    directory: Path,
    told: Sequence[tuple[int, Sequence[Event]]],
    device: Device,
    until_ns: int,
) -> dict[str, Window]:
    """What becomes of windows of which events are told at these instants."""
    rng = random.Random(1)  # of the readings: the same for all
    told = sorted(told, key=lambda item: item[0])
    async with host(directory, LATENESS_S) as daemon:
        while daemon.time.now_ns < until_ns:
            daemon.time.now_ns += round(40 * NS_PER_MS * rng.uniform(0.7, 1.3))
            while told and told[0][0] <= daemon.time.now_ns:
                (_, events), *told = told
                await daemon.tell(events)
            daemon.meter.sampled([device.sample(daemon.time.now_ns)])
            await asyncio.sleep(0)
        await daemon.meter.flush()
        return {window.window_id: window for window in daemon.session.finals}


@pytest.mark.parametrize("seed", range(3))
def test_windows_told_after_they_ended_get_what_those_told_in_time_get(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    windows = [events_of(number, rng) for number in range(12)]
    device = Device([(21 * NS_PER_S, 24 * NS_PER_S), (25 * NS_PER_S, 27 * NS_PER_S)])
    in_time = [(at, [event]) for events in windows for at, event in map(_when_known, events)]
    after = [
        (max(at for at, _ in map(_when_known, events)) + rng.randrange(20 * NS_PER_S), events)
        for events in windows
    ]
    until_ns = 80 * NS_PER_S
    timely = asyncio.run(measured(tmp_path / "timely", in_time, device, until_ns))
    late = asyncio.run(measured(tmp_path / "late", after, device, until_ns))
    assert timely.keys() == late.keys()
    assert len(late) == 12
    for key, window in late.items():
        same(window, timely[key], lambda w: w.shares["GPU-0"].own_mj)
        same(window, timely[key], lambda w: w.shares["GPU-0"].active_mj)
        same(window, timely[key], lambda w: w.shares["GPU-0"].device_mj)
        same(window, timely[key], lambda w: w.phases[1].active_mj or 0.0)
        assert window.flags == timely[key].flags == frozenset()


def _when_known(event: Event) -> tuple[int, Event]:
    """An iteration is told when it is over."""
    return getattr(event.what, "stop_ns", event.at_ns), event


def same(a: Window, b: Window, figure: Callable[[Window], float]) -> None:
    assert figure(a) == pytest.approx(figure(b), rel=1e-6, abs=1e-3)
