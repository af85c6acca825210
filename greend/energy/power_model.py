"""What kinds of work draw, learnt from the steps in which they were done.

An engine's prefill draws more than its decoding, and a step of the counter holds some of
both. Within a step the rest is therefore spread by what is known of each kind; its sum is
the step's own, always.
"""

from collections.abc import Mapping
from math import log2, sqrt

# What is seen of power within a step is never told better than to this (1 σ, relative).
LEAST_VARIATION = 0.12
# Without utilization nobody knows how much of the time the device waited.
UNKNOWN_WAITING = 0.25
# Utilization comes late: a device that begins to work seems to wait.
LEAST_BUSY = 0.4
LEARNING, FORGETTING = 0.3, 0.1
# Kinds of work differ at most by this factor from their step's mean.
MOST_DIFFERENT = 4.0
MOST_KINDS = 16

# What is done at a time: None for windows; iterations that cost a member alike are alike.
Kind = int | None


def kind_of(costs: Mapping[str, float]) -> Kind:
    """Of an iteration: what it costs a member on average, by factors of four."""
    mean = sum(costs.values()) / len(costs)
    return round(log2(mean) / 2) if mean > 0 else None


class PowerModel:
    """What kinds of work draw above the floor, learnt from the steps in which they were done.

    Each step tells of one mixture of kinds (normalised least mean squares).
    """

    def __init__(self) -> None:
        self._rates: dict[Kind, float] = {}
        self._square = 0.0
        # Of the steps lately, the relative variance of work that waits in between.
        self.waiting = 0.0
        self._was_occupied = False

    def factors(
        self, times_ns: Mapping[Kind, int], mean: float, highest: float
    ) -> dict[Kind, float]:
        """By how much the rate of each kind differs from the `mean` of a step of these times.

        None makes a rate of more than `highest`, which is at least the mean.
        """
        if len(times_ns) < 2 or mean <= 0:
            return {}
        known = {
            kind: min(max(self._rates.get(kind, mean) / mean, 1 / MOST_DIFFERENT), MOST_DIFFERENT)
            for kind in times_ns
        }
        total = sum(known[kind] * time_ns for kind, time_ns in times_ns.items())
        scale = sum(times_ns.values()) / total
        factors = {kind: factor * scale for kind, factor in known.items()}
        return factors if max(factors.values()) * mean <= highest else {}

    def learn(
        self, times_ns: Mapping[Kind, int], mean: float, occupied: float, waits: float
    ) -> None:
        """Takes a step's mean rate of the rest, and which fraction of it was occupied."""
        # Else utilization is of another time, too.
        if occupied == 1 and self._was_occupied:
            self.waiting += FORGETTING * (waits - self.waiting)
        self._was_occupied = occupied == 1
        if mean <= 0:
            return
        for kind in times_ns:
            self._rates.setdefault(kind, mean)
        total_ns = sum(times_ns.values())
        parts = {kind: time_ns / total_ns for kind, time_ns in times_ns.items()}
        expected = sum(self._rates[kind] * part for kind, part in parts.items())
        missed = mean - expected
        square = sum(part * part for part in parts.values())
        for kind, part in parts.items():
            rate = self._rates[kind] + LEARNING * occupied * missed * part / square
            self._rates[kind] = max(rate, 0.0)
        self._square += FORGETTING * occupied * ((missed / max(mean, expected)) ** 2 - self._square)
        # Only now: the oldest may be among this step's.
        while len(self._rates) > MOST_KINDS:
            del self._rates[next(iter(self._rates))]

    def variation(self, waiting: float) -> float:
        """How much power varies within a step, relative to the model (1 σ)."""
        return sqrt(LEAST_VARIATION**2 + self._square + waiting)


def waiting(occupied: float, utilization_percent: int | None) -> float:
    """The relative variance of power on a device that works in bursts and waits between them."""
    if utilization_percent is None or not occupied:
        return UNKNOWN_WAITING
    busy = min(max(utilization_percent / 100 / occupied, LEAST_BUSY), 1.0)
    return (1 - busy) / busy
