"""How many events a session may tell: so many a second, and a second's worth at once."""


class Allowance:
    """A token bucket. Instants are seconds on one clock, which is the caller's."""

    def __init__(self, events_per_s: int, now_s: float) -> None:
        self._events_per_s = events_per_s
        self._left = float(events_per_s)
        self._seen_s = now_s

    def take(self, count: int, now_s: float) -> float:
        """Takes so many; returns for how long to take no more, in s."""
        earned = (now_s - self._seen_s) * self._events_per_s
        self._left = min(self._left + earned, self._events_per_s) - count
        self._seen_s = now_s
        return max(-self._left / self._events_per_s, 0.0)
