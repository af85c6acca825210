"""Instants as people write them."""

import operator
import re
import time
from datetime import datetime

import grpc

from greend_client._errors import GreendError

When = str | float | datetime
"""An instant: "24h" (that long ago), an ISO date-time, a datetime, Unix seconds."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def unix_ns(when: When) -> int:
    """Return an instant in nanoseconds since the Unix epoch.

    A string is a time ago ("90s", "30m", "24h", "7d", "2w") or an ISO 8601 date
    or date-time; without a zone, it and a naive datetime are local time.

    Raises:
        GreendError: INVALID_ARGUMENT, when it is none of these, or beyond 64 bits.
    """
    try:
        instant_ns = _unix_ns(when)
    except (TypeError, ValueError, OverflowError):
        text = f'"{when}"' if isinstance(when, str) else repr(when)
        raise GreendError(
            f'{text} is no time: write how long ago ("30m", "24h", "7d"), a date-time '
            '("2025-01-31T12:00"); in Python, Unix seconds or a datetime will do, too',
            grpc.StatusCode.INVALID_ARGUMENT,
        ) from None
    if not -(2**63) <= instant_ns < 2**63:
        raise GreendError(
            f"{when} is beyond the times that can be told, from 1678 to 2261",
            grpc.StatusCode.INVALID_ARGUMENT,
        )
    return instant_ns


def _unix_ns(when: When) -> int:
    if isinstance(when, str):
        ago = _AGO.fullmatch(when.strip())
        if ago:
            return time.time_ns() - int(float(ago[1]) * _SECONDS[ago[2]] * 1e9)
        when = datetime.fromisoformat(when.strip())
    return round((when.timestamp() if isinstance(when, datetime) else when) * 1e9)


def known_ns(instant: object) -> int | None:
    """Return an instant that a caller gave in nanoseconds; None where it is none."""
    try:
        return operator.index(instant)  # type: ignore[arg-type]
    except Exception:  # whatever the caller's object does
        return None
