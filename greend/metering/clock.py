"""The two clocks of the host."""

import time
from collections.abc import Callable

from greend.model import NS_PER_MS

# Two readings cannot be taken at once, so an offset read anew differs by microseconds
# each time. It is kept until the wall clock was set or has drifted by this much.
TOLERANCE_NS = NS_PER_MS


class Clock:
    """CLOCK_MONOTONIC, and the offset that turns it into Unix time.

    The same Unix instant, told twice in a row, is the same monotonic instant.
    """

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.monotonic_ns = monotonic_ns
        self._unix_ns = unix_ns
        self._offset_ns = unix_ns() - monotonic_ns()

    @property
    def offset_ns(self) -> int:
        """Unix time minus CLOCK_MONOTONIC."""
        offset_ns = self._unix_ns() - self.monotonic_ns()
        if abs(offset_ns - self._offset_ns) > TOLERANCE_NS:
            self._offset_ns = offset_ns
        return self._offset_ns

    @property
    def unix_ns(self) -> int:
        """Unix time."""
        return self.monotonic_ns() + self.offset_ns
