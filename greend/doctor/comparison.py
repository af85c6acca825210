"""The energy counter against integrated power; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

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
    """Compares; readings without an energy count for the power alone."""
    counted = [
        (reading.monotonic_ns, reading.energy_mj)
        for reading in readings
        if reading.energy_mj is not None
    ]
    # A step lies between two readings: it is taken to be in the middle.
    steps = [
        ((before + after) / 2, energy_mj)
        for (before, last_mj), (after, energy_mj) in pairwise(counted)
        if energy_mj != last_mj
    ]
    powers = [
        (reading.monotonic_ns, reading.power_mw)
        for reading in readings
        if reading.power_mw is not None
    ]
    first_ns, last_ns = (steps[0][0], steps[-1][0]) if steps else (0.0, 0.0)
    end_ns = readings[-1].monotonic_ns if readings else 0
    begin_ns = readings[0].monotonic_ns if readings else 0
    return Comparison(
        counted_j=(steps[-1][1] - steps[0][1]) / 1e3 if steps else 0.0,
        integrated_j=_integral_j(powers, first_ns, last_ns),
        span_s=(last_ns - first_ns) / NS_PER_S,
        steps=len(steps),
        step_s=median(b - a for (a, _), (b, _) in pairwise(steps)) / NS_PER_S
        if len(steps) > 1
        else None,
        still_s=(end_ns - (last_ns if steps else begin_ns)) / NS_PER_S,
        back=any(after < before for (_, before), (_, after) in pairwise(counted)),
        mean_power_w=sum(mw for _, mw in powers) / len(powers) / 1e3 if powers else None,
    )


def _integral_j(powers: Sequence[tuple[int, int]], start_ns: float, stop_ns: float) -> float | None:
    """Power over an interval, each reading holding until the next one."""
    if not powers or powers[0][0] > start_ns:
        return None
    ends = [at_ns for at_ns, _ in powers[1:]] + [max(stop_ns, powers[-1][0])]
    held_mw_ns = sum(
        power_mw * max(min(end_ns, stop_ns) - max(at_ns, start_ns), 0)
        for (at_ns, power_mw), end_ns in zip(powers, ends, strict=True)
    )
    return held_mw_ns / 1e3 / NS_PER_S
