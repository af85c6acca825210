"""Isolated windows on the double: how far is greend from the truth?

Load is scripted ahead on simulated A100s, windows are given its very instants,
through client, socket, daemon and the real NVML binding.
"""

import os
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from greend_client import Client
from tests.daemon import Daemon, daemon, sleep_until
from tests.nvml_double import DoubleGpu, NvmlDouble

MS = 1_000_000
BASE_W = 58.0  # an idle A100 (FACTS.md)
GPUS = 10
# After work ended, time for the device to be idle again and the ledger to see it.
PAUSE_NS = 1_000 * MS


@dataclass(frozen=True)
class Case:
    """One isolated window: its GPU, its work, and what both say of its energy."""

    length_ns: int
    energy_j: float
    truth_j: float

    @property
    def error(self) -> float:
        """Relative to the truth."""
        return self.energy_j / self.truth_j - 1


def measure(lengths_ns: Iterable[int], windows: int, seed: int) -> dict[int, list[Case]]:
    """Measures `windows` isolated windows of each length, at random phases of the counter."""
    lengths = list(lengths_ns)
    with TemporaryDirectory() as directory, NvmlDouble(Path(directory), ["a100"] * GPUS) as double:
        rng = random.Random(seed)
        for gpu in double.gpus:
            # Counters of different GPUs do not step together.
            gpu.set_counter(phase_ns=rng.randrange(100 * MS), jitter_ns=MS)
            gpu.set_power_w(BASE_W)
        with daemon(environment=os.environ | double.environment, devices=GPUS) as running:
            time.sleep(3)
            cases: list[Case] = []
            workers = [
                threading.Thread(
                    target=_measure_on,
                    args=(running, gpu, lengths, -(-windows // GPUS), rng.random(), cases),
                )
                for gpu in double.gpus
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
    return {length: [case for case in cases if case.length_ns == length] for length in lengths}


def _measure_on(
    running: Daemon,
    gpu: DoubleGpu,
    lengths: list[int],
    windows: int,
    seed: float,
    cases: list[Case],
) -> None:
    rng = random.Random(seed)
    plan = []
    cursor = time.monotonic_ns() + 500 * MS
    for length in lengths * windows:
        start = cursor + PAUSE_NS + rng.randrange(100 * MS)
        plan.append((start, start + length, rng.uniform(150, 400)))
        cursor = start + length
    gpu.script_pulses(plan, base_w=BASE_W)
    with Client(running.address) as client:
        told = []
        for start, stop, _ in plan:
            window = client.window(gpus=[gpu.uuid])
            sleep_until(start)
            window.start(start)
            sleep_until(stop)
            window.stop(stop)
            told.append((window, start, stop))
        for window, start, stop in told:
            result = window.result(timeout=10)
            assert result.energy_j is not None, result
            cases.append(Case(stop - start, result.energy_j, gpu.true_energy_j(start, stop)))
