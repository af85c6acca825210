"""The tables. Energies in mJ, instants in Unix ns."""

from typing import Any

from sqlalchemy import JSON, Index, LargeBinary, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Names constraints, so that migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class WindowRow(Base):
    """One window. `shares` holds by device what `greend.model.Share` holds."""

    __tablename__ = "windows"
    __table_args__ = (Index("ix_windows_start", "start_unix_ns", "window_id"),)

    window_id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(index=True)
    tags: Mapped[dict[str, Any]]
    devices: Mapped[list[Any]]
    start_unix_ns: Mapped[int]
    # The same instant of CLOCK_MONOTONIC, and what it runs on of each card, if that is not
    # all of it: for the next run of the daemon.
    start_ns: Mapped[int | None]
    parts: Mapped[dict[str, Any] | None]
    stop_unix_ns: Mapped[int | None]
    state: Mapped[str] = mapped_column(index=True)
    weight: Mapped[float]
    parent_id: Mapped[str]
    # Those whose MIG instances are among `devices`.
    cards: Mapped[list[Any]] = mapped_column(server_default="[]")
    # SHA-256 of the session's secret; empty without one.
    token_digest: Mapped[bytes] = mapped_column(LargeBinary)
    prompt_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    first_token_unix_ns: Mapped[int | None]
    # Of a final window, without its descendants'; the split is absent without a floor.
    own_mj: Mapped[float | None]
    own_active_mj: Mapped[float | None]
    descendants_idle_mj: Mapped[float]
    descendants_active_mj: Mapped[float]
    # Bounds on the errors of both, in parts; absent for windows of before there were any.
    own_correlated_mj: Mapped[float | None]
    own_independent_mj: Mapped[float | None]
    descendants_correlated_mj: Mapped[float]
    descendants_independent_mj: Mapped[float]
    iteration_driven: Mapped[bool]
    # In the order of `greend.model.Phase`'s fields.
    phases: Mapped[list[Any]]
    shares: Mapped[dict[str, Any]]
    flags: Mapped[list[Any]]


class MinuteRow(Base):
    """One device and minute of the ledger: windows + idle + unattributed + gap = measured."""

    __tablename__ = "minutes"

    device: Mapped[str] = mapped_column(primary_key=True)
    minute_unix_s: Mapped[int] = mapped_column(primary_key=True)
    measured_mj: Mapped[float]
    windows_mj: Mapped[float]
    idle_mj: Mapped[float]
    unattributed_mj: Mapped[float]
    gap_mj: Mapped[float]
    unknown_ns: Mapped[float]


class DeviceRow(Base):
    """Every device ever seen."""

    __tablename__ = "devices"

    uuid: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    last_seen_unix_ns: Mapped[int]
    floor_mw: Mapped[float | None]
    context_floor_mw: Mapped[float | None]


class RunRow(Base):
    """The last run of the daemon: in which boot, and when it surely lived, CLOCK_MONOTONIC."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    boot_id: Mapped[str]
    alive_ns: Mapped[int]


class AnchorRow(Base):
    """Where a device's ledger was, in the metering's own form."""

    __tablename__ = "anchors"

    device: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class ClaimRow(Base):
    """What a window that is not final had got of a device, in the metering's own form."""

    __tablename__ = "claims"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    window_id: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class SessionRow(Base):
    """A session that is not over: up to which event all is committed, since when it is away."""

    __tablename__ = "sessions"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    acknowledged: Mapped[int]
    left_ns: Mapped[int | None]


class RefusalRow(Base):
    """An event of a session that was refused, and not yet known to be heard of, in the
    metering's own form."""

    __tablename__ = "refusals"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class EventRow(Base):
    """A weight or an iteration that steps may still be shared by, until that instant."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    until_ns: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)
