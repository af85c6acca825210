"""What callers ask for, as messages: filters, intervals, devices."""

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

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
        request_id=None if request_id is None else _text("request_id", request_id),
        devices=uuids,
        states=_texts("states", states),
    )


def summary(
    chosen: types_pb2.WindowFilter, by: Sequence[str], bucket_s: float | None, idle: str
) -> metering_pb2.SummarizeWindowsRequest:
    """Return the request for a summary of the windows chosen; raises GreendError."""
    return metering_pb2.SummarizeWindowsRequest(
        filter=chosen,
        by=_texts("by", by),
        bucket_s=_seconds("bucket_s", bucket_s),
        idle=_text("idle", idle),
    )


def ledger(
    since: When | None, until: When | None, uuids: Sequence[str]
) -> metering_pb2.GetLedgerRequest:
    """Return the request for the ledger of an interval; raises GreendError."""
    return metering_pb2.GetLedgerRequest(
        devices=uuids, since_unix_ns=_instant(since), until_unix_ns=_instant(until)
    )


def watch_samples(
    uuids: Sequence[str], interval_s: float | None
) -> metering_pb2.WatchSamplesRequest:
    """Return the request for a feed of samples; raises GreendError."""
    return metering_pb2.WatchSamplesRequest(
        devices=uuids, interval_s=_seconds("interval_s", interval_s)
    )


def timeout_s(timeout: float | None) -> float | None:
    """Return a caller's limit on waiting, None where it is none; raises GreendError."""
    seconds = _seconds("timeout", timeout)
    return None if seconds is None or seconds > threading.TIMEOUT_MAX else seconds


def uuids(devices: Devices, known: Sequence[Device]) -> list[str]:
    """Return the UUIDs of devices that were asked for; raises GreendError."""
    if devices is None:
        return []
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        devices = [devices]
    return [_uuid(device, known) for device in devices]


def _uuid(device: Gpu, known: Sequence[Device]) -> str:
    if not isinstance(device, str | SupportsIndex):
        raise _wrong("devices", device, "an index, a UUID or its beginning, or several of them")
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


def _texts(name: str, given: Any) -> list[str]:
    """Return several strings; one may stand for itself."""
    try:
        return [given] if isinstance(given, str) else [_text(name, one) for one in given]
    except TypeError:
        raise _wrong(name, given, "a string, or several") from None


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise _wrong(name, given, "a string")
    return given


def _seconds(name: str, given: Any) -> float | None:
    if given is None:
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if math.isnan(seconds):
        raise _wrong(name, given, "a number of seconds")
    return seconds


def _wrong(name: str, given: object, wanted: str) -> GreendError:
    return GreendError(f"{name}={given!r}: it has to be {wanted}", grpc.StatusCode.INVALID_ARGUMENT)
