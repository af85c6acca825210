"""What is asked of a window's start, and whether it is the same when it is said again."""

from collections.abc import Sequence

import msgspec

from greend.errors import InvalidArgument
from greend.metering import checks
from greend.metering.windows import check_token
from greend.model import Window


class WindowStart(msgspec.Struct, frozen=True, gc=False):
    """What is asked of a start; None or empty: the daemon's choice.

    It is told on one of the two clocks, or else it is now.
    """

    window_id: str
    request_id: str
    devices: Sequence[str]
    tags: dict[str, str]
    weight: float | None
    session_token: str
    parent_id: str = ""
    start_unix_ns: int | None = None
    start_ns: int | None = None
    iteration_driven: bool = False

    def instant(self, now_ns: int, wall_offset_ns: int) -> tuple[str, int]:
        """The name of the field that tells it, and the instant on CLOCK_MONOTONIC."""
        if self.start_ns is not None:
            return "monotonic_ns", self.start_ns
        if self.start_unix_ns is not None:
            return "start_unix_ns", self.start_unix_ns - wall_offset_ns
        return "start_unix_ns", now_ns


def check_same(known: Window, start: WindowStart) -> None:
    """Raises unless a start said again says the same; PermissionDenied if it is another's."""
    check_token(known, start.session_token)
    same = {
        "request_id": start.request_id == known.request_id,
        "tags": start.tags == known.tags,
        "weight": start.weight in (None, known.weight),
        "devices": not start.devices or set(start.devices) == set(known.devices),
        "start_unix_ns": start.start_unix_ns in (None, known.start_unix_ns),
        "parent_id": parent_of(start) == known.parent_id,
    }
    others = [name for name, is_same in same.items() if not is_same]
    if others:
        raise InvalidArgument(
            f"window_id: {known.window_id} was started already, with another"
            f" {', '.join(others)}: choose a new id for a new window"
        )


def parent_of(start: WindowStart) -> str:
    """In its usual form; empty: none."""
    return checks.check_window_id(start.parent_id, "parent_id") if start.parent_id else ""
