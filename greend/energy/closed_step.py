"""A step after it was closed: what late events need of it (DESIGN.md, rule 9).

Ten minutes of steps of eight devices are kept. As objects of 1 kB each they would take
half as much memory as all the rest of the daemon, so they are packed into bytes.
"""

import struct
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from greend.model import NS_PER_S, Flag, Source

# Late events reach back so far.
KEPT_NS = 600 * NS_PER_S
MOST_PIECES = 64

# What can be true of a step, and so of the windows that saw it.
FACTS: tuple[Flag | Source, ...] = (
    Flag.GAP,
    Flag.COUNTER_RESET,
    Flag.FLOOR_UNKNOWN,
    Flag.SHARED_WITH_UNTRACKED,
    Source.ENERGY_COUNTER,
    Source.POWER,
    Flag.RECOVERED,
)

# Start, length, minute, floor, device, unattributed, power limit, SM clock, then the
# places of the facts in FACTS and the number of idle times.
_HEAD = struct.Struct("<qIIdddidBB")
# Begin and end, from the start of the step.
_TIME = struct.Struct("<II")
# The same, floor, rest, windows that are open.
_PIECE = struct.Struct("<IIddH")
_SPAN = struct.Struct("<qI")
_LONGEST_NS = 2**32 - 1
_MOST = 255
_MOST_OPEN = 2**16 - 1
_NOT_KNOWN = -1


class Piece(NamedTuple):
    """A part of a step in which nobody started or stopped.

    `floor` and `rest` are what one unit of weight got, in mJ/ns.
    """

    begin_ns: int
    end_ns: int
    floor: float
    rest: float
    open_count: int


def coarse(pieces: list[Piece]) -> list[Piece]:
    """At most MOST_PIECES, neighbours merged: thousands of windows may end in one step."""
    together = 1
    while len(pieces) > MOST_PIECES * together:
        together *= 2
    if together == 1:
        return pieces
    return [_merged(pieces[at : at + together]) for at in range(0, len(pieces), together)]


def _merged(pieces: list[Piece]) -> Piece:
    first_ns, last_ns = pieces[0].begin_ns, pieces[-1].end_ns
    floor_mj = rest_mj = 0.0
    most_open = 0
    for begin_ns, end_ns, floor, rest, open_count in pieces:
        floor_mj += floor * (end_ns - begin_ns)
        rest_mj += rest * (end_ns - begin_ns)
        most_open = max(most_open, open_count)
    length_ns = last_ns - first_ns
    return Piece(first_ns, last_ns, floor_mj / length_ns, rest_mj / length_ns, most_open)


@dataclass(slots=True)
class ClosedStep:
    """What a booked step still has for late windows.

    `idle_times` are the times of which the floor was booked to idle;
    `unattributed_mj` is what nobody had. `pieces` are the times between its events.
    """

    start_ns: int
    end_ns: int
    minute_unix_s: int
    floor: float
    device: float
    unattributed_mj: float
    power_limit_mw: int | None
    sm_clock_mhz: float | None
    idle_times: list[tuple[int, int]]
    pieces: list[Piece]
    facts: frozenset[Flag | Source]


def pack(step: ClosedStep) -> bytes | None:
    """A step as bytes; None where it does not fit: silences of seconds, hundreds of idle times.

    Pieces that gave nobody anything are left out.
    """
    start_ns, length_ns = step.start_ns, step.end_ns - step.start_ns
    pieces = [piece for piece in step.pieces if piece.floor or piece.rest]
    if length_ns > _LONGEST_NS or len(step.idle_times) > _MOST:
        return None
    head = _HEAD.pack(
        start_ns,
        length_ns,
        step.minute_unix_s,
        step.floor,
        step.device,
        step.unattributed_mj,
        _NOT_KNOWN if step.power_limit_mw is None else step.power_limit_mw,
        _NOT_KNOWN if step.sm_clock_mhz is None else step.sm_clock_mhz,
        _mask(step.facts),
        len(step.idle_times),
    )
    times = [_TIME.pack(begin - start_ns, end - start_ns) for begin, end in step.idle_times]
    packed = [
        _PIECE.pack(
            piece.begin_ns - start_ns,
            piece.end_ns - start_ns,
            piece.floor,
            piece.rest,
            min(piece.open_count, _MOST_OPEN),
        )
        for piece in pieces
    ]
    return b"".join((head, *times, *packed))


@cache
def _mask(facts: frozenset[Flag | Source]) -> int:
    return sum(1 << place for place, fact in enumerate(FACTS) if fact in facts)


def unpack(packed: bytes) -> ClosedStep:
    """The step that was packed."""
    start_ns, length_ns, minute_s, *rates, limit_mw, clock_mhz, facts, times = _HEAD.unpack_from(
        packed
    )
    floor, device, unattributed_mj = rates
    pieces_at = _HEAD.size + times * _TIME.size
    return ClosedStep(
        start_ns,
        start_ns + length_ns,
        minute_s,
        floor,
        device,
        unattributed_mj,
        None if limit_mw == _NOT_KNOWN else limit_mw,
        None if clock_mhz == _NOT_KNOWN else clock_mhz,
        [
            (start_ns + begin, start_ns + end)
            for begin, end in _TIME.iter_unpack(packed[_HEAD.size : pieces_at])
        ],
        [
            Piece(start_ns + begin, start_ns + end, *rest)
            for begin, end, *rest in _PIECE.iter_unpack(packed[pieces_at:])
        ],
        frozenset(fact for place, fact in enumerate(FACTS) if facts >> place & 1),
    )


def span(packed: bytes) -> tuple[int, int]:
    """The start and end of a packed step."""
    start_ns, length_ns = _SPAN.unpack_from(packed)
    return start_ns, start_ns + length_ns
