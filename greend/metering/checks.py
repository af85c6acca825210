"""What may be said of a window (DESIGN.md, "Bad input")."""

import math
import re
import uuid
from collections.abc import Mapping

from greend.errors import InvalidArgument
from greend.model import NS_PER_S

MOST_TAGS = 32
LONGEST_KEY_BYTES = 64
LONGEST_VALUE_BYTES = 256
LONGEST_REQUEST_ID_BYTES = 256
LIGHTEST, HEAVIEST = 1e-3, 1e6
FUTURE_NS = NS_PER_S
MOST_PHASES = 64
MOST_MEMBERS = 10_000

_KEY = re.compile(r"[a-z][a-z0-9_.]*")
_USUAL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def check_window_id(window_id: str, name: str = "window_id") -> str:
    """The id in its usual form."""
    if _USUAL_ID.fullmatch(window_id):  # nearly always; parsing it takes six times as long
        return window_id
    try:
        return str(uuid.UUID(window_id))
    except ValueError:
        raise InvalidArgument(f"{name}: {window_id[:64]!r} is not a UUID") from None


def check_request_id(request_id: str) -> None:
    """Bounded, as it is kept with the window."""
    if len(request_id.encode()) > LONGEST_REQUEST_ID_BYTES:
        raise InvalidArgument(f"request_id: longer than {LONGEST_REQUEST_ID_BYTES} bytes")


def check_tags(tags: Mapping[str, str]) -> None:
    """Keys `[a-z][a-z0-9_.]*`, all bounded."""
    if len(tags) > MOST_TAGS:
        raise InvalidArgument(f"tags: {len(tags)} tags, at most {MOST_TAGS} are kept")
    for key, value in tags.items():
        check_key("tags", key)
        if len(value.encode()) > LONGEST_VALUE_BYTES:
            raise InvalidArgument(
                f"tags: the value of {key!r} is longer than {LONGEST_VALUE_BYTES} bytes"
            )


def check_key(name: str, key: str) -> None:
    """A tag's key: `[a-z][a-z0-9_.]*`, bounded."""
    if len(key.encode()) > LONGEST_KEY_BYTES:
        raise InvalidArgument(f"{name}: key {key[:16]!r}… is longer than {LONGEST_KEY_BYTES} bytes")
    if not _KEY.fullmatch(key):
        raise InvalidArgument(f"{name}: key {key!r} is not of the form [a-z][a-z0-9_.]*")


def check_weight(weight: float) -> None:
    """1e-3 to 1e6."""
    if not (math.isfinite(weight) and LIGHTEST <= weight <= HEAVIEST):
        raise InvalidArgument(f"weight: {weight} is not between {LIGHTEST:g} and {HEAVIEST:g}")


def check_wait(wait_s: float, longest_s: float) -> float:
    """A time to wait, cut to what the daemon allows."""
    if not (math.isfinite(wait_s) and wait_s >= 0):
        raise InvalidArgument(f"wait_s: {wait_s} is not a time to wait")
    return min(wait_s, longest_s)


def check_not_future(name: str, instant_ns: int, now_ns: int) -> None:
    """At most a second ahead: clocks of one host do not differ by more."""
    if instant_ns > now_ns + FUTURE_NS:
        ahead_s = (instant_ns - now_ns) / NS_PER_S
        clock = "CLOCK_MONOTONIC" if name.endswith("monotonic_ns") else "Unix clock"
        raise InvalidArgument(
            f"{name}: {ahead_s:.3f} s in the future, at most {FUTURE_NS // NS_PER_S} s: it is in"
            f" ns of this host's {clock}"
        )


def check_phase(name: str) -> None:
    """Not empty, and bounded as a tag's value."""
    if not name:
        raise InvalidArgument("phase: its name is empty")
    if len(name.encode()) > LONGEST_VALUE_BYTES:
        raise InvalidArgument(f"phase: its name is longer than {LONGEST_VALUE_BYTES} bytes")


def check_members(count: int) -> None:
    """Bounded: each of them is looked up."""
    if count > MOST_MEMBERS:
        raise InvalidArgument(f"costs: {count} windows, at most {MOST_MEMBERS} are taken")


def check_costs(costs: Mapping[str, float]) -> None:
    """Finite, as their sum is, not below 0, one of them above."""
    for window_id, cost in costs.items():
        if not (math.isfinite(cost) and cost >= 0):
            raise InvalidArgument(f"costs: {cost} of {window_id[:64]!r} is no cost: 0 or more")
    if not math.isfinite(sum(costs.values())):
        raise InvalidArgument("costs: their sum is not finite: smaller ones say the same")
    if not any(costs.values()):
        raise InvalidArgument("costs: none is above 0")
