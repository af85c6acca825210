"""What callers ask for, as messages: filters, intervals, devices."""

from collections.abc import Mapping, Sequence

import grpc

from greend_client._errors import GreendError
from greend_client._gpus import Gpu, find
from greend_client._node import Device
from greend_client._times import When, unix_ns
from greend_proto.v1 import metering_pb2, types_pb2

Devices = Gpu | Sequence[Gpu] | None
"""Devices asked for: one, several, or None for all."""

PAGE_SIZE = 500
SUMMARY_S = 60.0
"""A summary may take so long: a million windows take the daemon some 4 s."""


def window_filter(
    since: When | None,
    until: When | None,
    request_id: str | None,
    uuids: Sequence[str],
    states: Sequence[str],
    tags: Mapping[str, object],
) -> types_pb2.WindowFilter:
    """Return the filter for windows that meet all conditions; raises GreendError."""
    return types_pb2.WindowFilter(
        since_unix_ns=_instant(since),
        until_unix_ns=_instant(until),
        tags={key: str(value) for key, value in tags.items()},
        request_id=request_id,
        devices=uuids,
        states=_several(states),
    )


def summary(
    chosen: types_pb2.WindowFilter, by: Sequence[str], bucket_s: float | None, idle: str
) -> metering_pb2.SummarizeWindowsRequest:
    """Return the request for a summary of the windows chosen."""
    return metering_pb2.SummarizeWindowsRequest(
        filter=chosen, by=_several(by), bucket_s=bucket_s, idle=idle
    )


def ledger(
    since: When | None, until: When | None, uuids: Sequence[str]
) -> metering_pb2.GetLedgerRequest:
    """Return the request for the ledger of an interval; raises GreendError."""
    return metering_pb2.GetLedgerRequest(
        devices=uuids, since_unix_ns=_instant(since), until_unix_ns=_instant(until)
    )


def uuids(devices: Devices, known: Sequence[Device]) -> list[str]:
    """Return the UUIDs of devices that were asked for; raises GreendError."""
    if devices is None:
        return []
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        devices = [devices]
    return [_uuid(device, known) for device in devices]


def _uuid(device: Gpu, known: Sequence[Device]) -> str:
    try:
        return find(device, known).uuid
    except GreendError as error:
        # History knows devices that are no longer there: let the daemon say.
        if (
            error.code is grpc.StatusCode.NOT_FOUND
            and isinstance(device, str)
            and not device.strip().isdecimal()
        ):
            return device
        raise


def _instant(when: When | None) -> int | None:
    return None if when is None else unix_ns(when)


def _several(values: Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values
