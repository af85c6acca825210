"""What the accuracy bench measures: devices with work on them, and whose energy is whose.

Scenarios are data, made from a seed alone; benchmarks/virtual.py plays them to a ledger in
virtual time, benchmarks/accuracy.py to the daemon in real time.

The truth. A device draws its floor and, on top of it, what work draws. Floor and work have
noise of their own. A window's true energy is
- the floor (as it is, drift and noise included) of each instant in which the window is open,
  divided by the number of windows that are open then; and
- all that its work draws above the floor, wherever in time: the ramp after its stop is its
  own, the noise of its work too. The noise of the floor while nobody is open is nobody's.
Where power is a function of the number of open windows (Poisson arrivals), the truth is the
power of each instant divided by that number. In an engine's iterations it is the iteration's
energy by its costs, what falls off after it included. What an untracked process draws above
the floor is never a window's.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise

from benchmarks import power
from benchmarks.power import MS, Noise, Piece, S, Script, Span
from tests.nvml_double.profiles import PROFILES, Profile

# Before the first work: the daemon learns the floor and where the counter's steps lie.
LEAD_NS = 10 * S
# After the last: all steps with work in them have closed.
TAIL_NS = 2 * S
MOST_W = {"a100": 400.0, "h100": 650.0}
LEAST_W = 150.0
UNTRACKED_LOAD = 0.3


@dataclass(frozen=True, slots=True)
class TrueWindow:
    """A window and its true energy; one that is not `counted` is only there for the others."""

    name: str
    start_ns: int
    stop_ns: int
    truth_j: float
    iteration_driven: bool = False
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Iteration:
    start_ns: int
    stop_ns: int
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Scenario:
    """One device's time from 0 to `end_ns`; before it the device is idle.

    The true energies of the windows, of nobody and of untracked work sum to all there is.
    """

    kind: str
    power: Script
    utilization: list[tuple[int, int]]
    windows: list[TrueWindow]
    end_ns: int
    idle_j: float
    iterations: list[Iteration] = field(default_factory=list)
    untracked_j: float = 0.0


@dataclass(frozen=True, slots=True)
class Device:
    """What scenarios are drawn for, and from what."""

    kind: str
    rng: random.Random

    @property
    def profile(self) -> Profile:
        return PROFILES[self.kind]

    @property
    def range_w(self) -> float:
        """From the floor to what the device can draw."""
        return self.profile.power_limits_w[1] - self.profile.idle_w

    def work_w(self, most_w: float | None = None) -> float:
        """What a window's work draws above the floor."""
        most_w = most_w or MOST_W[self.kind]
        return self.rng.uniform(LEAST_W, most_w) - self.profile.idle_w

    def spans(self, windows: int, shortest_ns: int, longest_ns: int) -> list[Span]:
        """One after the other, with pauses of about a second."""
        spans, cursor_ns = [], LEAD_NS
        for _ in range(windows):
            start_ns = cursor_ns + self.rng.randint(400 * MS, 1600 * MS)
            cursor_ns = start_ns + self.rng.randint(shortest_ns, longest_ns)
            spans.append((start_ns, cursor_ns))
        return spans

    def scenario(
        self,
        spans: list[Span],
        own: list[list[Piece]],
        busy: list[tuple[int, int, float]],
        others: list[Piece] | None = None,
    ) -> Scenario:
        """Windows with works of their own, and what an untracked process draws."""
        others = others or []
        end_ns = max([stop_ns for _, stop_ns in spans] + [end for _, end, _ in busy]) + TAIL_NS
        floor = power.floor(self.rng, self.profile.idle_w, end_ns)
        floor_j, idle_j = power.shared_j(power.curve(power.script(floor)), spans, end_ns)
        return Scenario(
            kind=self.kind,
            power=power.script([*floor, *others, *(piece for pieces in own for piece in pieces)]),
            utilization=power.utilization(self.rng, busy, end_ns),
            windows=[
                TrueWindow(f"w{number}", start_ns, stop_ns, open_j + power.energy_j(pieces))
                for number, (start_ns, stop_ns), open_j, pieces in zip(
                    count(), spans, floor_j, own, strict=False
                )
            ],
            end_ns=end_ns,
            idle_j=idle_j,
            untracked_j=power.energy_j(others),
        )


# How a scenario with so many counted windows is made for a device.
Make = Callable[[Device, int], Scenario]


def isolated(length_ns: int) -> Make:
    def make(device: Device, windows: int) -> Scenario:
        spans = device.spans(windows, length_ns, length_ns)
        noise = Noise(device.rng)
        own = [power.work(noise, *span, device.work_w()) for span in spans]
        return device.scenario(spans, own, [(*span, 1.0) for span in spans])

    return make


def untracked(bursts: bool) -> Make:
    """Windows on top of a process that nobody measures, steady or in bursts."""

    def make(device: Device, windows: int) -> Scenario:
        rng = device.rng
        spans = device.spans(windows, 100 * MS, 2 * S)
        noise, others_noise = Noise(rng), Noise(rng)
        others_w = UNTRACKED_LOAD * device.range_w
        most_w = device.profile.power_limits_w[1] - others_w
        own = [power.work(noise, *span, device.work_w(most_w)) for span in spans]
        last_ns = spans[-1][1] + S
        on = [(LEAD_NS - 5 * S, last_ns)]
        if bursts:
            ends = [LEAD_NS - 5 * S]
            while ends[-1] < last_ns:
                ends.append(ends[-1] + rng.randint(50 * MS, 500 * MS))
            on = list(pairwise(ends))[::2]
        others = [piece for span in on for piece in power.steady(others_noise, *span, others_w)]
        busy = [(*span, 1.0) for span in spans]
        duty = 1.0 if bursts else UNTRACKED_LOAD
        return device.scenario(spans, own, busy + [(*span, duty) for span in on], others)

    return make


def host_gaps(device: Device, windows: int) -> Scenario:
    """The device waits in 10 to 60 % of each window; some overlap the one before a little."""
    rng = device.rng
    spans: list[Span] = []
    cursor_ns = LEAD_NS + S
    for _ in range(windows):
        length_ns = rng.randint(100 * MS, 2 * S)
        spans.append((cursor_ns, cursor_ns + length_ns))
        cursor_ns += length_ns
        if rng.random() < 0.3:
            cursor_ns -= round(rng.uniform(0.02, 0.2) * length_ns)
        else:
            cursor_ns += rng.randint(400 * MS, 1600 * MS)
    own, busy = [], []
    # Requests of one server draw alike; two of them at a time, twice as much.
    usual_w = device.work_w(device.profile.idle_w + device.range_w / 2.2)
    for span in spans:
        stretches = _stretches(rng, span)
        noise, watts = Noise(rng), usual_w * rng.uniform(0.9, 1.1)
        own.append([piece for one in stretches for piece in power.work(noise, *one, watts)])
        busy += [(*one, 1.0) for one in stretches]
    return device.scenario(spans, own, busy)


def _stretches(rng: random.Random, span: Span) -> list[Span]:
    """When the device works in a window: it waits 1 to 50 ms at a time."""
    at_ns, stop_ns = span
    waits = rng.uniform(0.1, 0.6)
    stretches = []
    while at_ns < stop_ns:
        wait_ns = rng.randint(MS, 50 * MS)
        busy_ns = max(round(wait_ns * (1 - waits) / waits * rng.uniform(0.5, 1.5)), MS)
        stretches.append((at_ns, min(at_ns + busy_ns, stop_ns)))
        at_ns += busy_ns + wait_ns
    return stretches
