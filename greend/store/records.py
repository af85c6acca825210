"""Domain values to rows and back."""

from collections.abc import Mapping
from typing import Any

import msgspec

from greend.model import (
    Booking,
    Bound,
    DeviceRecord,
    Flag,
    Phase,
    Share,
    Source,
    Usage,
    Window,
    WindowState,
    own_energy_mj,
)

# What a window's row says from its start on, and what may change until it is final.
WINDOW_START = (
    "window_id",
    "request_id",
    "tags",
    "devices",
    "start_unix_ns",
    "start_ns",
    "parts",
    "weight",
    "parent_id",
    "cards",
    "token_digest",
)
WINDOW_NEWS = (
    "stop_unix_ns",
    "state",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "first_token_unix_ns",
    "own_mj",
    "own_active_mj",
    "descendants_idle_mj",
    "descendants_active_mj",
    "own_correlated_mj",
    "own_independent_mj",
    "descendants_correlated_mj",
    "descendants_independent_mj",
    "iteration_driven",
    "phases",
    "shares",
    "flags",
)

Row = tuple[Any, ...]


def window_to_start(window: Window) -> Row:
    """The values of WINDOW_START, as the driver takes them."""
    return (
        window.window_id,
        window.request_id,
        _json(window.tags),
        _json(window.devices),
        window.start_unix_ns,
        window.start_ns,
        None if window.parts is None else _json(window.parts),
        window.weight,
        window.parent_id,
        _json(window.cards) if window.cards else "[]",
        window.token_digest,
    )


def window_to_news(window: Window) -> Row:
    """The values of WINDOW_NEWS, as the driver takes them."""
    own = own_energy_mj(window) if window.state is WindowState.FINAL else None
    usage, bound, descendants = window.usage, window.bound, window.descendants_bound
    return (
        window.stop_unix_ns,
        str(window.state),
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.first_token_unix_ns,
        None if own is None else own.total_mj,
        None if own is None else own.active_mj,
        window.descendants_idle_mj,
        window.descendants_active_mj,
        None if bound is None else bound.correlated_mj,
        None if bound is None else bound.independent_mj,
        descendants.correlated_mj,
        descendants.independent_mj,
        window.iteration_driven,
        _json([_phase_to_json(phase) for phase in window.phases]) if window.phases else "[]",
        _json({device: _share_to_json(share) for device, share in window.shares.items()})
        if window.shares
        else "{}",
        _json(sorted(window.flags)) if window.flags else "[]",
    )


def row_to_window(row: Mapping[str, Any]) -> Window:
    """A window from the values of its row."""
    return Window(
        window_id=row["window_id"],
        request_id=row["request_id"],
        tags=row["tags"],
        devices=tuple(row["devices"]),
        start_unix_ns=row["start_unix_ns"],
        start_ns=row["start_ns"],
        parts=row["parts"],
        stop_unix_ns=row["stop_unix_ns"],
        state=WindowState(row["state"]),
        weight=row["weight"],
        parent_id=row["parent_id"],
        cards=tuple(row["cards"]),
        token_digest=row["token_digest"],
        usage=Usage(
            row["prompt_tokens"],
            row["cached_tokens"],
            row["output_tokens"],
            row["first_token_unix_ns"],
        ),
        shares={device: _share_from_json(share) for device, share in row["shares"].items()},
        flags=frozenset(Flag(flag) for flag in row["flags"]),
        iteration_driven=row["iteration_driven"],
        phases=tuple(_phase_from_json(phase) for phase in row["phases"]),
        bound=None
        if row["own_correlated_mj"] is None
        else Bound(row["own_correlated_mj"], row["own_independent_mj"]),
        descendants_idle_mj=row["descendants_idle_mj"],
        descendants_active_mj=row["descendants_active_mj"],
        descendants_bound=Bound(
            row["descendants_correlated_mj"], row["descendants_independent_mj"]
        ),
    )


def booking_to_row(booking: Booking) -> dict[str, Any]:
    """A booking as the values of its minute's row."""
    return {name: getattr(booking, name) for name in Booking.__struct_fields__}


def device_to_row(device: DeviceRecord) -> dict[str, Any]:
    """A device as the values of its row."""
    return {name: getattr(device, name) for name in DeviceRecord.__slots__}


def row_to_device(row: Mapping[str, Any]) -> DeviceRecord:
    """A device from the values of its row."""
    return DeviceRecord(**row)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _phase_to_json(phase: Phase) -> list[Any]:
    return [
        phase.name,
        phase.start_unix_ns,
        phase.stop_unix_ns,
        phase.idle_mj,
        phase.active_mj,
        phase.bound.correlated_mj,
        phase.bound.independent_mj,
    ]


def _phase_from_json(values: list[Any]) -> Phase:
    name, start_unix_ns, stop_unix_ns, idle_mj, active_mj, correlated_mj, independent_mj = values
    bound = Bound(correlated_mj, independent_mj)
    return Phase(name, start_unix_ns, stop_unix_ns, idle_mj, active_mj, bound)


def _share_to_json(share: Share) -> list[Any]:
    return [
        share.idle_mj,
        share.active_mj,
        share.device_mj,
        share.floor_known,
        share.clock_mhz_ns,
        share.clock_ns,
        share.source,
        sorted(share.flags),
    ]


def _share_from_json(values: list[Any]) -> Share:
    idle, active, device, floor_known, clock, clock_time, source, flags = values
    return Share(
        idle,
        active,
        device,
        floor_known,
        clock,
        clock_time,
        None if source is None else Source(source),
        frozenset(Flag(flag) for flag in flags),
    )
