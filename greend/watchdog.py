"""Says how the daemon is to whoever supervises it, and proves that it goes on."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from greend.notify import listens, notify, watchdog_s

log = logging.getLogger(__name__)

# Why a part makes no progress that a restart would bring back, or None.
Check = Callable[[], str | None]

REPORT_S = 5.0


async def report(checks: Iterable[Check], status: Callable[[], str]) -> None:
    """Says that the daemon is ready; then keeps its status line and feeds the watchdog.

    Runs until it is cancelled. That it runs shows that the event loop does; the watchdog
    is fed while no check has a reason against it. What a restart would not mend, such as
    a GPU that hangs, is no business of the checks.
    """
    if not listens():
        return
    limit_s = watchdog_s()
    # Two may be late before the third is missed.
    interval_s = REPORT_S if limit_s is None else min(REPORT_S, limit_s / 3)
    told = ""
    news = ["READY=1"]
    while True:
        reason = next((reason for check in checks if (reason := check())), None)
        line = f"stuck: {reason}" if reason else status()
        if line != told:
            news.append(f"STATUS={' '.join(line.split())}")
            if reason:
                log.error("the watchdog is not fed: %s", reason)
        if limit_s is not None and not reason:
            news.append("WATCHDOG=1")
        if news:
            notify(*news)
        told, news = line, []
        await asyncio.sleep(interval_s)
