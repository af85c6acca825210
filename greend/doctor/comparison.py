"""The energy counter against integrated power; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from greend.doctor.answers import Reading
from greend.model import NS_PER_S


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both energies between the first and the last step of the counter that were seen.

    `step_s` is the usual time between steps (None: fewer than two), `still_s` the time
    since the last one, `back` whether the counter ever fell.
    """

    counted_j: float
    integrated_j: float | None
    span_s: float
    steps: int
    step_s: float | None
    still_s: float
    back: bool
    mean_power_w: float | None

    @property
    def residual(self) -> float | None:
        """How much more was counted than integrated, relative to the latter."""
        if not self.integrated_j:
            return None
        return self.counted_j / self.integrated_j - 1


def compare(readings: Sequence[Reading]) -> Comparison:
    """Compares at least one reading; any may lack its energy or its power."""
    energies = [(r.monotonic_ns, r.energy_mj) for r in readings if r.energy_mj is not None]
    powers = [(r.monotonic_ns, r.power_mw) for r in readings if r.power_mw is not None]
    # A step lies between two readings: it is taken to be in the middle.
    steps = [
        ((before_ns + after_ns) / 2, after_mj)
        for (before_ns, before_mj), (after_ns, after_mj) in pairwise(energies)
        if after_mj != before_mj
    ]
    begin_ns, end_ns = readings[0].monotonic_ns, readings[-1].monotonic_ns
    first_ns, first_mj = steps[0] if steps else (begin_ns, 0)
    last_ns, last_mj = steps[-1] if steps else (begin_ns, 0)
    lengths_ns = [after_ns - before_ns for (before_ns, _), (after_ns, _) in pairwise(steps)]
    return Comparison(
        counted_j=(last_mj - first_mj) / 1e3,
        integrated_j=_integral_j(powers, first_ns, last_ns),
        span_s=(last_ns - first_ns) / NS_PER_S,
        steps=len(steps),
        step_s=median(lengths_ns) / NS_PER_S if lengths_ns else None,
        still_s=(end_ns - last_ns) / NS_PER_S,
        back=any(after_mj < before_mj for (_, before_mj), (_, after_mj) in pairwise(energies)),
        mean_power_w=fmean(power_mw for _, power_mw in powers) / 1e3 if powers else None,
    )


def _integral_j(powers: Sequence[tuple[int, int]], start_ns: float, stop_ns: float) -> float | None:
    """Power over an interval, each reading holding until the next one."""
    if not powers or powers[0][0] > start_ns:
        return None
    ends_ns = [*(at_ns for at_ns, _ in powers[1:]), max(stop_ns, powers[-1][0])]
    held_mw_ns = sum(
        power_mw * max(min(end_ns, stop_ns) - max(at_ns, start_ns), 0)
        for (at_ns, power_mw), end_ns in zip(powers, ends_ns, strict=True)
    )
    return held_mw_ns / 1e3 / NS_PER_S
