"""Rule 1 from what is stored, against the double's counter."""

import json
import os
import random
import threading
import time
from pathlib import Path

import pytest

from greend_client import Client
from tests.daemon import daemon
from tests.integration.conftest import BASE_W
from tests.nvml_double import DoubleGpu, NvmlDouble

MS = 1_000_000
S = 1_000_000_000


def scripted(gpu: DoubleGpu, rng: random.Random) -> None:
    """Eight seconds of pulses, some of them with no window around them."""
    cursor = time.monotonic_ns()
    pulses = []
    while cursor < time.monotonic_ns() + 8 * S:
        start = cursor + rng.randrange(20, 300) * MS
        cursor = start + rng.randrange(5, 400) * MS
        pulses.append((start, cursor, rng.uniform(100, 400)))
    gpu.script_pulses(pulses, base_w=BASE_W)


def overlapping_windows(address: str, rng: random.Random) -> None:
    """A client with windows of all lengths on one or both GPUs, nested at times."""
    with Client(address) as client:
        for number in range(12):
            gpus = rng.choice([[0], [1], [0, 1]])
            with client.window(f"r{number}", gpus=gpus, weight=rng.choice([0.5, 1.0, 3.0])):
                time.sleep(rng.uniform(0.01, 0.3))
                if rng.random() < 0.4:
                    with client.window(f"r{number}-child", gpus=gpus):
                        time.sleep(rng.uniform(0.0, 0.2))
            time.sleep(rng.uniform(0, 0.1))


def test_every_joule_is_stored_once(tmp_path: Path) -> None:
    rng = random.Random()
    with NvmlDouble(tmp_path, ["a100", "h100"]) as double:
        for gpu in double.gpus:
            gpu.set_power_w(BASE_W)
        begun = time.monotonic_ns()
        with daemon(environment=os.environ | double.environment, devices=2) as running:
            started = time.monotonic_ns()
            for gpu in double.gpus:
                scripted(gpu, rng)
            clients = [
                threading.Thread(target=overlapping_windows, args=(running.address, rng))
                for _ in range(6)
            ]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join()
            with Client(running.address) as client:
                deadline = time.monotonic() + 10
                while any(client.history(states=["open", "stopped"])):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            ending = time.monotonic_ns()
            assert running.stop() == 0
            ended = time.monotonic_ns()
            minutes = running.rows("select * from minutes")
            windows = running.rows("select * from windows")

        assert len(windows) >= 72
        assert {row["state"] for row in windows} == {"final"}
        for gpu in double.gpus:
            rows = [row for row in minutes if row["device"] == gpu.uuid]
            total = {
                name: sum(row[f"{name}_mj"] for row in rows)
                for name in ("measured", "windows", "idle", "unattributed", "gap")
            }
            booked = sum(amount for name, amount in total.items() if name != "measured")
            assert booked == pytest.approx(total["measured"], rel=1e-9)
            assert min(total.values()) >= 0
            assert total["unattributed"] > 0, "some work had no window"

            # To the mJ, what is measured is a difference of two of the counter's values,
            # the first around the start and the last around the end.
            first = {gpu.counter_mj(at) for at in range(begun, started, 10 * MS)}
            last = {gpu.counter_mj(at) for at in range(ending - 2 * S, ended, 10 * MS)}
            assert any(
                total["measured"] == pytest.approx(after - before, abs=1e-6)
                for before in first
                for after in last
            )

            # What the windows' own rows say is what the minutes say of windows.
            own_mj = sum(
                share[0] + share[1]
                for row in windows
                for device, share in json.loads(row["shares"]).items()
                if device == gpu.uuid
            )
            assert own_mj == pytest.approx(total["windows"], rel=1e-9)
