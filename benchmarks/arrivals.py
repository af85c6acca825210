"""Poisson arrivals: power that grows less than the number of open windows does."""

from collections import Counter
from itertools import count, pairwise

from benchmarks import power
from benchmarks.power import Noise, Piece, S, Span
from benchmarks.scenarios import LEAD_NS, TAIL_NS, Device, Make, Scenario, TrueWindow

WARM_NS, COOL_NS = 3 * S, 2 * S


def poisson(open_count: int) -> Make:
    def make(device: Device, windows: int) -> Scenario:
        rng = device.rng
        counted_ns = LEAD_NS + WARM_NS
        end_ns = counted_ns + round(windows / open_count * S) + COOL_NS
        spans: list[Span] = []
        at_ns = LEAD_NS
        while at_ns < end_ns:
            at_ns += round(rng.expovariate(open_count) * S)
            # Lognormal with a mean of 1 s.
            spans.append((at_ns, at_ns + round(rng.lognormvariate(-0.32, 0.8) * S)))
        end_ns = max(stop_ns for _, stop_ns in spans) + TAIL_NS
        half = rng.uniform(0.2, 1.0) * open_count
        drawn = [
            *power.floor(rng, device.profile.idle_w, end_ns),
            *_crowd(Noise(rng), spans, 0.9 * device.range_w, half),
        ]
        script = power.script(drawn)
        shares, idle_j = power.shared_j(power.curve(script), spans, end_ns)
        return Scenario(
            kind=device.kind,
            power=script,
            utilization=power.utilization(rng, [(*span, 1.0) for span in spans], end_ns),
            windows=[
                TrueWindow(
                    f"w{number}", *span, share_j, counted=counted_ns <= span[0] < at_ns - COOL_NS
                )
                for number, span, share_j in zip(count(), spans, shares, strict=False)
            ],
            end_ns=end_ns,
            idle_j=idle_j,
        )

    return make


def _crowd(noise: Noise, spans: list[Span], most_w: float, half: float) -> list[Piece]:
    """What n windows draw above the floor: half of the most where n is `half`."""
    changes: Counter[int] = Counter()
    for start_ns, stop_ns in spans:
        changes[start_ns] += 1
        changes[stop_ns] -= 1
    pieces: list[Piece] = []
    count = 0
    for begin_ns, end_ns in pairwise(sorted(changes)):
        count += changes[begin_ns]
        if count:
            pieces += power.steady(noise, begin_ns, end_ns, most_w * count / (count + half))
    return pieces
