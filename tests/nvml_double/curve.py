"""Power curve, sensor reading and counter edges, computed again and independently of the C code.

Integers only: power in uW, and twice the energy in uW*ns, so that nothing is rounded on the way.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import overload

BREAKPOINT = struct.Struct("<qqQq")
STEP = struct.Struct("<qQ")
UW_NS_PER_MJ = 10**12
_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Corner:
    """A breakpoint: instant, power, and twice the energy since the first breakpoint."""

    t_ns: int
    power_uw: int
    energy2: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Power over time: linear between the corners, ``base_uw`` before them, constant after."""

    corners: Sequence[Corner]
    base_uw: int

    def _until(self, t_ns: int) -> int:
        return bisect_right(self.corners, t_ns, key=lambda corner: corner.t_ns)

    def power_uw(self, t_ns: int) -> int:
        """Return the power at an instant (at a jump: after it)."""
        until = self._until(t_ns)
        if until == 0:
            return self.base_uw
        at = self.corners[until - 1]
        if until == len(self.corners):
            return at.power_uw
        after = self.corners[until]
        rise = (after.power_uw - at.power_uw) * (t_ns - at.t_ns)
        return at.power_uw + rise // (after.t_ns - at.t_ns)

    def energy2(self, t_ns: int) -> int:
        """Return twice the energy, in uW*ns, from a fixed instant to this one."""
        until = self._until(t_ns)
        if until == 0:
            zero_ns = self.corners[0].t_ns if self.corners else 0
            return 2 * self.base_uw * (t_ns - zero_ns)
        at = self.corners[until - 1]
        dt = t_ns - at.t_ns
        energy2 = at.energy2 + 2 * dt * at.power_uw
        if until < len(self.corners):
            after = self.corners[until]
            energy2 += dt * dt * (after.power_uw - at.power_uw) // (after.t_ns - at.t_ns)
        return energy2

    def _power_before_uw(self, t_ns: int) -> int:
        """Return the power just before an instant (differs from ``power_uw`` at a jump)."""
        before = self._until(t_ns - 1)
        if before == 0:
            return self.base_uw
        at = self.corners[before - 1]
        if before == len(self.corners):
            return at.power_uw
        after = self.corners[before]
        rise = (after.power_uw - at.power_uw) * (t_ns - at.t_ns)
        return at.power_uw + rise // (after.t_ns - at.t_ns)

    def continued(self, points: Sequence[tuple[int, int]]) -> tuple[int, list[Corner]]:
        """Return how many corners stay, and those to add, for ``points`` to follow the curve.

        ``points`` (t_ns, power_uw) are in order; two at one instant are a jump. Until the first
        of them the curve stays as it is.
        """
        start_ns, start_uw = points[0]
        keep = self._until(start_ns - 1)
        before_uw = self._power_before_uw(start_ns)
        jump = [] if before_uw == start_uw else [(start_ns, before_uw)]
        last = self.corners[keep - 1] if keep else None
        added = []
        for t_ns, power_uw in [*jump, *points]:
            last = _next_corner(last, t_ns, power_uw)
            added.append(last)
        return keep, added


def _next_corner(last: Corner | None, t_ns: int, power_uw: int) -> Corner:
    if last is None:
        return Corner(t_ns, power_uw, 0)
    dt = t_ns - last.t_ns
    if dt < 0:
        raise ValueError(f"breakpoints out of order at {t_ns} ns")
    if abs(power_uw - last.power_uw) * dt * dt >= 2**126:  # C computes in 128 bits
        raise ValueError("a slope this long overflows: put breakpoints in between")
    return Corner(t_ns, power_uw, last.energy2 + (last.power_uw + power_uw) * dt)


class StoredCorners(Sequence[Corner]):
    """The breakpoints in the state file, read one by one as they are looked at."""

    def __init__(self, memory: mmap, offset: int, count: int) -> None:
        self._memory, self._offset, self._count = memory, offset, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Corner: ...
    @overload
    def __getitem__(self, index: slice) -> list[Corner]: ...
    def __getitem__(self, index: int | slice) -> Corner | list[Corner]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        t_ns, power_uw, low, high = BREAKPOINT.unpack_from(
            self._memory, self._offset + index * BREAKPOINT.size
        )
        return Corner(t_ns, power_uw, high << 64 | low)


def pack(corners: Sequence[Corner]) -> bytes:
    """Return breakpoints as they lie in the state file."""
    return b"".join(
        BREAKPOINT.pack(c.t_ns, c.power_uw, c.energy2 & _MASK, c.energy2 >> 64) for c in corners
    )


def reading_mw(curve: Curve, edge_ns: int, window_ns: int) -> int:
    """Return what the sensor shows from an update on: the mean over the window that ends there."""
    if window_ns == 0:
        return (curve.power_uw(edge_ns) + 500) // 1000
    energy2 = curve.energy2(edge_ns) - curve.energy2(edge_ns - window_ns)
    return (energy2 + 1000 * window_ns) // (2000 * window_ns)


def scramble(value: int) -> int:
    """Return a 64-bit hash (the finaliser of splitmix64), the same as in driver.c."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@dataclass(frozen=True, slots=True)
class Edges:
    """The instants at which the energy counter advances."""

    period_ns: int
    phase_ns: int
    jitter_ns: int
    seed: int

    def edge_ns(self, number: int) -> int:
        """Return the instant of an edge by its number."""
        jitter_ns = 0
        if self.jitter_ns:
            drawn = scramble(self.seed ^ scramble(number & _MASK))
            jitter_ns = drawn % (2 * self.jitter_ns + 1) - self.jitter_ns
        return self.phase_ns + number * self.period_ns + jitter_ns

    def last_ns(self, t_ns: int) -> int:
        """Return the instant of the last edge at or before ``t_ns``."""
        number = (t_ns - self.phase_ns) // self.period_ns + 1
        while self.edge_ns(number) > t_ns:
            number -= 1
        return self.edge_ns(number)

    def between(self, start_ns: int, stop_ns: int) -> list[int]:
        """Return the instants of the edges from ``start_ns`` on and before ``stop_ns``."""
        first = (start_ns - self.phase_ns) // self.period_ns - 1
        last = (stop_ns - self.phase_ns) // self.period_ns + 1
        edges = map(self.edge_ns, range(first, last + 1))
        return [edge for edge in edges if start_ns <= edge < stop_ns]
