"""What may be deleted, oldest first. Read in threads; the writer deletes by key.

So the writer never searches: who waits for a commit waits for no scan of the history.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, func, select, tuple_

from greend.model import NS_PER_S, WindowState
from greend.store.engine import reading
from greend.store.reader import Key, WindowQuery, where
from greend.store.schema import MinuteRow, WindowRow

MinuteKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Extent:
    """How many windows there are, and when the first and the last of them started."""

    count: int
    first_start_unix_ns: int | None
    last_start_unix_ns: int | None


class Prunable:
    """Windows that are final, and the ledger's minutes; nothing else is ever deleted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def extent(self, query: WindowQuery) -> Extent:
        """All windows that `windows` would give."""
        start = WindowRow.start_unix_ns
        statement = _final(query, func.count(), func.min(start), func.max(start))
        with reading(self._engine) as connection:
            return Extent(*connection.execute(statement).one())

    def windows(self, query: WindowQuery, *, limit: int, after: Key | None = None) -> list[Key]:
        """Final windows, oldest start first; `after` is the last one had.

        Of a query with a begin, only those that also started at or after it.
        """
        key = WindowRow.start_unix_ns, WindowRow.window_id
        statement = _final(query, *key).order_by(*key).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) > tuple_(*after))
        with reading(self._engine) as connection:
            return [(start, window_id) for start, window_id in connection.execute(statement)]

    def count_minutes(self, since_unix_ns: int | None, until_unix_ns: int) -> int:
        """How many minutes lie as a whole in an interval; a minute of each device counts."""
        statement = _whole(since_unix_ns, until_unix_ns, func.count(MinuteRow.device))
        with reading(self._engine) as connection:
            return int(connection.execute(statement).scalar_one())

    def minutes(
        self, since_unix_ns: int | None, until_unix_ns: int, *, limit: int
    ) -> list[MinuteKey]:
        """Some of these minutes."""
        key = MinuteRow.device, MinuteRow.minute_unix_s
        statement = _whole(since_unix_ns, until_unix_ns, *key).limit(limit)
        with reading(self._engine) as connection:
            return [(device, minute_s) for device, minute_s in connection.execute(statement)]

    def used_bytes(self) -> int:
        """What the database takes, without pages that are free to be used again."""
        with reading(self._engine) as connection:
            return used_bytes(lambda query: connection.exec_driver_sql(query).scalar_one())


def _final(query: WindowQuery, *columns: Any) -> Select[Any]:
    # Nearly all are: without the hint, SQLite would fetch and sort every one of them.
    final = func.likely(WindowRow.state == str(WindowState.FINAL))
    statement = where(select(*columns), query).where(final)
    if query.since_unix_ns is not None:
        statement = statement.where(WindowRow.start_unix_ns >= query.since_unix_ns)
    return statement


def _whole(since_unix_ns: int | None, until_unix_ns: int, *columns: Any) -> Select[Any]:
    statement = select(*columns).where(MinuteRow.minute_unix_s <= until_unix_ns // NS_PER_S - 60)
    if since_unix_ns is not None:
        statement = statement.where(MinuteRow.minute_unix_s >= -(-since_unix_ns // NS_PER_S))
    return statement


def used_bytes(value: Callable[[str], Any]) -> int:
    """What a database takes without its free pages; `value` gives the one value of a query."""
    pages, free, size = (
        int(value(f"pragma {name}")) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
