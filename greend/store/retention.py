"""What is kept for how long."""

from dataclasses import dataclass

from greend.model import NS_PER_S
from greend.store.prunable import MinuteKey, Prunable
from greend.store.reader import Key, WindowQuery

DAY_NS = 86_400 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Retention:
    """How long windows and the ledger's minutes are kept, and how large the database may be."""

    windows_ns: int = 7 * DAY_NS
    windows_bytes: int = 4 * 2**30
    minutes_ns: int = 90 * DAY_NS


def expired(
    prunable: Prunable, retention: Retention, now_unix_ns: int, limit: int
) -> tuple[list[Key], list[MinuteKey]]:
    """Some windows and minutes, at most `limit` of each, that are too old or too much."""
    old = WindowQuery(until_unix_ns=now_unix_ns - retention.windows_ns)
    windows = prunable.windows(old, limit=limit)
    minutes = prunable.minutes(None, now_unix_ns - retention.minutes_ns, limit=limit)
    if not windows and not minutes and prunable.used_bytes() > retention.windows_bytes:
        windows = prunable.windows(WindowQuery(), limit=limit)
    return windows, minutes
