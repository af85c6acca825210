"""Domain values to rows and back."""

import json
from collections.abc import Mapping
from typing import Any

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


def window_to_row(window: Window) -> dict[str, Any]:
    """A window as the values of its row, as the driver takes them."""
    own = own_energy_mj(window) if window.state is WindowState.FINAL else None
    bound = window.bound
    return {
        "window_id": window.window_id,
        "request_id": window.request_id,
        "tags": json.dumps(dict(window.tags)),
        "devices": json.dumps(window.devices),
        "start_unix_ns": window.start_unix_ns,
        "start_ns": window.start_ns,
        "parts": None if window.parts is None else json.dumps(dict(window.parts)),
        "stop_unix_ns": window.stop_unix_ns,
        "state": str(window.state),
        "weight": window.weight,
        "parent_id": window.parent_id,
        "cards": json.dumps(window.cards),
        "token_digest": window.token_digest,
        "prompt_tokens": window.usage.prompt_tokens,
        "cached_tokens": window.usage.cached_tokens,
        "output_tokens": window.usage.output_tokens,
        "first_token_unix_ns": window.usage.first_token_unix_ns,
        "own_mj": None if own is None else own.total_mj,
        "own_active_mj": None if own is None else own.active_mj,
        "descendants_idle_mj": window.descendants_idle_mj,
        "descendants_active_mj": window.descendants_active_mj,
        "own_correlated_mj": None if bound is None else bound.correlated_mj,
        "own_independent_mj": None if bound is None else bound.independent_mj,
        "descendants_correlated_mj": window.descendants_bound.correlated_mj,
        "descendants_independent_mj": window.descendants_bound.independent_mj,
        "iteration_driven": window.iteration_driven,
        "phases": json.dumps([_phase_to_json(phase) for phase in window.phases]),
        "shares": json.dumps(
            {device: _share_to_json(share) for device, share in window.shares.items()}
        ),
        "flags": json.dumps(sorted(window.flags)),
    }


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
    return {name: getattr(booking, name) for name in Booking.__slots__}


def device_to_row(device: DeviceRecord) -> dict[str, Any]:
    """A device as the values of its row."""
    return {name: getattr(device, name) for name in DeviceRecord.__slots__}


def row_to_device(row: Mapping[str, Any]) -> DeviceRecord:
    """A device from the values of its row."""
    return DeviceRecord(**row)


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
