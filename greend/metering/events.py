"""What a session tells of its windows."""

from collections.abc import Mapping
from dataclasses import dataclass

from greend.metering.starts import WindowStart
from greend.model import Usage


@dataclass(frozen=True, slots=True)
class Weight:
    """A window's weight changed."""

    weight: float


@dataclass(frozen=True, slots=True)
class PhaseBegin:
    """A phase of this name began."""

    name: str


@dataclass(frozen=True, slots=True)
class Iteration:
    """A batch execution ran; `costs` by window id."""

    stop_ns: int
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first token was there."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The window ended."""


# What happens to one window that there is.
Change = Weight | PhaseBegin | Usage | FirstToken | Stop


@dataclass(frozen=True, slots=True)
class Event:
    """One event, at an instant of CLOCK_MONOTONIC; `sequence` is its number in the session.

    `window_id` is as it was told, and of no meaning for an iteration. `what` is None
    where nothing was told that this version knows.
    """

    sequence: int
    at_ns: int
    window_id: str
    what: WindowStart | Change | Iteration | None
