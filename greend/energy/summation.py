"""Sums that keep what a float would round away."""

State = tuple[float, float]


class CompensatedSum:
    """A running sum in two floats (Neumaier), good to about 1e-32 of its terms.

    A window's energy is a difference of two states of such a sum; over months
    with weights from 1e-3 to 1e6 a bare float would lose small windows in the
    rounding of the large total.
    """

    __slots__ = ("_high", "_low")

    def __init__(self) -> None:
        self._high = 0.0
        self._low = 0.0

    def add(self, term: float) -> None:
        """Adds a term."""
        total = self._high + term
        if abs(self._high) >= abs(term):
            self._low += (self._high - total) + term
        else:
            self._low += (term - total) + self._high
        self._high = total

    @property
    def state(self) -> State:
        """The sum now."""
        return self._high, self._low


def between(earlier: State, later: State) -> float:
    """What was added from one state of a sum to a later one."""
    return (later[0] - earlier[0]) + (later[1] - earlier[1])
