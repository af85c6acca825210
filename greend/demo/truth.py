"""What requests truly cost: a fair split of the simulator's exact energy. Pure.

Between two changes of who runs on a GPU, everyone there has an equal share of
the energy drawn. greend has to reproduce this from a counter that advances
every 100 ms.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """From when to when a request ran; all instants of a GPU on one clock."""

    start_ns: int
    stop_ns: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time in which the same requests ran."""

    start_ns: int
    stop_ns: int
    members: frozenset[str]


def pieces(intervals: Mapping[str, Interval]) -> Sequence[Piece]:
    """The occupied time of one GPU, cut at every start and stop; idle time is left out."""
    cuts = sorted({ns for span in intervals.values() for ns in (span.start_ns, span.stop_ns)})
    found = []
    for start_ns, stop_ns in itertools.pairwise(cuts):
        members = frozenset(
            name
            for name, span in intervals.items()
            if span.start_ns <= start_ns and stop_ns <= span.stop_ns
        )
        if members:
            found.append(Piece(start_ns, stop_ns, members))
    return found


def fair_shares(
    spans: Iterable[Piece], energy_j: Callable[[int, int], float]
) -> Mapping[str, float]:
    """Joules by request: each piece's energy split equally among its members."""
    parts: dict[str, list[float]] = {}
    for piece in spans:
        part_j = energy_j(piece.start_ns, piece.stop_ns) / len(piece.members)
        for member in piece.members:
            parts.setdefault(member, []).append(part_j)
    return {member: math.fsum(parts_j) for member, parts_j in parts.items()}
