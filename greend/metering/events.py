"""What a session tells of its windows."""

from collections.abc import Mapping

import msgspec

from greend.metering.starts import WindowStart
from greend.model import Usage


class Weight(msgspec.Struct, frozen=True, gc=False):
    """A window's weight changed."""

    weight: float


class PhaseBegin(msgspec.Struct, frozen=True, gc=False):
    """A phase of this name began."""

    name: str


class Iteration(msgspec.Struct, frozen=True, gc=False):
    """A batch execution ran; `costs` by window id."""

    stop_ns: int
    costs: Mapping[str, float]


class FirstToken(msgspec.Struct, frozen=True, gc=False):
    """The first token was there."""


class Stop(msgspec.Struct, frozen=True, gc=False):
    """The window ended."""


# What happens to one window that there is.
Change = Weight | PhaseBegin | Usage | FirstToken | Stop


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event, at an instant of CLOCK_MONOTONIC; `sequence` is its number in the session.

    `window_id` is as it was told, and of no meaning for an iteration. `what` is None
    where nothing was told that this version knows.
    """

    sequence: int
    at_ns: int
    window_id: str
    what: WindowStart | Change | Iteration | None
