"""What happened to windows, as the caller gave it, on its way to the daemon."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from greend_client import _uuid7
from greend_client._errors import GreendError
from greend_client._gpus import Gpus
from greend_proto.v1 import types_pb2

Kind = Literal["start", "weight", "phase", "iteration", "usage", "first_token", "stop"]
"""An event's field in metering.proto."""


class Record:
    """One window, and what became of it; instants are of CLOCK_MONOTONIC.

    Made in the caller's path, of which every step here is a part.
    """

    __slots__ = (
        "__weakref__",
        "_made_unix_ns",
        "_number",
        "_window_id",
        "acknowledged_on",
        "answer",
        "environment",
        "error",
        "first",
        "first_token_ns",
        "gpus",
        "iteration_driven",
        "kept",
        "parent",
        "request_id",
        "start_ns",
        "stop_ns",
        "tags",
        "usage",
        "weight",
    )

    def __init__(
        self,
        request_id: object,
        gpus: Gpus,
        weight: object,
        tags: Mapping[str, object],
        iteration_driven: bool,
    ) -> None:
        self._number = _uuid7.draw()
        self._made_unix_ns = time.time_ns()
        self._window_id: str | None = None
        self.request_id = request_id
        self.gpus = gpus
        self.weight = weight
        self.tags = tags
        self.iteration_driven = iteration_driven
        # What "auto" depends on, as it was at the start: see _environment.
        self.environment: tuple[bytes | None, ...] | None = None
        self.parent: Record | str | None = None
        self.start_ns: int | None = None
        self.stop_ns: int | None = None
        self.first_token_ns: int | None = None
        self.usage: dict[str, int] | None = None  # by the name in types.proto
        self.first = 0  # number of its start, among the client's events
        self.kept: set[int] | None = None  # numbers of those that are not acknowledged
        self.acknowledged_on = 0  # the connection on which its stop was; 0: it was not
        self.answer: types_pb2.Window | None = None  # when it is final
        self.error: GreendError | None = None  # why there will never be an answer

    @property
    def window_id(self) -> str:
        """UUID of version 7, the same whoever asks first."""
        if self._window_id is None:
            self._window_id = _uuid7.text(self._number, self._made_unix_ns)
        return self._window_id


Happening = tuple[Kind, int, Record | None, object]
"""What happened, when, to which window (None: an iteration), and what is to be said of it."""


@dataclass(slots=True, eq=False)
class Event:
    """A happening with its number among the client's."""

    sequence: int
    kind: Kind
    at_ns: int
    record: Record | None
    value: object = None


@dataclass(slots=True, eq=False)
class Iteration:
    """A batch execution; a member is a window's record, or an id."""

    stop_ns: int
    costs: list[tuple[Record | str, object]]
