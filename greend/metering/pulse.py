"""What beats once a second: with the samples, so that nothing wakes the host for it."""

import asyncio
from collections.abc import Callable

from greend.model import NS_PER_S

TICK_S = 1.0
# Samples are overdue when so much longer than their longest interval has passed.
LONGEST_FACTOR, ALLOWANCE_S = 1.3, 0.15


class Pulse:
    """Calls `tick` about once a second; where samples fail to come, `overdue` first.

    Lives on the event loop. `interval_ns` tells how often samples should come.
    """

    def __init__(
        self,
        tick: Callable[[], None],
        overdue: Callable[[], None],
        interval_ns: Callable[[], int],
    ) -> None:
        self._tick = tick
        self._overdue = overdue
        self._interval_ns = interval_ns
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + TICK_S
        self._timer = self._loop.call_later(TICK_S, self._late)

    def beat(self) -> None:
        """Samples have come."""
        if self._loop.time() >= self._due_s:
            self._beat()
        self.arm()

    def arm(self) -> None:
        """Waits for samples anew: also when they are to come at another pace."""
        self._timer.cancel()
        interval_s = self._interval_ns() / NS_PER_S
        self._timer = self._loop.call_later(interval_s * LONGEST_FACTOR + ALLOWANCE_S, self._late)

    def stop(self) -> None:
        """Ends it."""
        self._timer.cancel()

    def _late(self) -> None:
        try:
            self._overdue()
            if self._loop.time() >= self._due_s:
                self._beat()
        finally:
            self.arm()

    def _beat(self) -> None:
        # A little early rather than a round late: intervals vary.
        self._due_s = self._loop.time() + TICK_S / 2
        self._tick()
