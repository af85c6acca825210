"""The end of `scripts/bench cost`: the daemon's resident memory over 14 minutes of windows."""

import os
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import psutil

from greend_client import Client
from tests.daemon import daemon
from tests.nvml_double import NvmlDouble

GPUS = 8
# The closed steps of ten minutes are kept: only after that is it seen whether it grows.
LENGTH_S, FULL_MINUTE = 840.0, 11
WINDOW_S = 0.2
AT_ONCE = 10
TARGET_MB = 90.0


def main() -> None:
    """Prints RSS by minute."""
    with (
        TemporaryDirectory() as directory,
        NvmlDouble(Path(directory), ["a100"] * GPUS) as double,
        daemon(environment=os.environ | double.environment, devices=GPUS) as running,
        Client(running.address) as client,
    ):
        process = psutil.Process(running.pid)
        print(f"RSS with {GPUS} GPUs, {AT_ONCE / WINDOW_S:g} windows/s; at most {TARGET_MB:g} MB")
        print(f"  at start    {_mb(process):.1f} MB", flush=True)
        minutes: list[float] = []
        seen: list[float] = []
        begun = time.monotonic()
        count = 0
        while time.monotonic() - begun < LENGTH_S:
            windows = [
                client.window(f"r{count + n}", gpus=[n % GPUS], model="m").start()
                for n in range(AT_ONCE)
            ]
            time.sleep(WINDOW_S)
            for window in windows:
                window.tokens(prompt=100, output=10)
                window.stop()
            count += AT_ONCE
            seen.append(_mb(process))
            if time.monotonic() - begun >= 60 * (len(minutes) + 1):
                minutes.append(fmean(seen))
                seen = []
                print(f"  minute {len(minutes):2}   {minutes[-1]:.1f} MB mean", flush=True)
        growth_mb = minutes[-1] - minutes[FULL_MINUTE - 1]
        print(f"  {count} windows; from minute {FULL_MINUTE} to the last: {growth_mb:+.1f} MB")


def _mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6
