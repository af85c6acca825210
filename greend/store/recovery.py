"""What the next run of the daemon goes on with: rows that matter until windows are final."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select

from greend.model import Window, WindowState
from greend.store.engine import reading
from greend.store.records import row_to_window
from greend.store.schema import (
    AnchorRow,
    ClaimRow,
    EventRow,
    RefusalRow,
    RunRow,
    SessionRow,
    WindowRow,
)


class Run(NamedTuple):
    """A run of the daemon: its boot, and an instant of CLOCK_MONOTONIC at which it lived."""

    boot_id: str
    alive_ns: int


class StoredSession(NamedTuple):
    """A session that is not over; `left_ns` is None while it has a connection."""

    digest: bytes
    acknowledged: int
    left_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where ledgers are, committed with what they booked until there.

    `claims` by window and device; those of windows in `final` are forgotten, and events
    that no step will be shared by any more.
    """

    anchors: Mapping[str, bytes] = field(default_factory=dict)
    claims: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    final: Sequence[str] = ()
    events_until_ns: int | None = None
    run: Run | None = None

    def write(self, driver: sqlite3.Connection) -> None:
        """Within a transaction of the caller's."""
        if self.anchors:
            driver.executemany(_ANCHOR, list(self.anchors.items()))
        if self.claims:
            driver.executemany(_CLAIM, [(*key, body) for key, body in self.claims.items()])
        if self.final:
            driver.executemany(
                "delete from claims where window_id = ?", [(key,) for key in self.final]
            )
        if self.events_until_ns is not None:
            driver.execute("delete from events where until_ns < ?", (self.events_until_ns,))
        if self.run is not None:
            driver.execute(_RUN, self.run)


@dataclass(frozen=True, slots=True)
class Told:
    """What a session told that is in no window's row: how much of all is committed, and
    events, each with the instant until which steps may be shared by it.

    `refusals` are by number; those up to `heard` are forgotten.
    """

    session: StoredSession
    events: Sequence[tuple[int, bytes]] = ()
    refusals: Sequence[tuple[int, bytes]] = ()
    heard: int = 0

    def write(self, driver: sqlite3.Connection) -> None:
        """Within a transaction of the caller's."""
        driver.execute(_SESSION, self.session)
        if self.events:
            driver.executemany("insert into events (until_ns, body) values (?, ?)", self.events)
        digest = self.session.digest
        if self.refusals:
            driver.executemany(_REFUSAL, [(digest, *refusal) for refusal in self.refusals])
        if self.heard:
            driver.execute(
                "delete from refusals where digest = ? and sequence <= ?", (digest, self.heard)
            )


@dataclass(frozen=True, slots=True)
class SessionOver:
    """A session that is over."""

    digest: bytes

    def write(self, driver: sqlite3.Connection) -> None:
        """Within a transaction of the caller's."""
        for table in ("sessions", "refusals"):
            driver.execute(f"delete from {table} where digest = ?", (self.digest,))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing that was kept for this run matters to it."""

    run: Run

    def write(self, driver: sqlite3.Connection) -> None:
        """Within a transaction of the caller's."""
        for table in ("anchors", "claims", "sessions", "refusals", "events", "runs"):
            driver.execute(f"delete from {table}")
        driver.execute(_RUN, self.run)


# What is written beside windows, minutes and devices.
Kept = Checkpoint | Told | SessionOver | Forgotten


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What the last run left; `run` is None where it left nothing."""

    run: Run | None
    windows: Sequence[Window]
    anchors: Mapping[str, bytes]
    claims: Mapping[tuple[str, str], bytes]
    sessions: Sequence[StoredSession]
    refusals: Mapping[bytes, Sequence[tuple[int, bytes]]]
    events: Sequence[bytes]

    @property
    def claimed(self) -> set[str]:
        """The windows that have claims."""
        return {window_id for window_id, _ in self.claims}


def left_behind(engine: Engine) -> LeftBehind:
    """Reads it. Raises Unavailable from a damaged database."""
    with reading(engine) as connection:
        run = connection.execute(select(RunRow.boot_id, RunRow.alive_ns)).one_or_none()
        windows = connection.execute(
            select(WindowRow.__table__).where(WindowRow.state != WindowState.FINAL)
        ).mappings()
        return LeftBehind(
            run=None if run is None else Run._make(run),
            windows=[row_to_window(dict(row)) for row in windows],
            anchors={
                row.device: row.body
                for row in connection.execute(select(AnchorRow.device, AnchorRow.body))
            },
            claims={
                (window_id, device): body
                for window_id, device, body in connection.execute(
                    select(ClaimRow.window_id, ClaimRow.device, ClaimRow.body)
                )
            },
            sessions=[
                StoredSession._make(row)
                for row in connection.execute(
                    select(SessionRow.digest, SessionRow.acknowledged, SessionRow.left_ns)
                )
            ],
            refusals=_refusals(connection),
            events=list(connection.execute(select(EventRow.body).order_by(EventRow.id)).scalars()),
        )


def _refusals(connection: Connection) -> Mapping[bytes, Sequence[tuple[int, bytes]]]:
    """By the session's digest, in the order of their numbers."""
    refusals: dict[bytes, list[tuple[int, bytes]]] = {}
    columns = RefusalRow.digest, RefusalRow.sequence, RefusalRow.body
    for digest, sequence, body in connection.execute(select(*columns).order_by(*columns[:2])):
        refusals.setdefault(digest, []).append((sequence, body))
    return refusals


_ANCHOR = (
    "insert into anchors (device, body) values (?, ?)"
    " on conflict (device) do update set body = excluded.body"
)
_CLAIM = (
    "insert into claims (window_id, device, body) values (?, ?, ?)"
    " on conflict (window_id, device) do update set body = excluded.body"
)
_RUN = (
    "insert into runs (id, boot_id, alive_ns) values (1, ?, ?)"
    " on conflict (id) do update set boot_id = excluded.boot_id, alive_ns = excluded.alive_ns"
)
_REFUSAL = (
    "insert into refusals (digest, sequence, body) values (?, ?, ?)"
    " on conflict (digest, sequence) do update set body = excluded.body"
)
_SESSION = (
    "insert into sessions (digest, acknowledged, left_ns) values (?, ?, ?)"
    " on conflict (digest) do update set"
    " acknowledged = max(acknowledged, excluded.acknowledged), left_ns = excluded.left_ns"
)
