"""The phases of a window, from when they began and what its devices gave to them."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from greend.model import Bound, Phase, Share

# When a phase began, and its name; in order.
Mark = tuple[int, str]


def window_phases(
    marks: Sequence[Mark],
    start_ns: int,
    stop_ns: int | None,
    wall_offset_ns: int,
    shares: Iterable[Share],
) -> tuple[Phase, ...]:
    """Its phases, in order of time; none where none was named.

    What lies after its stop, and phases without a length, are left out.
    """
    begins = {start_ns: ""} | dict(marks)
    times = sorted(at_ns for at_ns in begins if stop_ns is None or at_ns < stop_ns)
    if not any(begins[at_ns] for at_ns in times):
        return ()
    phases = [
        Phase(
            begins[at_ns],
            at_ns + wall_offset_ns,
            None if until_ns is None else until_ns + wall_offset_ns,
        )
        for at_ns, until_ns in zip(times, [*times[1:], stop_ns], strict=True)
    ]
    for share in shares:
        for part in share.phases:
            place = max(bisect_right(times, part.start_ns) - 1, 0)
            phase = phases[place]
            phases[place] = replace(
                phase,
                idle_mj=(phase.idle_mj or 0.0) + part.idle_mj,
                active_mj=(phase.active_mj or 0.0) + part.active_mj,
                bound=phase.bound.plus(part),
            )
    return tuple(phases)


def own_bound(shares: Iterable[Share]) -> Bound | None:
    """The bound on a window's own energy; None without any share."""
    bound: Bound | None = None
    for share in shares:
        bound = (bound or Bound()).plus(share)
    return bound
