"""How far a step's energy may be misplaced within it and at its ends (DESIGN.md, rule 10).

Everything is relative to one unit of a step's rest: a claimant that got the fraction f of
it has f times these errors. Variances are in mJ².
"""

from dataclasses import dataclass
from math import sqrt

from greend.energy.claims import Claimant
from greend.energy.running import Mark, RunningSums

# Work that nobody measures comes in bursts of several steps.
BURST_STEPS = 5.0
# Power varies by so much from part to part of a step, whatever is seen of it (1 σ, relative).
LEAST_VARIATION = 0.05
# Without utilization nobody knows how much of the time the device waited.
UNKNOWN_WAITING = 0.25
FORGETTING = 0.1


class PowerVariation:
    """How much the power of work varies, relative to its mean; learnt from step to step."""

    def __init__(self) -> None:
        self._last = 0.0
        self._square = 0.0

    def add(self, rest: float, occupied: float) -> None:
        """Takes a step's rest as a rate, and which fraction of it was occupied."""
        if rest <= 0 or self._last <= 0:
            self._last = rest
            return
        change = (rest - self._last) / max(rest, self._last)
        self._square += FORGETTING * occupied * (change * change / 2 - self._square)
        self._last = rest

    def relative(self, occupied: float, utilization_percent: int | None) -> float:
        """The standard deviation within a step; a device that waits works in bursts."""
        waiting = UNKNOWN_WAITING
        if utilization_percent is not None and occupied:
            busy = min(max(utilization_percent / 100 / occupied, 0.01), 1.0)
            waiting = (1 - busy) / busy
        return sqrt(LEAST_VARIATION**2 + self._square + waiting)


@dataclass(frozen=True, slots=True)
class StepErrors:
    """What is uncertain of one step.

    `edge_mj` are the energies (1 σ) that may lie on the wrong side of its begin and its
    end; `placing_mj` how far the power of a part of its occupied time may be from the mean,
    for all of that time; `noise_mj` that of the floor and of the sensor over the step;
    `idle_noise_mj` that of the floor over the time that is not occupied.
    """

    edge_mj: tuple[float, float]
    placing_mj: float
    noise_mj: float
    idle_noise_mj: float


@dataclass(slots=True)
class _Spread:
    """How the claim of a unit of weight varies over a step, from its pieces."""

    squares: float = 0.0
    by_weight: float = 0.0
    by_weight_squares: float = 0.0

    def add(self, length_ns: int, rest_weight: int) -> None:
        """A piece of occupied time."""
        claim = length_ns / rest_weight
        self.squares += length_ns * length_ns
        self.by_weight += length_ns * claim
        self.by_weight_squares += claim * claim

    def relative(self, occupied_ns: int, fraction: float) -> float:
        """The variance of a unit's claim round its mean `fraction`, were all pieces independent."""
        about = self.by_weight_squares - 2 * fraction * self.by_weight
        return max(about + fraction * fraction * self.squares, 0.0) / occupied_ns**2


class PlacingErrors:
    """Sums, per squared unit of weight, what claimants that are there all of a step may be off."""

    def __init__(self) -> None:
        self.total = 0.0
        self._spread = _Spread()
        self._fraction = 0.0
        self._last_fraction = 0.0
        self._occupied_ns = 0
        self._errors = StepErrors((0.0, 0.0), 0.0, 0.0, 0.0)

    def add_piece(self, length_ns: int, rest_weight: int) -> None:
        """A piece of occupied time of the step that goes on."""
        self._spread.add(length_ns, rest_weight)

    def end_step(self, sums: RunningSums, errors: StepErrors) -> None:
        """What is uncertain of the step is known; `total` follows with `next_step`."""
        self._errors = errors
        self._occupied_ns = sums.occupied_ns
        self._last_fraction = self._fraction
        self._fraction = sums.rest_time / sums.occupied_ns if sums.occupied_ns else 0.0

    def of_part(self, claimant: Claimant, until: Mark, *, ended: bool) -> float:
        """The variance of a claimant that was there for a part of this step."""
        fresh = claimant.variance_since is None
        begun_time, begun_ns = 0.0, 0
        if fresh:
            begun_time, begun_ns = claimant.begun.rest_time, claimant.begun.occupied_ns
        time = until.rest_time - begun_time
        if not self._occupied_ns or time <= 0:
            return 0.0
        fraction = claimant.weight * time / self._occupied_ns
        covered = min((until.occupied_ns - begun_ns) / self._occupied_ns, 1.0)
        # What it would have got, had it been there all the time.
        lacking = fraction / covered - fraction
        errors = self._errors
        variance = (errors.edge_mj[0] * (fraction if fresh else lacking)) ** 2
        variance += (errors.edge_mj[1] * (fraction if ended else lacking)) ** 2
        variance += (errors.placing_mj * fraction * (1 - covered)) ** 2
        return variance + (fraction * errors.noise_mj) ** 2 + (fraction * errors.idle_noise_mj) ** 2

    def of_cut(self, fraction: float, here: Mark) -> float:
        """The variance of what lies before and after an instant, of a claim to `fraction`."""
        if not self._occupied_ns:
            return 0.0
        before = here.occupied_ns / self._occupied_ns
        errors = self._errors
        variance = (errors.edge_mj[0] * fraction * (1 - before)) ** 2
        variance += (errors.edge_mj[1] * fraction * before) ** 2
        return variance + (errors.placing_mj * fraction * before * (1 - before)) ** 2

    def next_step(self) -> None:
        """Adds what those that were there all the time may be off."""
        if self._occupied_ns:
            errors, fraction = self._errors, self._fraction
            variance = (errors.edge_mj[0] * (fraction - self._last_fraction)) ** 2
            variance += (fraction * errors.noise_mj) ** 2
            self.total += variance + errors.placing_mj**2 * self._spread.relative(
                self._occupied_ns, fraction
            )
        self._spread = _Spread()

    def clear(self) -> None:
        """Starts the sum anew."""
        self.total = 0.0
