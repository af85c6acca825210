"""What the pictures of docs/attribution.md show, measured in virtual time."""

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks import classes, power
from benchmarks.classes import Class
from benchmarks.power import MS, Noise, Piece, S, Span
from benchmarks.scenarios import LEAD_NS, TAIL_NS, Device, Scenario, TrueWindow, isolated
from benchmarks.virtual import Play, VirtualDevice, play

LENGTHS_NS = [length * unit for unit in (10 * MS, 100 * MS, S) for length in (1, 2, 5)] + [10 * S]
LENGTH_DEVICES = 8
BOUND_CLASSES = ("isolated", "poisson-8", "engine", "untracked", "bursts", "host-gaps")
BOUND_DEVICES = 8

# By length of windows: |error| by greend and by reading the counter at start and stop.
Lengths = dict[int, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Course:
    """A second of one device: power over ms, true and as greend shapes it; the counter's
    steps with their mean power; windows with their true energy and greend's, in J."""

    true_w: list[tuple[float, float]]
    shaped_w: list[tuple[float, float]]
    counted_w: list[tuple[float, float, float]]
    windows: list[tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Group:
    """Windows that overlap, and what is told of each, in J."""

    spans_ms: list[tuple[float, float]]
    true_j: list[float]
    greend_j: list[float]
    boundary_j: list[float]
    split_j: list[float]


def course(seed: int) -> Course:
    device = Device("a100", random.Random(f"{seed} course"))
    begin_ns, end_ns, probe_ns = LEAD_NS, LEAD_NS + 900 * MS, 2 * MS
    spans = [
        (LEAD_NS + begin_ms * MS, LEAD_NS + end_ms * MS)
        for begin_ms, end_ms in ((60, 90), (170, 320), (375, 655), (520, 700), (770, 780))
    ]
    # Works that overlap draw alike.
    watts = (190.0, 230.0, 140.0, 140.0, 250.0)
    own = [
        power.work(Noise(device.rng), *span, of_window)
        for span, of_window in zip(spans, watts, strict=True)
    ]
    scenario = device.scenario(spans, own, [(*span, 1.0) for span in spans])
    device_seed = f"{seed} course device"
    played = Play(scenario, device_seed)
    played.run()

    # An iteration-driven window outside iterations changes nothing, and is told what the
    # whole device used meanwhile.
    probes = [
        TrueWindow(f"probe-{at_ns}", at_ns, at_ns + probe_ns, 0.0, iteration_driven=True)
        for at_ns in range(begin_ns, end_ns, probe_ns)
    ]
    probed = Play(replace(scenario, windows=[*scenario.windows, *probes]), device_seed)
    probed.run()
    drawn = power.curve(scenario.power)
    return Course(
        true_w=[
            (_ms(at_ns), drawn.power_uw(at_ns) / 1e6) for at_ns in range(begin_ns, end_ns, MS // 5)
        ],
        shaped_w=[
            (_ms(probe.start_ns), probed.shares[probe.name].device_mj * 1e6 / probe_ns)
            for probe in probes
        ],
        counted_w=list(_counted(VirtualDevice(scenario, random.Random(device_seed)))),
        windows=[
            (
                _ms(one.start_ns),
                _ms(one.stop_ns),
                one.truth_j,
                played.shares[one.name].own_mj / 1e3,
            )
            for one in scenario.windows
        ],
    )


def _ms(at_ns: int) -> float:
    return (at_ns - LEAD_NS) / MS


def _counted(device: VirtualDevice) -> Iterator[tuple[float, float, float]]:
    """The steps of the counter round the second, with their mean power."""
    steps: list[tuple[int, int]] = []
    for at_ns in range(LEAD_NS - 200 * MS, LEAD_NS + 1100 * MS, MS // 5):
        energy_mj = device.sample(at_ns).energy_mj
        assert energy_mj is not None
        if not steps or energy_mj != steps[-1][1]:
            steps.append((at_ns, energy_mj))
    for (begin_ns, before_mj), (end_ns, after_mj) in pairwise(steps[1:]):
        yield _ms(begin_ns), _ms(end_ns), (after_mj - before_mj) * 1e6 / (end_ns - begin_ns)


def boundary_j(scenario: Scenario, device_seed: str) -> dict[str, float]:
    """What the counter advanced by between start and stop, by window."""
    device = VirtualDevice(scenario, random.Random(device_seed))
    instants = {at_ns for one in scenario.windows for at_ns in (one.start_ns, one.stop_ns)}
    counted_mj = {at_ns: device.sample(at_ns).energy_mj or 0 for at_ns in sorted(instants)}
    return {
        one.name: (counted_mj[one.stop_ns] - counted_mj[one.start_ns]) / 1e3
        for one in scenario.windows
    }


def lengths(seed: int) -> Lengths:
    found: Lengths = {}
    with ProcessPoolExecutor() as pool:
        for length_ns in LENGTHS_NS:
            errors = pool.map(
                _length_errors,
                [length_ns] * LENGTH_DEVICES,
                [seed] * LENGTH_DEVICES,
                range(LENGTH_DEVICES),
            )
            found[length_ns] = [pair for of_device in errors for pair in of_device]
    return found


def _length_errors(length_ns: int, seed: int, number: int) -> list[tuple[float, float]]:
    kind = Class(f"isolated-{length_ns // MS}ms", isolated(length_ns), 0.0)
    scenario = kind.scenario(seed, number)
    device_seed = f"{seed} {kind.name} {number} device"
    read_j = boundary_j(scenario, device_seed)
    cases, _ = play(scenario, device_seed)
    return [
        (abs(case.error), abs(read_j[one.name] / one.truth_j - 1))
        for one, case in zip(scenario.windows, cases, strict=True)
    ]


def group(seed: int) -> Group:
    """Eight windows whose power grows less than their number does."""
    rng = random.Random(f"{seed} group")
    device = Device("a100", rng)
    spans = []
    for _ in range(8):
        start_ns = LEAD_NS + rng.randrange(S)
        spans.append((start_ns, start_ns + round(rng.lognormvariate(-0.9, 0.7) * S)))
    spans.sort()
    end_ns = max(stop_ns for _, stop_ns in spans) + TAIL_NS
    drawn = [*power.floor(rng, device.profile.idle_w, end_ns), *_crowd(rng, device, spans)]
    script = power.script(drawn)
    shares_j, idle_j = power.shared_j(power.curve(script), spans, end_ns)
    windows = [
        TrueWindow(f"w{number}", *span, share_j)
        for number, (span, share_j) in enumerate(zip(spans, shares_j, strict=True))
    ]
    busy = [(*span, 1.0) for span in spans]
    scenario = Scenario(
        kind=device.kind,
        power=script,
        utilization=power.utilization(rng, busy, end_ns),
        windows=windows,
        end_ns=end_ns,
        idle_j=idle_j,
    )
    device_seed = f"{seed} group device"
    whole = TrueWindow("whole", spans[0][0], max(stop_ns for _, stop_ns in spans), 0.0)
    read_j = boundary_j(replace(scenario, windows=[*windows, whole]), device_seed)
    played = Play(scenario, device_seed)
    played.run()
    return Group(
        spans_ms=[(_ms(start_ns), _ms(stop_ns)) for start_ns, stop_ns in spans],
        true_j=shares_j,
        greend_j=[played.shares[one.name].own_mj / 1e3 for one in windows],
        boundary_j=[read_j[one.name] for one in windows],
        split_j=[read_j[whole.name] / len(windows)] * len(windows),
    )


def _crowd(rng: random.Random, device: Device, spans: Sequence[Span]) -> Iterator[Piece]:
    """What n windows draw above the floor: half of the most where n is 3."""
    noise = Noise(rng)
    for begin_ns, end_ns in pairwise(sorted({at_ns for span in spans for at_ns in span})):
        count = sum(start_ns <= begin_ns < stop_ns for start_ns, stop_ns in spans)
        watts = 0.9 * device.range_w * count / (count + 3)
        if count:
            yield from power.steady(noise, begin_ns, end_ns, watts)


def bounds(seed: int) -> Mapping[str, list[tuple[float, float]]]:
    """By class: what `uncertainty_j` and the error are, each over the true energy."""
    found = {}
    with ProcessPoolExecutor() as pool:
        for name in BOUND_CLASSES:
            kinds = [kind.name for kind in classes.named([name])]
            jobs = [
                pool.submit(_bounds_of, kind, seed, number)
                for kind in kinds
                for number in range(max(BOUND_DEVICES // len(kinds), 2))
            ]
            found[name] = [pair for job in jobs for pair in job.result()]
    return found


def _bounds_of(name: str, seed: int, number: int) -> list[tuple[float, float]]:
    (kind,) = classes.named([name])
    cases, _ = play(kind.scenario(seed, number), f"{seed} {name} {number} device")
    return [((case.bound_j or 0.0) / case.truth_j, abs(case.error)) for case in cases]
