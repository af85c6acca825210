"""Power over time as a sum of linear pieces, so that it is known who caused what of it."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from tests.nvml_double.curve import Curve

MS = 1_000_000
S = 1_000_000_000
NOISE = 0.05
NOISE_HOLDS_NS = (5 * MS, 20 * MS)
RAMP_NS = 2 * MS
DRIFT_W = 3.0
DRIFT_PERIOD_NS = (240 * S, 480 * S)  # it goes by DRIFT_W within half of it
UTILIZATION_PERIOD_NS = 100 * MS

Script = list[tuple[int, float]]
Span = tuple[int, int]


class Piece(NamedTuple):
    """Power from `begin_ns` to `end_ns`, linear between two values."""

    begin_ns: int
    end_ns: int
    begin_w: float
    end_w: float

    @property
    def energy_j(self) -> float:
        return (self.begin_w + self.end_w) / 2 * (self.end_ns - self.begin_ns) / S


class Noise:
    """Factors round 1 (1 sigma: NOISE) of one consumer, a new one each 5 to 20 ms."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._until_ns = 0
        self._factor = 1.0

    def cut(self, begin_ns: int, end_ns: int) -> Iterator[tuple[int, int, float]]:
        """Cuts an interval where the factor changes; intervals come in order of time."""
        while begin_ns < end_ns:
            if begin_ns >= self._until_ns:
                self._until_ns = begin_ns + self._rng.randint(*NOISE_HOLDS_NS)
                self._factor = self._rng.gauss(1.0, NOISE)
            until_ns = min(end_ns, self._until_ns)
            yield begin_ns, until_ns, self._factor
            begin_ns = until_ns


def floor(rng: random.Random, base_w: float, end_ns: int) -> list[Piece]:
    """What an idle device draws from 0 on: it drifts by DRIFT_W over minutes, and has noise."""
    period_ns, phase = rng.uniform(*DRIFT_PERIOD_NS), rng.random()
    pieces = []
    for begin_ns, until_ns, factor in Noise(rng).cut(0, end_ns):
        turns = begin_ns / period_ns + phase
        # A triangle between -1 and 1.
        drift = 4 * abs(turns % 1 - 0.5) - 1
        watts = (base_w + DRIFT_W / 2 * drift) * factor
        pieces.append(Piece(begin_ns, until_ns, watts, watts))
    return pieces


def steady(noise: Noise, begin_ns: int, end_ns: int, watts: float) -> list[Piece]:
    """Power with noise and without ramps."""
    return [
        Piece(since_ns, until_ns, watts * factor, watts * factor)
        for since_ns, until_ns, factor in noise.cut(begin_ns, end_ns)
    ]


def work(noise: Noise, begin_ns: int, end_ns: int, watts: float) -> list[Piece]:
    """Power that rises within RAMP_NS after the begin and falls within RAMP_NS after the end."""
    risen_ns = min(begin_ns + RAMP_NS, end_ns)
    plateau = steady(noise, risen_ns, end_ns, watts)
    low_w, high_w = (plateau[0].begin_w, plateau[-1].end_w) if plateau else (watts, watts)
    rise = Piece(begin_ns, risen_ns, 0.0, low_w)
    return [rise, *plateau, Piece(end_ns, end_ns + RAMP_NS, high_w, 0.0)]


def energy_j(pieces: Iterable[Piece]) -> float:
    return sum(piece.energy_j for piece in pieces)


def script(pieces: Iterable[Piece]) -> Script:
    """The sum of pieces as points, linear between; two points at one instant are a jump.

    It begins with the first piece; the last power holds on.
    """
    jumps: defaultdict[int, float] = defaultdict(float)
    bends: defaultdict[int, float] = defaultdict(float)
    for begin_ns, end_ns, begin_w, end_w in pieces:
        slope = (end_w - begin_w) / (end_ns - begin_ns)
        jumps[begin_ns] += begin_w
        jumps[end_ns] -= end_w
        bends[begin_ns] += slope
        bends[end_ns] -= slope
    points: Script = []
    watts = slope = 0.0
    last_ns = min(jumps)
    for at_ns in sorted(jumps):
        watts += slope * (at_ns - last_ns)
        points.append((at_ns, max(watts, 0.0)))
        watts += jumps[at_ns]
        slope += bends[at_ns]
        points.append((at_ns, max(watts, 0.0)))
        last_ns = at_ns
    return points[1:-1]


def curve(points: Script) -> Curve:
    """A script as the double computes it."""
    _, corners = Curve([], 0).continued([(at_ns, round(watts * 1e6)) for at_ns, watts in points])
    return Curve(corners, 0)


def between_j(drawn: Curve, begin_ns: int, end_ns: int) -> float:
    return (drawn.energy2(end_ns) - drawn.energy2(begin_ns)) / 2e15


def shared_j(drawn: Curve, spans: Sequence[Span], end_ns: int) -> tuple[list[float], float]:
    """What each span gets if those that are open share the power equally at each instant.

    Also what is left over from 0 to `end_ns`, as none is open.
    """
    changes: Counter[int] = Counter({0: 0, end_ns: 0})
    for start_ns, stop_ns in spans:
        changes[start_ns] += 1
        changes[stop_ns] -= 1
    count, each_j, nobody_j = 0, 0.0, 0.0
    so_far_j = {0: 0.0}
    for begin_ns, until_ns in pairwise(sorted(changes)):
        count += changes[begin_ns]
        piece_j = between_j(drawn, begin_ns, until_ns)
        if count:
            each_j += piece_j / count
        else:
            nobody_j += piece_j
        so_far_j[until_ns] = each_j
    return [so_far_j[stop_ns] - so_far_j[start_ns] for start_ns, stop_ns in spans], nobody_j


def utilization(
    rng: random.Random, busy: Iterable[tuple[int, int, float]], end_ns: int
) -> list[tuple[int, int]]:
    """What a driver tells: of each 100 ms, after them, which part kernels ran in, in percent.

    `busy` are times (begin, end, part) in which something runs; they may overlap.
    """
    duties = [Piece(0, end_ns, 0.0, 0.0)]
    duties += [Piece(begin_ns, until_ns, part, part) for begin_ns, until_ns, part in busy]
    # The parts of overlapping times do not sum to more than all the time.
    duty = curve([(at_ns, min(part, 1.0)) for at_ns, part in script(duties)])
    steps: list[tuple[int, int]] = [(0, 0)]
    for at_ns in range(rng.randrange(UTILIZATION_PERIOD_NS), end_ns, UTILIZATION_PERIOD_NS):
        ran_ns = between_j(duty, at_ns - UTILIZATION_PERIOD_NS, at_ns) * S
        percent = round(100 * ran_ns / UTILIZATION_PERIOD_NS)
        if percent != steps[-1][1]:
            steps.append((at_ns, percent))
    return steps
