"""What a simulated GPU's sensors show of its history: NVML's counter and power.

Both show a new value about every 100 ms, at instants of the device's own
(FACTS.md, "NVML"): A100 and H100 alike.
"""

from greend.model import NS_PER_MS
from greend.sim.history import FJ_PER_MJ, UW_PER_W, History

STEP_NS = 100 * NS_PER_MS
JITTER_NS = NS_PER_MS
AVERAGING_NS = 25 * NS_PER_MS
UW_PER_MW = UW_PER_W // 1000

_MASK_64 = (1 << 64) - 1


def mix(seed: int, number: int) -> int:
    """64 evenly spread bits from two integers (the splitmix64 finaliser); no state."""
    bits = (seed * 0x9E3779B97F4A7C15 + number * 0xD1342543DE82EF95) & _MASK_64
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return bits ^ (bits >> 31)


class EnergyCounter:
    """The energy counter: advances at its edges, 100 ms apart, each ±1 ms off.

    At an edge it takes the exact energy since the history's beginning, in
    whole mJ. What was shown is never taken back: a load that is told after its
    instant is counted at the next edge.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._phase_ns = mix(seed, -1) % STEP_NS
        self._edge_ns: int | None = None
        self._energy_mj = 0

    def last_edge_ns(self, at_ns: int) -> int:
        """The newest edge at or before an instant."""
        number = (at_ns - self._phase_ns) // STEP_NS + 1
        while self._edge(number) > at_ns:
            number -= 1
        return self._edge(number)

    def read_mj(self, history: History, now_ns: int) -> int:
        """What the counter shows; `now_ns` must not run backwards."""
        edge_ns = self.last_edge_ns(now_ns)
        if self._edge_ns is None or edge_ns > self._edge_ns:
            shown_mj = history.energy_fj(edge_ns) // FJ_PER_MJ
            self._energy_mj = max(self._energy_mj, shown_mj)
            self._edge_ns = edge_ns
        return self._energy_mj

    def _edge(self, number: int) -> int:
        jitter_ns = mix(self._seed, number) % (2 * JITTER_NS + 1) - JITTER_NS
        return self._phase_ns + number * STEP_NS + jitter_ns


class PowerSensor:
    """The power reading: every 100 ms the mean of the 25 ms before.

    So it sees a quarter of the time, as on A100 and H100.
    """

    def __init__(self, seed: int) -> None:
        self._phase_ns = mix(seed, -2) % STEP_NS

    def read_mw(self, history: History, now_ns: int) -> int:
        """What the sensor shows."""
        updated_ns = now_ns - (now_ns - self._phase_ns) % STEP_NS
        energy_fj = history.energy_between_fj(updated_ns - AVERAGING_NS, updated_ns)
        return round(energy_fj / AVERAGING_NS / UW_PER_MW)
