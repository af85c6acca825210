"""How far a step's energy may be misplaced within it and at its ends (DESIGN.md, rule 10).

Everything is relative to one unit of a step's rest: a claimant that got the fraction f of
it has f times these errors. Variances are in mJ².
"""

from dataclasses import dataclass

from greend.energy.claims import Claimant
from greend.energy.running import Mark, RunningSums


@dataclass(frozen=True, slots=True)
class StepErrors:
    """What is uncertain of one step.

    `edge_mj` are the energies (1 σ) that may lie on the wrong side of its begin and its
    end; `placing_mj` how far the power of a part of its occupied time may be from the mean,
    for all of that time; `splitting_mj` how far those who share it may be from equal claims
    to it; `noise_mj` that of the floor and of the sensor over the step;
    `idle_noise_mj` that of the floor over the time that is not occupied.
    """

    edge_mj: tuple[float, float]
    placing_mj: float
    splitting_mj: float
    noise_mj: float
    idle_noise_mj: float


@dataclass(slots=True)
class _Spread:
    """How the claim of a unit of weight varies over a step, from its pieces."""

    shared_ns: float = 0.0
    squares: float = 0.0
    by_weight: float = 0.0
    by_weight_squares: float = 0.0

    def add(self, length_ns: int, rest_weight: int, claimants: int) -> None:
        """A piece of occupied time."""
        self.shared_ns += length_ns * (1 - 1 / claimants)
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
        self._total = 0.0
        # For those whose parts of what is shared are not told by costs.
        self._split_total = 0.0
        self._shared = 0.0
        self._spread = _Spread()
        self._fraction = 0.0
        self._last_fraction = 0.0
        self._occupied_ns = 0
        self._errors = StepErrors((0.0, 0.0), 0.0, 0.0, 0.0, 0.0)

    @property
    def totals(self) -> tuple[float, float]:
        """The sum, and the part of it that not all have."""
        return self._total, self._split_total

    def total_of(self, claimant: Claimant) -> float:
        """The sum for a claimant."""
        return self._total + (self._split_total if claimant.kind is None else 0.0)

    def add_piece(self, length_ns: int, rest_weight: int, claimants: int) -> None:
        """A piece of occupied time of the step that goes on."""
        self._spread.add(length_ns, rest_weight, claimants)

    def end_step(self, sums: RunningSums, errors: StepErrors) -> None:
        """What is uncertain of the step is known; the sum follows with `next_step`."""
        self._errors = errors
        self._occupied_ns = sums.occupied_ns
        self._last_fraction = self._fraction
        self._fraction = self._shared = 0.0
        if sums.occupied_ns:
            self._fraction = sums.rest_time / sums.occupied_ns
            self._shared = self._spread.shared_ns / sums.occupied_ns

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
        if claimant.kind is None:
            variance += (errors.splitting_mj * fraction * self._shared) ** 2
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
            self._split_total += (fraction * self._shared * errors.splitting_mj) ** 2
            self._total += variance + errors.placing_mj**2 * self._spread.relative(
                self._occupied_ns, fraction
            )
        self._spread = _Spread()
