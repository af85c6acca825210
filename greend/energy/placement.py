"""What a step's times are worth, and what is uncertain of that (DESIGN.md, rules 3 and 10)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from greend.energy.floor import Estimate
from greend.energy.placing import StepErrors
from greend.energy.power_model import Kind, PowerModel, waiting
from greend.energy.running import Rates
from greend.energy.shaping import Shape, mw_to_rate
from greend.energy.timeline import Step

# Work that nobody measures comes in bursts of several steps.
BURST_STEPS = 5.0
# Who waits more than others does so for several steps.
UNEQUAL_STEPS = 6.0


@dataclass(frozen=True, slots=True)
class Placement:
    """A step that was shaped, with what it was shaped by."""

    step: Step
    shape: Shape
    floor: Estimate | None
    background: Estimate
    occupied_ns: int
    # All that occupied it were iterations.
    by_iterations: bool = False

    @property
    def occupied(self) -> float:
        """Which fraction of the step was occupied."""
        return self.occupied_ns / self.step.duration_ns

    @property
    def waiting(self) -> float:
        """The relative variance of its power by waiting."""
        return waiting(self.occupied, self.step.utilization_percent)

    def rates(self, factors: Mapping[Kind, float]) -> Rates:
        """What its times are worth; the rest by `factors` for kinds of work."""
        shape, occupied = self.shape, self.occupied
        # Without a floor the whole step may have been used by those who were there.
        floor_error = shape.floor if self.floor is None else mw_to_rate(self.floor.error)
        # The sum of floor and background was measured: one's error is the other's.
        above_error = 0.0 if self.background.value else floor_error
        other_error = mw_to_rate(self.background.error) / occupied if occupied else 0.0
        if self.step.recovered:
            # Who worked in the rest of the time may have been lost, and never tell.
            other_error += shape.rest * (1 - occupied)
        return Rates(
            floor=shape.floor,
            rest=shape.rest,
            device=shape.floor + shape.unattributed,
            floor_error=floor_error,
            rest_error=above_error / occupied if occupied else 0.0,
            other_error=other_error,
            sm_clock_mhz=self.step.sm_clock_mhz,
            factors=factors,
        )

    def errors(self, model: PowerModel, *, at_begin: bool, at_end: bool) -> StepErrors:
        """What is uncertain, given whether the device was occupied at the step's ends."""
        step, shape = self.step, self.shape
        idle = shape.floor + shape.background
        working = idle + shape.rest
        rest_mj = shape.rest * self.occupied_ns
        scatter = 0.0 if self.floor is None else mw_to_rate(self.floor.scatter)
        bursts_mj = sqrt(BURST_STEPS) * mw_to_rate(self.background.scatter) * step.duration_ns
        unequal = sqrt(UNEQUAL_STEPS * max(self.waiting, model.waiting))
        return StepErrors(
            edge_mj=(
                step.start_error_ns * (working if at_begin else idle),
                step.end_error_ns * (working if at_end else idle),
            ),
            # Outside iterations their windows claim nothing: who waits is known.
            placing_mj=model.variation(0.0 if self.by_iterations else self.waiting) * rest_mj,
            splitting_mj=unequal * rest_mj,
            noise_mj=sqrt(bursts_mj**2 + step.noise_mj**2),
            idle_noise_mj=scatter * step.duration_ns * sqrt(max(1 - self.occupied, 0.0)),
        )


def unplaced(last_mean: float) -> Rates:
    """Of a step whose energy is in no window: each may lack what was drawn before, in mJ/ns."""
    return Rates(floor=0.0, rest=0.0, device=0.0, other_error=last_mean)
