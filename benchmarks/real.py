"""Scenarios in real time: client, socket, daemon, and the double of NVIDIA's library.

The daemon of a class is a new one, so that none knows the load of the one before.
"""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.classes import Class
from benchmarks.figures import Case, Figures, Totals
from benchmarks.power import MS
from benchmarks.scenarios import Scenario
from greend.model import Flag
from greend_client import Client, Window
from tests.daemon import daemon, sleep_until
from tests.nvml_double import DoubleGpu, NvmlDouble

JITTER_NS = MS
# Until the first scenario begins: all of them are being scripted.
SCRIPT_NS_PER_POINT = 10_000
RESULT_S = 10.0

# What is told, in this order at one instant.
_START, _ITERATION, _STOP = range(3)


def measure(kind: Class, seed: int) -> Figures:
    """Plays a class's scenarios all at once, a GPU each."""
    scenarios = [kind.scenario(seed, number) for number in range(kind.devices)]
    points = max(len(scenario.power) for scenario in scenarios)
    figures = Figures(kind)
    with (
        TemporaryDirectory() as directory,
        NvmlDouble(
            Path(directory), [scenario.kind for scenario in scenarios], breakpoints=points + 10
        ) as double,
    ):
        rng = random.Random(f"{seed} {kind.name} devices")
        for gpu, scenario in zip(double.gpus, scenarios, strict=True):
            # Counters of different GPUs do not step together.
            gpu.set_counter(
                phase_ns=rng.randrange(100 * MS), jitter_ns=JITTER_NS, seed=rng.getrandbits(63)
            )
            gpu.set_sensor(phase_ns=rng.randrange(100 * MS))
            gpu.set_power_w(scenario.power[0][1])
        environment = os.environ | double.environment
        with daemon(environment=environment, devices=kind.devices) as running:
            begin_ns = _script(double, scenarios)
            with (
                Client(running.address) as client,
                ThreadPoolExecutor(kind.devices) as players,
            ):
                jobs = [
                    players.submit(_play, client, gpu, scenario, begin_ns)
                    for gpu, scenario in zip(double.gpus, scenarios, strict=True)
                ]
                told = [job.result() for job in jobs]
                for gpu, scenario, windows in zip(double.gpus, scenarios, told, strict=True):
                    _check_truth(gpu, scenario, begin_ns)
                    figures.cases += _cases(scenario, windows)
                    figures.totals.append(_totals(client, gpu, scenario))
    return figures


def _script(double: NvmlDouble, scenarios: list[Scenario]) -> int:
    """Scripts all GPUs; returns the instant at which they begin."""
    points = sum(len(scenario.power) for scenario in scenarios)
    begin_ns = time.monotonic_ns() + 1000 * MS + points * SCRIPT_NS_PER_POINT
    for gpu, scenario in zip(double.gpus, scenarios, strict=True):
        gpu.script_power([(begin_ns + at_ns, watts) for at_ns, watts in scenario.power])
        gpu.script_utilization(
            [(begin_ns + at_ns, percent) for at_ns, percent in scenario.utilization]
        )
    assert time.monotonic_ns() < begin_ns, "scripting took longer than was allowed for"
    return begin_ns


def _play(client: Client, gpu: DoubleGpu, scenario: Scenario, begin_ns: int) -> dict[str, Window]:
    """Tells what happens on one GPU, when it happens."""
    windows = {
        one.name: client.window(
            gpus=[gpu.uuid],
            iteration_driven=one.iteration_driven,
        )
        for one in scenario.windows
    }
    calls: list[tuple[int, int, Callable[[], object]]] = []
    for one in scenario.windows:
        window, start_ns, stop_ns = windows[one.name], one.start_ns, one.stop_ns
        calls.append((start_ns, _START, partial(window.start, begin_ns + start_ns)))
        calls.append((stop_ns, _STOP, partial(window.stop, begin_ns + stop_ns)))
    for iteration in scenario.iterations:
        start_ns, stop_ns = iteration.start_ns, iteration.stop_ns
        costs = {windows[name]: cost for name, cost in iteration.costs.items()}
        told = partial(client.iteration, begin_ns + start_ns, begin_ns + stop_ns, costs)
        calls.append((stop_ns, _ITERATION, told))
    for at_ns, _, call in sorted(calls, key=lambda call: call[:2]):
        sleep_until(begin_ns + at_ns)
        call()
    sleep_until(begin_ns + scenario.end_ns)
    return windows


def _check_truth(gpu: DoubleGpu, scenario: Scenario, begin_ns: int) -> None:
    """The double, by its own integral, drew what the scenario books."""
    drawn_j = gpu.true_energy_j(begin_ns, begin_ns + scenario.end_ns)
    windows_j = sum(window.truth_j for window in scenario.windows)
    booked_j = windows_j + scenario.idle_j + scenario.untracked_j
    assert abs(booked_j / drawn_j - 1) < 1e-6, f"{booked_j} J is not the double's {drawn_j} J"


def _cases(scenario: Scenario, windows: dict[str, Window]) -> list[Case]:
    cases = []
    for true in scenario.windows:
        if not true.counted:
            continue
        result = windows[true.name].result(timeout=RESULT_S)
        assert result.energy_j is not None, result
        flags = frozenset(map(Flag, result.flags))
        cases.append(Case(true.truth_j, result.energy_j, result.uncertainty_j, flags))
    return cases


def _totals(client: Client, gpu: DoubleGpu, scenario: Scenario) -> Totals:
    (row,) = client.ledger(devices=[gpu.uuid])
    return Totals(
        row.measured_j,
        row.windows_j,
        row.idle_j,
        row.unattributed_j,
        row.gap_j,
        scenario.untracked_j,
    )
