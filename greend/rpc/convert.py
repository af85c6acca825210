"""Domain values to messages and back: mJ and mW become J and W."""

from collections.abc import Iterable
from typing import Any

from greend.metering.query import LedgerRow
from greend.metering.registry import MeteredDevice
from greend.metering.summary import Group, Statistics
from greend.metering.windows import all_flags, duration_s
from greend.model import NS_PER_S, Flag, Limits, Phase, Sample, Share, Source, Usage, Window
from greend.store.reader import WindowQuery
from greend_proto.v1 import metering_pb2
from greend_proto.v1 import types_pb2 as pb

MOST_TOKENS = 2**63 - 1


# Of a message to be made. All at once is three times as fast as field by field.
Fields = dict[str, Any]


def window_to_message(window: Window) -> pb.Window:
    """A window with all that follows from it; what is unknown is absent."""
    return pb.Window(**window_fields(window))


def window_fields(window: Window) -> Fields:
    """The fields of its message."""
    flags, length_s = all_flags(window), duration_s(window)
    split = Flag.FLOOR_UNKNOWN not in flags
    usage = window.usage
    fields: Fields = {
        "window_id": window.window_id,
        "request_id": window.request_id,
        "tags": window.tags,
        "devices": window.devices,
        "state": window.state,
        "weight": window.weight,
        "parent_id": window.parent_id,
        "start_unix_ns": window.start_unix_ns,
        "stop_unix_ns": window.stop_unix_ns,
        "duration_s": length_s,
        "flags": flags,
        "usage": _usage_fields(usage),
    }
    # A share without a source saw no step that was measured: unknown, not 0.
    measured = {device: share for device, share in window.shares.items() if share.source}
    if measured:
        fields |= _energy_fields(window, list(measured.values()), length_s, split=split)
        fields["device_energies"] = [
            _share_fields(device, share) for device, share in measured.items()
        ]
        if usage.output_tokens:
            fields["joules_per_output_token"] = fields["energy_j"] / usage.output_tokens
    if usage.first_token_unix_ns is not None:
        fields["ttft_s"] = (usage.first_token_unix_ns - window.start_unix_ns) / NS_PER_S
    if window.phases:
        fields["phases"] = [_phase_fields(phase, split=split) for phase in window.phases]
    return fields


def _energy_fields(
    window: Window, shares: list[Share], length_s: float | None, *, split: bool
) -> Fields:
    idle_mj, active_mj = window.descendants_idle_mj, window.descendants_active_mj
    device_mj = clock_mhz_ns = clock_ns = 0.0
    for share in shares:
        idle_mj += share.idle_mj
        active_mj += share.active_mj
        device_mj += share.device_mj
        clock_mhz_ns += share.clock_mhz_ns
        clock_ns += share.clock_ns
    sources = {share.source for share in shares}
    fields: Fields = {
        "energy_j": (idle_mj + active_mj) / 1e3,
        "device_energy_j": device_mj / 1e3,
        "source": shares[0].source if len(sources) == 1 else Source.MIXED,
    }
    if split:
        fields["idle_energy_j"] = idle_mj / 1e3
        fields["active_energy_j"] = active_mj / 1e3
    if window.bound is not None:
        fields["uncertainty_j"] = window.bound.plus(window.descendants_bound).total_mj / 1e3
    if length_s:
        fields["avg_power_w"] = device_mj / 1e3 / length_s
    if clock_ns:
        fields["sm_clock_mhz"] = clock_mhz_ns / clock_ns
    return fields


def _phase_fields(phase: Phase, *, split: bool) -> Fields:
    fields: Fields = {
        "name": phase.name,
        "start_unix_ns": phase.start_unix_ns,
        "stop_unix_ns": phase.stop_unix_ns,
    }
    if phase.idle_mj is None or phase.active_mj is None:
        return fields
    fields["energy_j"] = (phase.idle_mj + phase.active_mj) / 1e3
    fields["uncertainty_j"] = phase.bound.total_mj / 1e3
    if split:
        fields["idle_energy_j"] = phase.idle_mj / 1e3
        fields["active_energy_j"] = phase.active_mj / 1e3
    return fields


def _share_fields(device: str, share: Share) -> Fields:
    known = share.floor_known
    return {
        "device": device,
        "own_energy_j": share.own_mj / 1e3,
        "own_idle_energy_j": share.idle_mj / 1e3 if known else None,
        "own_active_energy_j": share.active_mj / 1e3 if known else None,
        "device_energy_j": share.device_mj / 1e3,
    }


def _usage_fields(usage: Usage) -> Fields:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "first_token_unix_ns": usage.first_token_unix_ns,
    }


def usage_from_message(message: pb.Usage) -> Usage:
    """What a caller says that a request did.

    A count that no store can keep is none; it must not hold up the window's stop.
    """
    said = {field.name: int(value) for field, value in message.ListFields()}
    return Usage(**{name: count for name, count in said.items() if count <= MOST_TOKENS})


def filter_from_message(message: pb.WindowFilter) -> WindowQuery:
    """Which windows a caller means."""
    return WindowQuery(
        since_unix_ns=message.since_unix_ns if message.HasField("since_unix_ns") else None,
        until_unix_ns=message.until_unix_ns if message.HasField("until_unix_ns") else None,
        tags=dict(message.tags),
        request_id=message.request_id if message.HasField("request_id") else None,
        devices=list(message.devices),
        states=list(message.states),
    )


