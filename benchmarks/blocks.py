"""What blocks of windows cost the threads that run them, beside a floor.

The floor is what no way of telling when something began and ended can do without: two
clock reads and two appends to a deque. Both take turns, burst by burst, so that what
disturbs one disturbs the other. The first block after a pause is told apart: caches are
cold by then, and whatever Python calls first costs a multiple.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import quantiles

from greend_client import Client

BURST = 10
# 100 bytes of keys and values.
TAGS = {
    "model": "meta-llama/llama-3.1-8b-instruct",
    "tenant": "tenant-0123",
    "route": "/v1/chat/completions",
    "user_class": "interactive-1",
}

Block = Callable[[], None]


@dataclass(frozen=True)
class Times:
    """Wall times of single blocks in ns, and the threads' CPU time for each on average.

    ``wall_ns`` are those of blocks that follow another, ``first_ns`` of those after a pause.
    """

    wall_ns: list[int]
    first_ns: list[int]
    cpu_ns: float

    def quantile_us(self, percent: int) -> float:
        """A percentile of the wall times in µs."""
        return quantiles(self.wall_ns, n=100)[percent - 1] / 1000


@dataclass(frozen=True)
class Cost:
    """A block with a window, and the floor."""

    window: Times
    floor: Times


def measure(
    client: Client, *, threads: int, length_s: float, per_s: float, tags: Mapping[str, str]
) -> Cost:
    """Runs blocks in bursts, so many a second in all threads together."""
    found = [(_Found(), _Found()) for _ in range(threads)]
    workers = [
        threading.Thread(
            target=_work,
            args=(_window(client, tags), _floor(), length_s, threads * BURST / per_s, mine),
        )
        for mine in found
    ]
    for worker in workers:
        worker.start()
        time.sleep(BURST / per_s)  # not all at once
    for worker in workers:
        worker.join()
    return Cost(*(_together([mine[which] for mine in found]) for which in (0, 1)))


@dataclass
class _Found:
    """What one thread found out about one kind of block."""

    bursts_ns: list[list[int]] = field(default_factory=list)
    cpu_ns: int = 0

    def burst(self, block: Block) -> None:
        before_ns = time.thread_time_ns()
        self.bursts_ns.append([_timed(block) for _ in range(BURST)])
        self.cpu_ns += time.thread_time_ns() - before_ns


def _together(found: list[_Found]) -> Times:
    bursts_ns = [burst_ns for mine in found for burst_ns in mine.bursts_ns]
    return Times(
        [time_ns for burst_ns in bursts_ns for time_ns in burst_ns[1:]],
        [burst_ns[0] for burst_ns in bursts_ns],
        sum(mine.cpu_ns for mine in found) / len(bursts_ns) / BURST,
    )


def _window(client: Client, tags: Mapping[str, str]) -> Block:
    if not tags:

        def bare() -> None:
            with client.window("request-7"):
                pass

        return bare
    model, tenant, route, user_class = tags.values()

    def tagged() -> None:
        with client.window(
            "request-7", model=model, tenant=tenant, route=route, user_class=user_class
        ):
            pass

    return tagged


def _floor() -> Block:
    events: deque[int] = deque(maxlen=10_000)

    def floor() -> None:
        events.append(time.monotonic_ns())
        events.append(time.monotonic_ns())

    return floor


def _work(
    window: Block, floor: Block, length_s: float, every_s: float, found: tuple[_Found, _Found]
) -> None:
    following_s = time.monotonic()
    end_s = following_s + length_s
    while following_s < end_s:
        for block, mine in zip((window, floor), found, strict=True):
            mine.burst(block)
        following_s += every_s
        time.sleep(max(following_s - time.monotonic(), 0))


def _timed(block: Block) -> int:
    begun_ns = time.perf_counter_ns()
    block()
    return time.perf_counter_ns() - begun_ns
