"""What a simulated GPU did and will do: a piecewise-constant function of time.

Energy is kept as an integer count of femtojoules (µW times ns), so every
integral is exact, however old the history and whatever of it was forgotten.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from greend.errors import OutOfRange, ResourceExhausted

FJ_PER_MJ = 10**12
"""Femtojoules in a millijoule: energies here are in fJ, outside in mJ."""
FJ_PER_J = 10**15
UW_PER_W = 10**6

MAX_CHANGES = 200_000
"""More changes than this within what is kept are refused: memory is bounded."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a GPU does: activities from 0 to 1, and the power that it draws then."""

    sm_activity: float
    memory_activity: float
    power_uw: int

    @property
    def power_w(self) -> float:
        """The power in watts."""
        return self.power_uw / UW_PER_W


class History:
    """The load of one GPU over time, past and scheduled.

    Starts at `start_ns` with no energy counted; instants are monotonic ns.
    """

    def __init__(self, start_ns: int, load: Load) -> None:
        self._starts_ns = [start_ns]
        self._loads = [load]
        self._energies_fj = [0]  # since the beginning, at the start of each load

    @property
    def kept_since_ns(self) -> int:
        """The oldest instant that can still be asked for."""
        return self._starts_ns[0]

    def set_load(self, start_ns: int, load: Load) -> None:
        """Lets `load` hold from `start_ns` on, in place of all said for later.

        Raises OutOfRange before `kept_since_ns`, ResourceExhausted beyond
        MAX_CHANGES.
        """
        energy_fj = self.energy_fj(start_ns)
        keep = bisect_left(self._starts_ns, start_ns)
        if keep >= MAX_CHANGES:
            raise ResourceExhausted(
                f"more than {MAX_CHANGES} changes of load are kept: change it less often"
            )
        del self._starts_ns[keep:], self._loads[keep:], self._energies_fj[keep:]
        self._starts_ns.append(start_ns)
        self._loads.append(load)
        self._energies_fj.append(energy_fj)

    def load(self, at_ns: int) -> Load:
        """What holds at an instant."""
        return self._loads[self._index(at_ns)]

    def energy_fj(self, at_ns: int) -> int:
        """Energy from the beginning of the history to `at_ns`, exactly.

        Raises OutOfRange before `kept_since_ns`.
        """
        index = self._index(at_ns)
        since_ns = at_ns - self._starts_ns[index]
        return self._energies_fj[index] + self._loads[index].power_uw * since_ns

    def energy_between_fj(self, start_ns: int, stop_ns: int) -> int:
        """Energy between two instants, exactly."""
        return self.energy_fj(stop_ns) - self.energy_fj(start_ns)

    def forget_before(self, at_ns: int) -> None:
        """Drops changes that no instant from `at_ns` on needs; energies stay absolute."""
        drop = bisect_right(self._starts_ns, at_ns) - 1
        if drop > 0:
            del self._starts_ns[:drop], self._loads[:drop], self._energies_fj[:drop]

    def _index(self, at_ns: int) -> int:
        index = bisect_right(self._starts_ns, at_ns) - 1
        if index < 0:
            raise OutOfRange(
                f"the simulated device no longer knows this instant: it is "
                f"{(self.kept_since_ns - at_ns) / 1e9:.3f} s older than what is kept"
            )
        return index
