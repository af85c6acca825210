"""`scripts/bench ledger`: what an event costs the ledger, however many windows are open.

The same windows are open on all devices, as requests on several GPUs are. In a busy round
windows stop and others start, in a quiet one the same time passes and nothing happens; an
event costs what busy rounds take more, its part in the closing of its step included.
The floor, in the same rounds: what any ledger has to do with an event, which is to put it
in order of time (onto a heap, from the heap) and to note whose it is (in a dictionary).
"""

import heapq
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from math import log
from statistics import median

from rich.console import Console
from rich.table import Table

from greend.energy.ledger import DeviceLedger
from greend.metering.meter import MeterSettings
from greend.model import NS_PER_MS, NS_PER_S, Sample

DEVICES = 8
OPEN = (10, 100, 1_000, 10_000)
ROUNDS = 15
# Of a round; events come in the first half, so that all are booked by its end.
ROUND_NS = 2 * NS_PER_S
EVENTS = 400
PERIOD_NS = 100 * NS_PER_MS
SAMPLE_NS = 37 * NS_PER_MS
POWER_MW = 300_000
WALL_OFFSET_NS = 1_700_000_000 * NS_PER_S
LATENESS_NS = MeterSettings().lateness_ns


@dataclass(frozen=True, slots=True)
class Round:
    """What a device's events and the closing of a step cost, in µs."""

    event_us: float
    floor_us: float
    step_us: float


@dataclass
class Node:
    """Ledgers with the same windows open on each."""

    windows: int
    now_ns: int = 0
    numbers: Iterator[int] = field(default_factory=count)
    told: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.ledgers = [
            DeviceLedger(f"GPU-{number}", 0, has_counter=True) for number in range(DEVICES)
        ]
        # The floor is known first.
        self.pass_time(2 * ROUND_NS, [])
        self.floor_dict: dict[str, int] = {}
        for number in range(self.windows):
            self.start(self.now_ns + number * 1000)
            self.floor_dict[f"window-{number}"] = number
        self.pass_time(ROUND_NS, [])

    def start(self, at_ns: int) -> None:
        name = f"window-{next(self.numbers)}"
        self.told.append(name)
        for ledger in self.ledgers:
            ledger.start(name, at_ns, 1.0)

    def stop(self, at_ns: int) -> None:
        name = self.told.popleft()
        for ledger in self.ledgers:
            ledger.stop(name, at_ns)

    def pass_time(self, length_ns: int, events_ns: list[int]) -> tuple[float, float]:
        """CPU time, in s, of events and of closing; the oldest window stops, a new one starts."""
        until_ns, told_s, closed_s = self.now_ns + length_ns, 0.0, 0.0
        events = deque(events_ns)
        while self.now_ns < until_ns:
            self.now_ns += SAMPLE_NS
            begun = time.process_time()
            while events and events[0] <= self.now_ns:
                at_ns = events.popleft()
                self.stop(at_ns)
                self.start(at_ns)
            told_s += time.process_time() - begun
            counted_mj = self.now_ns // PERIOD_NS * PERIOD_NS * POWER_MW // NS_PER_S
            for ledger in self.ledgers:
                ledger.add(Sample(ledger.device, self.now_ns, energy_mj=counted_mj))
            begun = time.process_time()
            for ledger in self.ledgers:
                ledger.close(self.now_ns, LATENESS_NS, WALL_OFFSET_NS)
            closed_s += time.process_time() - begun
        return told_s, closed_s

    def round(self) -> Round:
        apart_ns = ROUND_NS // EVENTS  # two at a time
        instants = [self.now_ns + number * apart_ns for number in range(EVENTS // 2)]
        busy_s = sum(self.pass_time(ROUND_NS, instants))
        floor_s = self.floor(instants)
        quiet_s = sum(self.pass_time(ROUND_NS, []))
        events = EVENTS * DEVICES
        steps = ROUND_NS / PERIOD_NS * DEVICES
        return Round(
            (busy_s - quiet_s) / events * 1e6, floor_s / events * 1e6, quiet_s / steps * 1e6
        )

    def floor(self, instants: list[int]) -> float:
        heap: list[tuple[int, int, str, object]] = []
        known = self.floor_dict
        begun = time.process_time()
        for at_ns in instants * DEVICES:
            for kind in (0, 1):
                heapq.heappush(heap, (at_ns, kind, "window", None))
                known[f"event-{at_ns}"] = kind
        while heap:
            heapq.heappop(heap)
        taken_s = time.process_time() - begun
        for at_ns in instants:
            del known[f"event-{at_ns}"]
        return taken_s


def main() -> None:
    """Prints the table."""
    # Sizes take turns, so that a machine that slows down slows all.
    nodes = [Node(windows) for windows in OPEN]
    rounds: list[list[Round]] = [[] for _ in nodes]
    for number in range(ROUNDS + 1):
        for node, of_node in zip(nodes, rounds, strict=True):
            measured = node.round()
            if number:  # the first one warms up
                of_node.append(measured)
    Console(width=100).print(_table(rounds))


def _table(rounds: list[list[Round]]) -> Table:
    table = Table(
        title=f"Cost of a start or stop, a device, with so many windows open on {DEVICES} devices",
        caption=f"Medians of {ROUNDS} rounds of {EVENTS} events (quartiles). Logarithmic growth: "
        "what log n would grow by from the line above.",
    )
    for column in ("open", "µs / event", "floor", "ratio", "µs / step", "growth", "logarithmic"):
        table.add_column(column, justify="right")
    costs = [median(one.event_us for one in of_node) for of_node in rounds]
    growth = [""] + [f"×{after / before:.2f}" for before, after in pairwise(costs)]
    most = [""] + [f"×{log(after) / log(before):.2f}" for before, after in pairwise(OPEN)]
    for windows, of_node, grown, most_grown in zip(OPEN, rounds, growth, most, strict=True):
        table.add_row(
            f"{windows:,}".replace(",", " "),
            _spread([one.event_us for one in of_node]),
            _spread([one.floor_us for one in of_node]),
            f"{median(one.event_us / one.floor_us for one in of_node):.0f}",
            _spread([one.step_us for one in of_node]),
            grown,
            most_grown,
        )
    return table


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return f"{median(ordered):.1f} ({low:.1f}-{high:.1f})"
