"""The running sums of one device: what a unit of weight has got since they began.

Within a step only times are summed, as what they are worth is known when the step
ends: the rest of its energy is spread over the time that was occupied.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from greend.energy.power_model import Kind
from greend.energy.summation import CompensatedSum, State


@dataclass(frozen=True, slots=True)
class Rates:
    """What times of a step are worth, in mJ/ns; the errors are 95 % bounds.

    `floor` and `rest` as in `Shape`, the rest by `factors` for the kinds of work done;
    `device` is all but the rest; `floor_error` is what the floor may be off by,
    `rest_error` what the rest is then off by, the other way round; `other_error` what
    else the rest may be off by.
    """

    floor: float
    rest: float
    device: float
    floor_error: float = 0.0
    rest_error: float = 0.0
    other_error: float = 0.0
    sm_clock_mhz: float | None = None
    factors: Mapping[Kind, float] = field(default_factory=dict)


class Mark(msgspec.Struct, gc=False, array_like=True):
    """An instant: where in its step it is, and the sums, which hold when the step has ended.

    `pieces` are those of the step that were over, `rest_time` is ns per unit of weight;
    `floor` and `rest` are mJ per unit.
    """

    pieces: int
    elapsed_ns: int
    occupied_ns: int
    rest_time: float
    floor: State = (0.0, 0.0)
    rest: State = (0.0, 0.0)
    floor_error_mj: float = 0.0
    rest_error_mj: float = 0.0
    other_error_mj: float = 0.0
    # Of the device, whoever is open: all but the rest, and the rest.
    device_mj: float = 0.0
    work_mj: float = 0.0
    clock_mhz_ns: float = 0.0
    clock_ns: float = 0.0


class RunningSums:
    """Sums since they began, and times since the step began."""

    def __init__(self) -> None:
        self._floor = CompensatedSum()
        self._rest = CompensatedSum()
        self._floor_error_mj = self._rest_error_mj = self._other_error_mj = 0.0
        self._device_mj = self._work_mj = self._clock_mhz_ns = self._clock_ns = 0.0
        # Of the step that goes on: lengths and times of a unit of weight.
        self._pieces: list[tuple[int, float, float, Kind]] = []
        self._marks: list[Mark] = []
        self.elapsed_ns = 0
        self.occupied_ns = 0
        self.rest_time = 0.0
        self.times_ns: Counter[Kind] = Counter()
        # Between two steps: where everything stands.
        self.now = self._mark()

    def advance(
        self, length_ns: int, floor_weight: int, rest_weight: int, kind: Kind = None
    ) -> None:
        """Time passes; whoever is open claims by weight, work of a kind is done."""
        floor_time = length_ns / floor_weight if floor_weight else 0.0
        rest_time = length_ns / rest_weight if rest_weight else 0.0
        self._pieces.append((length_ns, floor_time, rest_time, kind))
        self.elapsed_ns += length_ns
        self.rest_time += rest_time
        if rest_weight:
            self.occupied_ns += length_ns
            self.times_ns[kind] += length_ns

    def here(self) -> Mark:
        """This instant. One mark is enough for all that happens at one instant."""
        if not self._marks or self._marks[-1].pieces != len(self._pieces):
            self._marks.append(self._mark())
        return self._marks[-1]

    def end_step(self, rates: Rates) -> None:
        """What the step's times are worth is known: all marks hold now."""
        ended, marks = self.here(), iter(self._marks)
        mark = next(marks)
        factors = rates.factors
        for place, (length_ns, floor_time, rest_time, kind) in enumerate(self._pieces):
            if mark.pieces == place:
                self._settle(mark)
                mark = next(marks)
            rest = rates.rest * factors.get(kind, 1.0) if factors else rates.rest
            self._add(rates, rest, length_ns, floor_time, rest_time)
        self._settle(ended)
        self.now = ended
        self._pieces.clear()
        self._marks.clear()
        self.times_ns.clear()
        self.elapsed_ns = self.occupied_ns = 0
        self.rest_time = 0.0

    def _mark(self) -> Mark:
        return Mark(len(self._pieces), self.elapsed_ns, self.occupied_ns, self.rest_time)

    def _add(
        self, rates: Rates, rest: float, length_ns: int, floor_time: float, rest_time: float
    ) -> None:
        # Piece by piece: a product with their sum would round small shares away.
        if floor_time:
            self._floor.add(rates.floor * floor_time)
            self._floor_error_mj += rates.floor_error * floor_time
        if rest_time:
            self._rest.add(rest * rest_time)
            self._rest_error_mj += rates.rest_error * rest_time
            self._other_error_mj += rates.other_error * rest_time
            self._work_mj += rest * length_ns
        self._device_mj += rates.device * length_ns
        if rates.sm_clock_mhz is not None:
            self._clock_mhz_ns += rates.sm_clock_mhz * length_ns
            self._clock_ns += length_ns

    def _settle(self, mark: Mark) -> None:
        mark.floor, mark.rest = self._floor.state, self._rest.state
        mark.floor_error_mj = self._floor_error_mj
        mark.rest_error_mj = self._rest_error_mj
        mark.other_error_mj = self._other_error_mj
        mark.device_mj, mark.work_mj = self._device_mj, self._work_mj
        mark.clock_mhz_ns, mark.clock_ns = self._clock_mhz_ns, self._clock_ns
