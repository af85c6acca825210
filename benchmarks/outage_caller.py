"""The client of `scripts/bench outage`: so many windows a second, each of 20 ms.

Run as `python -m benchmarks.outage_caller ADDRESS PER_S CAPACITY MOST_WINDOWS`. Answers each
line on its standard input with a Mark. At its end no more windows begin; once nothing is kept
any more, it prints the Costs of what happened from one mark to the next, and ends.
"""

import json
import select
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import quantiles

from greend_client import Client, Stats, Window

BURST = 10
LENGTH_NS = 20_000_000
DELIVERED_S = 60.0


@dataclass(frozen=True)
class Mark:
    """Where the client was: windows begun, its CPU time in ns, and what became of them.

    ``thread_ns`` is of the caller's thread in the client's calls, ``process_ns`` of all;
    ``events`` are those that are kept.
    """

    begun: int
    thread_ns: int
    process_ns: int
    delivered: int
    kept: int
    lost: int
    refused: int
    events: int


@dataclass(frozen=True)
class Costs:
    """What one window cost in µs: its caller's wall and CPU time, and the process's CPU time."""

    p50: float
    p99: float
    thread: float
    process: float


class Caller:
    """Begins windows in bursts and ends them; remembers in memory that was there from the start.

    A window is named for its number, the first is 0.
    """

    def __init__(self, client: Client, per_s: float, most: int) -> None:
        self._client = client
        self._every_s = BURST / per_s
        self._wall_ns = array("Q", bytes(8 * most))
        self._open: deque[tuple[int, int, Window]] = deque()  # number, start, window
        self._begun = self._thread_ns = 0
        self._marks: list[Mark] = []

    def run(self) -> None:
        """Until its standard input ends."""
        due_s = time.monotonic()
        while True:
            due_s += self._every_s
            while select.select([sys.stdin], [], [], max(due_s - time.monotonic(), 0))[0]:
                if not sys.stdin.readline():
                    return
                _print(self._mark())
            self._burst()

    def end(self) -> Mark:
        """Ends what is open and waits until nothing is kept."""
        while self._open:
            self._stop()
        deadline = time.monotonic() + DELIVERED_S
        while self._client.stats().kept and time.monotonic() < deadline:
            time.sleep(0.1)
        return self._mark()

    def costs(self) -> list[Costs]:
        """From each mark to the next one."""
        return [
            Costs(
                *_quantiles_us(self._wall_ns[before.begun : after.begun]),
                (after.thread_ns - before.thread_ns) / (after.begun - before.begun) / 1e3,
                (after.process_ns - before.process_ns) / (after.begun - before.begun) / 1e3,
            )
            for before, after in pairwise(self._marks[:-1])  # after the last none began
        ]

    def _burst(self) -> None:
        before_ns = time.thread_time_ns()
        for _ in range(BURST):
            self._start()
        ended_ns = time.monotonic_ns() - LENGTH_NS
        while self._open and self._open[0][1] <= ended_ns:
            self._stop()
        self._thread_ns += time.thread_time_ns() - before_ns

    def _start(self) -> None:
        name = str(self._begun)
        begun_ns = time.perf_counter_ns()
        window = self._client.window(
            name, gpus=[0], model="llama-3-8b", tenant="tenant-0123", route="/v1/completions"
        ).start()
        self._wall_ns[self._begun] = time.perf_counter_ns() - begun_ns
        self._open.append((self._begun, time.monotonic_ns(), window))
        self._begun += 1

    def _stop(self) -> None:
        number, _, window = self._open.popleft()
        begun_ns = time.perf_counter_ns()
        window.stop()
        self._wall_ns[number] += time.perf_counter_ns() - begun_ns

    def _mark(self) -> Mark:
        used_ns = time.process_time_ns()
        stats: Stats = self._client.stats()
        self._marks.append(
            Mark(
                self._begun,
                self._thread_ns,
                used_ns,
                stats.delivered,
                stats.kept,
                stats.lost,
                stats.refused,
                len(self._client._sender._outbox.events),
            )
        )
        return self._marks[-1]


def _quantiles_us(times_ns: Sequence[int]) -> tuple[float, float]:
    places = quantiles(times_ns, n=100)
    return places[49] / 1e3, places[98] / 1e3


def _print(what: Mark) -> None:
    print(json.dumps(asdict(what)), flush=True)


def main(address: str, per_s: float, capacity: int, most: int) -> None:
    """Runs it."""
    with Client(address) as client:
        client._sender._outbox.bound(capacity)
        caller = Caller(client, per_s, most)
        caller.run()
        _print(caller.end())
        print(json.dumps([asdict(costs) for costs in caller.costs()]), flush=True)


if __name__ == "__main__":
    address, per_s, capacity, most = sys.argv[1:]
    main(address, float(per_s), int(capacity), int(most))
