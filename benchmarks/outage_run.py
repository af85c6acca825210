"""The course of `scripts/bench outage`: a daemon under load, its kill, its absence, its return."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.outage_caller import Costs, Mark
from greend_proto.v1 import metering_pb2 as pb
from tests.daemon import Daemon, daemon
from tests.faults.audit import check_conserved, check_shares
from tests.nvml_double import NvmlDouble

PER_S = 1000.0
WARM_S, SETTLED_S = 2.0, 60.0
IDLE_W, BUSY_W = 60.0, 250.0
# A row if nothing that began until then may still change.
_SETTLED = """
    select 1 where not exists (
        select 1 from windows where state in ('open', 'stopped') and start_unix_ns <= ?
    )
"""


@dataclass(frozen=True)
class Again:
    """Seconds from the second start of the daemon until it served, until it had all that its
    client had kept, and until all of that was final."""

    serving_s: float
    delivered_s: float
    final_s: float


@dataclass(frozen=True)
class Found:
    """What came of it.

    ``marks`` and ``client_mb`` (resident memory) are of the beginning, the kill, the end of the
    outage, and the end; ``costs`` lie between them. ``last`` is the mark when all was over.
    ``rows`` are the stored windows by number, ``lost`` those that the daemon says clients
    lost, ``error`` is by how much what is booked differs from what was measured, in parts.
    """

    marks: list[Mark]
    client_mb: list[float]
    costs: list[Costs]
    last: Mark
    again: Again
    rows: dict[int, dict[str, Any]]
    lost: int
    error: float

    @property
    def of_outage(self) -> list[dict[str, Any]]:
        """Those stored windows that began during the outage."""
        numbers = range(self.marks[1].begun, self.marks[2].begun)
        return [self.rows[number] for number in numbers if number in self.rows]

    @property
    def newest(self) -> list[dict[str, Any]]:
        """Of them those since the last one that is not stored."""
        after = self.marks[2].begun
        first = next((n + 1 for n in reversed(range(after)) if n not in self.rows), 0)
        return [self.rows[number] for number in range(max(first, self.marks[1].begun), after)]


def run(before_s: float, away_s: float, after_s: float, *, capacity: int) -> Found:
    """With the daemon, without it, and after its return; its client keeps so many events."""
    most = round(PER_S * (WARM_S + before_s + away_s + after_s + SETTLED_S))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(dir="/tmp")))
        double = stack.enter_context(NvmlDouble(directory, ["a100"]))
        gpu = double.gpus[0]
        gpu.set_power_w(IDLE_W)
        running = stack.enter_context(
            daemon(environment=os.environ | double.environment, devices=1)
        )
        gpu.set_power_w(BUSY_W)
        gpu.set_utilization(80)
        client = stack.enter_context(_client(running.address, capacity, most))
        time.sleep(WARM_S)
        looks = [client.look()]
        time.sleep(before_s)
        looks.append(client.look())
        running.stop(signal.SIGKILL)
        time.sleep(away_s)
        looks.append(client.look())
        end_s = time.monotonic() + after_s
        again = _start_again(running)
        time.sleep(max(end_s - time.monotonic(), 0))
        looks.append(client.look())
        last, costs = client.finish()
        lost = _end(running)
        rows = {int(row["request_id"]): row for row in running.rows("select * from windows")}
        marks, client_mb = zip(*looks, strict=True)
        return Found(list(marks), list(client_mb), costs, last, again, rows, lost, _error(running))


def flags(row: dict[str, Any]) -> set[str]:
    """A stored window's own, and those of its shares."""
    of_shares = (share[7] for share in json.loads(row["shares"]).values())
    return set(json.loads(row["flags"])).union(*of_shares)


class _Client:
    """The process of benchmarks.outage_caller."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def look(self) -> tuple[Mark, float]:
        """Where it is, and its resident memory in MB."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        mb = psutil.Process(self._process.pid).memory_info().rss / 1e6
        return Mark(**self._answer()), mb

    def finish(self) -> tuple[Mark, list[Costs]]:
        """Lets it deliver what it still has, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = Mark(**self._answer())
        costs = [Costs(**of_phase) for of_phase in self._answer()]
        assert self._process.wait(10) == 0
        return last, costs

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def _client(address: str, capacity: int, most: int) -> Iterator[_Client]:
    numbers = map(str, (PER_S, capacity, most))
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.outage_caller", address, *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _Client(process)
        finally:
            process.kill()


def _start_again(running: Daemon) -> Again:
    started_ns, started_s = time.time_ns(), time.monotonic()
    running.start(devices=1)
    serving_s = time.monotonic() - started_s
    # Events arrive in the order in which they happened.
    _wait_for(running, "select 1 from windows where start_unix_ns > ? limit 1", started_ns)
    delivered_s = time.monotonic() - started_s
    _wait_for(running, _SETTLED, started_ns)
    return Again(serving_s, delivered_s, time.monotonic() - started_s)


def _end(running: Daemon) -> int:
    """Ends the daemon once all is final; returns how many windows it knows to be lost."""
    _wait_for(running, _SETTLED, time.time_ns())
    with running.stub() as stub:
        lost = stub.GetStatus(pb.GetStatusRequest(), timeout=10).lost_windows
    assert running.stop() == 0, running.log.read_text()
    return lost


def _wait_for(running: Daemon, query: str, until_ns: int) -> None:
    """Until its database has a row to give."""
    deadline = time.monotonic() + SETTLED_S
    while not running.rows(query, until_ns):
        assert time.monotonic() < deadline, f"never came: {query}"
        time.sleep(0.1)


def _error(running: Daemon) -> float:
    sums = check_conserved(running)
    check_shares(running, sums)
    (total,) = sums.values()
    booked = sum(amount for name, amount in total.items() if name != "measured")
    return abs(booked / total["measured"] - 1)