def device_to_message(device: MeteredDevice, now_ns: int, wall_offset_ns: int) -> pb.Device:
    """A device and how it is."""
    info = device.info
    able = info.capabilities
    state, reason = device.state(now_ns)
    silent_since_unix_ns = device.measured_ns + wall_offset_ns
    floor = device.ledger.floor
    limits = info.limits
    latest = device.latest
    current_limit_mw = latest.power_limit_mw if latest is not None else limits.power_limit_mw
    return pb.Device(
        uuid=info.uuid,
        index=info.index,
        name=info.name,
        state=state,
        state_since_unix_ns=silent_since_unix_ns if state == "hung" else device.since_unix_ns,
        state_reason=reason,
        capabilities=pb.Capabilities(
            energy_counter=able.energy_counter,
            power=able.power,
            utilization=able.utilization,
            clocks=able.clocks,
            field_values=able.field_values,
            energy_scope=able.energy_scope,
            mig=able.mig,
            clock_limits=able.clock_limits,
            power_limit=able.power_limit,
        ),
        floor_w=_from_milli(floor.floor_mw(context_alive=False)),
        context_floor_w=_from_milli(floor.floor_mw(context_alive=True)),
        limits=_limits_to_message(limits, current_limit_mw),
        simulated=info.simulated,
        sample_age_s=device.sample_age_s(now_ns),
        mig_instances=[
            pb.MigInstance(
                uuid=instance.uuid,
                name=instance.name,
                compute_slices=instance.compute_slices,
                gpu_instance_id=instance.gpu_instance_id,
                compute_instance_id=instance.compute_instance_id,
            )
            for instance in info.instances
        ],
        compute_slices=info.compute_slices,
    )


def _limits_to_message(limits: Limits, current_limit_mw: int | None) -> pb.Limits:
    return pb.Limits(
        power_limit_w=_from_milli(current_limit_mw),
        min_power_limit_w=_from_milli(limits.min_power_limit_mw),
        max_power_limit_w=_from_milli(limits.max_power_limit_mw),
        min_sm_clock_mhz=limits.min_sm_clock_mhz,
        max_sm_clock_mhz=limits.max_sm_clock_mhz,
        min_memory_clock_mhz=limits.min_memory_clock_mhz,
        max_memory_clock_mhz=limits.max_memory_clock_mhz,
    )


def sample_to_message(sample: Sample, wall_offset_ns: int) -> pb.Sample:
    """A reading."""
    return pb.Sample(
        device=sample.device,
        unix_ns=sample.monotonic_ns + wall_offset_ns,
        monotonic_ns=sample.monotonic_ns,
        energy_counter_j=_from_milli(sample.energy_mj),
        power_w=_from_milli(sample.power_mw),
        sm_clock_mhz=sample.sm_clock_mhz,
        memory_clock_mhz=sample.memory_clock_mhz,
        gpu_utilization_percent=sample.gpu_utilization_percent,
        memory_utilization_percent=sample.memory_utilization_percent,
        temperature_c=sample.temperature_c,
        clock_event_reasons=sample.clock_event_reasons,
        power_limit_w=_from_milli(sample.power_limit_mw),
    )


def group_to_message(group: Group) -> metering_pb2.SummarizeWindowsResponse.Group:
    """Windows in a group."""
    return metering_pb2.SummarizeWindowsResponse.Group(
        tags=group.tags,
        start_unix_ns=group.start_unix_ns,
        count=group.count,
        energy_j=group.energy_j,
        usage=pb.Usage(
            prompt_tokens=group.prompt_tokens,
            cached_tokens=group.cached_tokens,
            output_tokens=group.output_tokens,
        ),
        joules_per_request=_statistics_to_message(group.joules_per_request),
        joules_per_output_token=_statistics_to_message(group.joules_per_output_token),
        uncertainty_j=group.uncertainty_j,
    )


def _statistics_to_message(
    statistics: Statistics | None,
) -> metering_pb2.SummarizeWindowsResponse.Statistics | None:
    if statistics is None:
        return None
    return metering_pb2.SummarizeWindowsResponse.Statistics(
        mean=statistics.mean, p50=statistics.p50, p95=statistics.p95, p99=statistics.p99
    )


def ledger_to_messages(rows: Iterable[LedgerRow]) -> list[pb.LedgerRow]:
    """A ledger, device by device."""
    return [
        pb.LedgerRow(
            device=row.device,
            start_unix_ns=row.start_unix_ns,
            stop_unix_ns=row.stop_unix_ns,
            measured_j=row.measured_mj / 1e3,
            windows_j=row.windows_mj / 1e3,
            idle_j=row.idle_mj / 1e3,
            unattributed_j=row.unattributed_mj / 1e3,
            gap_j=row.gap_mj / 1e3,
            unknown_s=row.unknown_ns / NS_PER_S,
        )
        for row in rows
    ]


def _from_milli(value: float | None) -> float | None:
    """mW as W, mJ as J."""
    return None if value is None else value / 1e3
