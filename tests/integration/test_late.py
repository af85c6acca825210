"""Windows told long after the fact, by a client that said so in time.

Two daemons read one counter, each at its own instants: their results differ by what is
uncertain of where its steps lie. From the same readings they are equal: as of twins in one
daemon here, and see tests/metering/test_lateness.py.
"""

import os
import random
import time
from collections.abc import Callable

import pytest

from greend_client import Client, Window, WindowResult
from tests.daemon import daemon, sleep_until
from tests.integration.conftest import BASE_W
from tests.integration.test_windows import MS, S
from tests.nvml_double import NvmlDouble

LENGTH_NS = 5 * S
COUNT = 12
SPACING_NS = 370 * MS


def told_in_time(client: Client, uuid: str, starts: list[int]) -> list[Window]:
    windows = [client.window(str(n), gpus=uuid) for n in range(len(starts))]
    instants = sorted(
        [(at, 0, n) for n, at in enumerate(starts)]
        + [(at + LENGTH_NS, 1, n) for n, at in enumerate(starts)]
    )
    for at_ns, stops, number in instants:
        sleep_until(at_ns)
        if stops:
            windows[number].stop(at_ns)
        else:
            windows[number].start(at_ns)
    return windows


def told_late(client: Client, uuid: str, starts: list[int]) -> dict[int, Window]:
    order = list(range(len(starts)))
    random.Random(4).shuffle(order)
    return {
        n: client.record(str(n), start_ns=starts[n], stop_ns=starts[n] + LENGTH_NS, gpus=uuid)
        for n in order
    }


def energies(results: list[WindowResult]) -> list[float]:
    assert all(result.flags == () for result in results), [result.flags for result in results]
    return [result.energy_j or 0.0 for result in results]


def test_windows_told_after_they_ended_get_what_those_told_in_time_get(double: NvmlDouble) -> None:
    gpu = double.gpus[0]
    environment = os.environ | double.environment
    with (
        daemon(environment=environment, devices=2) as timely,
        daemon(environment=environment, devices=2) as patient,
        Client(timely.address, lateness_s=30) as first,
        Client(patient.address, lateness_s=30) as second,
    ):
        begin = time.monotonic_ns() + 2 * S
        starts = [begin + n * SPACING_NS for n in range(COUNT)]
        pulses = [
            (at, at + 3 * SPACING_NS, 150.0 + 20 * (n % 5)) for n, at in enumerate(starts[::4])
        ]
        gpu.script_pulses(pulses, base_w=BASE_W)
        timely_windows = told_in_time(first, gpu.uuid, starts)
        late_windows = told_late(second, gpu.uuid, starts)
        in_time = energies([window.result(60) for window in timely_windows])
        late = energies([late_windows[n].result(60) for n in range(COUNT)])
    truth = gpu.true_energy_j(begin, starts[-1] + LENGTH_NS)
    assert sum(late) == pytest.approx(truth, rel=0.01)
    assert late == pytest.approx(in_time, rel=0.01)


@pytest.mark.parametrize(("lateness_s", "length_ns"), [(0.25, 300 * MS), (30, 5 * S)])
def test_twins_get_the_same_whenever_they_are_told(
    double: NvmlDouble, lateness_s: float, length_ns: int
) -> None:
    """Of two windows over the same time one is told in time, the other within the allowance:
    the short ones each up to 150 ms late, the long ones after all have ended, in any order."""
    rng = random.Random(8)
    gpu = double.gpus[0]
    with (
        daemon(environment=os.environ | double.environment, devices=2) as running,
        Client(running.address, lateness_s=lateness_s) as client,
    ):
        begin = time.monotonic_ns() + 2 * S
        starts = [begin + n * length_ns // 4 for n in range(COUNT)]
        gpu.script_pulses([(begin, starts[-1] + length_ns, 250.0)], base_w=BASE_W)
        spans = [(at, at + length_ns) for at in starts]
        timely = [client.window(gpus=gpu.uuid) for _ in spans]
        late = [client.window(gpus=gpu.uuid) for _ in spans]
        told: list[tuple[int, Callable[[int], object], int]]
        told = [(at, timely[n].start, at) for n, (at, _) in enumerate(spans)]
        told += [(at, timely[n].stop, at) for n, (_, at) in enumerate(spans)]
        afterwards = spans[-1][1] if lateness_s > 1 else 0
        for n, (start, stop) in enumerate(spans):
            started = max(start, afterwards) + rng.randrange(150) * MS
            told.append((started, late[n].start, start))
            told.append((max(started, stop) + rng.randrange(80) * MS, late[n].stop, stop))
        for at_ns, tell, instant_ns in sorted(told, key=lambda item: item[0]):
            sleep_until(at_ns)
            tell(instant_ns)
        first, second = (
            energies([window.result(60) for window in windows]) for windows in (timely, late)
        )
    assert second == pytest.approx(first, rel=1e-6)
