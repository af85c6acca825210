"""What is kept for how long; the rest is deleted in small steps."""

import sqlite3
from dataclasses import dataclass

from greend.model import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
# Deleting this many rows takes a few ms: no acknowledgement waits longer for it.
STEP_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long windows and the ledger's minutes are kept, and how large the database may be."""

    windows_ns: int = 7 * DAY_NS
    windows_bytes: int = 4 * 2**30
    minutes_ns: int = 90 * DAY_NS


def prune(driver: sqlite3.Connection, retention: Retention, now_unix_ns: int) -> int:
    """Deletes at most STEP_ROWS of what is too old or too much; returns how many.

    Windows that are not final are kept. Pages that become free are used again.
    """
    deleted = driver.execute(
        "delete from windows where window_id in (select window_id from windows"
        " where start_unix_ns < ? and state = 'final' order by start_unix_ns limit ?)",
        (now_unix_ns - retention.windows_ns, STEP_ROWS),
    ).rowcount
    deleted += driver.execute(
        "delete from minutes where (device, minute_unix_s) in"
        " (select device, minute_unix_s from minutes where minute_unix_s < ? limit ?)",
        ((now_unix_ns - retention.minutes_ns) // NS_PER_S, STEP_ROWS),
    ).rowcount
    if not deleted and used_bytes(driver) > retention.windows_bytes:
        deleted = driver.execute(
            "delete from windows where window_id in (select window_id from windows"
            " where state = 'final' order by start_unix_ns limit ?)",
            (STEP_ROWS,),
        ).rowcount
    return deleted


def used_bytes(driver: sqlite3.Connection) -> int:
    """The size of what the database holds, without its free pages."""
    pages, free, size = (
        int(driver.execute(f"pragma {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
