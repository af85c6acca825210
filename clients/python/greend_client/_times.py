"""Instants as people write them."""

import re
import time
from datetime import datetime

import grpc

from greend_client._errors import GreendError

_TOLERANCE_NS = 1_000_000
_offset_ns = time.time_ns() - time.monotonic_ns()


def unix_offset_ns() -> int:
    """Return the Unix clock minus the monotonic one.

    Two clocks cannot be read at once, so a difference read anew is another by
    microseconds each time. It is kept until it has changed by a millisecond: the same
    monotonic instant, told of two windows, is the same Unix instant.
    """
    global _offset_ns
    offset_ns = time.time_ns() - time.monotonic_ns()
    if abs(offset_ns - _offset_ns) > _TOLERANCE_NS:
        _offset_ns = offset_ns
    return _offset_ns


When = str | float | datetime
"""An instant: "24h" (that long ago), an ISO date-time, a datetime, Unix seconds."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def unix_ns(when: When) -> int:
    """Return an instant in nanoseconds since the Unix epoch.

    A string is a time ago ("90s", "30m", "24h", "7d", "2w") or an ISO 8601 date
    or date-time; without a zone, it and a naive datetime are local time.

    Raises:
        GreendError: INVALID_ARGUMENT, when it is none of these.
    """
    if isinstance(when, str):
        ago = _AGO.fullmatch(when.strip())
        if ago:
            return time.time_ns() - int(float(ago[1]) * _SECONDS[ago[2]] * 1e9)
        try:
            when = datetime.fromisoformat(when.strip())
        except ValueError:
            raise GreendError(
                f'"{when}" is no time: write how long ago ("30m", "24h", "7d") '
                'or a date-time ("2025-01-31T12:00")',
                grpc.StatusCode.INVALID_ARGUMENT,
            ) from None
    seconds = when.timestamp() if isinstance(when, datetime) else when
    try:
        return round(seconds * 1e9)
    except (TypeError, ValueError, OverflowError):
        raise GreendError(
            f"{seconds!r} is no time: give Unix seconds, a datetime or a string",
            grpc.StatusCode.INVALID_ARGUMENT,
        ) from None
