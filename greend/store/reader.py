"""Reading what is kept. Called from threads, never from the event loop."""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Engine, Exists, Select, and_, func, or_, select, tuple_
from sqlalchemy import exists as sql_exists
from sqlalchemy.orm import InstrumentedAttribute

from greend.model import AMOUNTS, Booking, Bound, DeviceRecord, Window, WindowState
from greend.store.engine import reading
from greend.store.records import row_to_device, row_to_window
from greend.store.schema import DeviceRow, MinuteRow, WindowRow

Key = tuple[int, str]

# Rows that are held at once where there may be millions.
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class WindowQuery:
    """Which windows are meant; all conditions hold together. Empty: any."""

    since_unix_ns: int | None = None
    until_unix_ns: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    request_id: str | None = None
    devices: Sequence[str] = ()
    states: Sequence[str] = ()


class MeasuredWindow(NamedTuple):
    """A final window as summaries see it; own energy only, so that nothing counts twice."""

    start_unix_ns: int
    own_mj: float | None
    own_active_mj: float | None
    own_correlated_mj: float | None
    own_independent_mj: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    tags: tuple[str | None, ...]

    @property
    def bound(self) -> Bound | None:
        """The bound on the error of `own_mj`; None where nothing tells."""
        if self.own_correlated_mj is None or self.own_independent_mj is None:
            return None
        return Bound(self.own_correlated_mj, self.own_independent_mj)


class StoreReader:
    """Windows, the ledger's minutes and devices, as committed.

    Everything raises Unavailable from a damaged database; what takes `given_up` raises
    InterruptedError soon after it is set.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def window(self, window_id: str) -> Window | None:
        """One window, or None."""
        query = select(WindowRow.__table__).where(WindowRow.window_id == window_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else row_to_window(dict(row))

    def windows_by_id(self, window_ids: Iterable[str]) -> dict[str, Window]:
        """Those of the windows named that are kept, by id."""
        named = func.json_each(json.dumps(list(window_ids))).table_valued("value")
        query = select(WindowRow.__table__).where(WindowRow.window_id.in_(select(named.c.value)))
        with reading(self._engine) as connection:
            rows = connection.execute(query).mappings()
            return {row["window_id"]: row_to_window(dict(row)) for row in rows}

    def windows(
        self,
        query: WindowQuery,
        *,
        limit: int,
        after: Key | None = None,
        given_up: threading.Event | None = None,
    ) -> list[Window]:
        """Windows, newest start first; `after` is the (start, id) of the last one had."""
        statement = where(select(WindowRow.__table__), query)
        if after is not None:
            statement = statement.where(
                tuple_(WindowRow.start_unix_ns, WindowRow.window_id) < tuple_(*after)
            )
        statement = statement.order_by(
            WindowRow.start_unix_ns.desc(), WindowRow.window_id.desc()
        ).limit(limit)
        with reading(self._engine, given_up) as connection:
            return [row_to_window(dict(row)) for row in connection.execute(statement).mappings()]

    def measured(
        self, query: WindowQuery, by: Sequence[str], given_up: threading.Event | None = None
    ) -> Iterator[MeasuredWindow]:
        """What summaries need of final windows, read as it is asked for."""
        values = [func.json_extract(WindowRow.tags, f'$."{key}"') for key in by]
        statement = where(
            select(
                WindowRow.start_unix_ns,
                WindowRow.own_mj,
                WindowRow.own_active_mj,
                WindowRow.own_correlated_mj,
                WindowRow.own_independent_mj,
                WindowRow.prompt_tokens,
                WindowRow.cached_tokens,
                WindowRow.output_tokens,
                *values,
            ),
            query,
        ).where(WindowRow.state == WindowState.FINAL)
        with reading(self._engine, given_up) as connection:
            rows = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(statement)
            for row in rows:
                yield MeasuredWindow._make((*row[:8], tuple(row[8:])))

    def ledger(
        self, devices: Sequence[str], since_unix_s: int | None, until_unix_s: int | None
    ) -> list[tuple[Booking, int]]:
        """The sum of each device's minutes, and the last of these minutes.

        `minute_unix_s` of the booking is the first minute; devices without any are left out.
        """
        amounts = [func.total(getattr(MinuteRow, name)) for name in AMOUNTS]
        statement = select(
            MinuteRow.device,
            func.min(MinuteRow.minute_unix_s),
            *amounts,
            func.max(MinuteRow.minute_unix_s),
        ).group_by(MinuteRow.device)
        if devices:
            statement = statement.where(MinuteRow.device.in_(devices))
        if since_unix_s is not None:
            statement = statement.where(MinuteRow.minute_unix_s >= since_unix_s)
        if until_unix_s is not None:
            statement = statement.where(MinuteRow.minute_unix_s < until_unix_s)
        with reading(self._engine) as connection:
            return [(Booking(*row[:-1]), row[-1]) for row in connection.execute(statement)]

    def devices(self) -> list[DeviceRecord]:
        """Every device ever seen."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(DeviceRow.__table__)).mappings()
            return [row_to_device(dict(row)) for row in rows]


def where(statement: Select[Any], query: WindowQuery) -> Select[Any]:
    """A statement about windows with a query's conditions."""
    if query.since_unix_ns is not None:
        statement = statement.where(
            or_(
                WindowRow.stop_unix_ns >= query.since_unix_ns,
                # Runs, or nobody knows when it ended.
                and_(
                    WindowRow.stop_unix_ns.is_(None),
                    or_(
                        WindowRow.state != WindowState.FINAL,
                        WindowRow.start_unix_ns >= query.since_unix_ns,
                    ),
                ),
            )
        )
    if query.until_unix_ns is not None:
        statement = statement.where(WindowRow.start_unix_ns < query.until_unix_ns)
    for key, value in query.tags.items():
        statement = statement.where(func.json_extract(WindowRow.tags, f'$."{key}"') == value)
    if query.request_id is not None:
        statement = statement.where(WindowRow.request_id == query.request_id)
    if query.devices:
        statement = statement.where(
            or_(_among(WindowRow.devices, query.devices), _among(WindowRow.cards, query.devices))
        )
    if query.states:
        statement = statement.where(WindowRow.state.in_(query.states))
    return statement


def _among(column: InstrumentedAttribute[list[Any]], uuids: Sequence[str]) -> Exists:
    """Whether a list of UUIDs has any of these."""
    listed = func.json_each(column).table_valued("value")
    return sql_exists(select(listed.c.value).where(listed.c.value.in_(uuids)))
