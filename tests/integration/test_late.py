"""Windows told long after the fact, by a client that said so in time.

Two daemons read one counter, each at its own instants: their results differ by what is
uncertain of where its steps lie. From the same readings they are equal: see
tests/metering/test_lateness.py.
"""

import os
import random
import time

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
