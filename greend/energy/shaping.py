"""Where within one step its energy was used (DESIGN.md, rule 3)."""

from dataclasses import dataclass
from math import inf

from greend.energy.timeline import Step

# A device draws at most its enforced limit, and a little more in transients.
LIMIT_MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Shape:
    """One step's energy as rates in mJ/ns, constant over the step.

    `floor` and `background` hold over the whole step, `rest` over its occupied
    time, `remainder` (what nobody can have drawn while occupied) over the whole;
    `highest` is the most that the rest can be.
    """

    floor: float
    background: float
    rest: float
    remainder: float
    highest: float = inf

    @property
    def unattributed(self) -> float:
        """Work that no window covers."""
        return self.background + self.remainder


def shape(
    step: Step, energy_mj: float, occupied_ns: int, floor_mw: float | None, background_mw: float
) -> Shape:
    """Splits a step's energy: the floor, the background, the rest while occupied, the remainder.

    Without a floor nothing tells the rest from it: all is spread evenly.
    """
    duration_ns = step.duration_ns
    mean = energy_mj / duration_ns
    if floor_mw is None:
        return Shape(mean, 0.0, 0.0, 0.0)
    floor = min(mw_to_rate(floor_mw), mean)
    background = min(mw_to_rate(background_mw), mean - floor)
    above_mj = energy_mj - (floor + background) * duration_ns
    highest = inf
    if step.power_limit_mw is not None:
        limit = mw_to_rate(step.power_limit_mw) * LIMIT_MARGIN
        highest = max(limit - floor - background, 0.0)
    rest = 0.0
    if occupied_ns and above_mj > 0:
        rest = min(above_mj / occupied_ns, highest)
    remainder = max(above_mj - rest * occupied_ns, 0.0) / duration_ns
    return Shape(floor, background, rest, remainder, highest)


def mw_to_rate(power_mw: float) -> float:
    """mW as mJ/ns."""
    return power_mw / 1e9
