"""What happened to windows, as the caller gave it, on its way to the daemon."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from greend_client._errors import GreendError
from greend_client._gpus import Gpus
from greend_proto.v1 import types_pb2

Kind = Literal["start", "weight", "phase", "iteration", "usage", "first_token", "stop"]
"""An event's field in metering.proto."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Record:
    """One window, and what became of it; instants are of CLOCK_MONOTONIC."""

    window_id: str
    request_id: object
    gpus: Gpus
    environment: Mapping[str, str]  # what "auto" depends on, as it was at the start
    tags: Mapping[str, object]
    weight: object
    parent_id: str
    iteration_driven: bool = False
    start_ns: int | None = None
    stop_ns: int | None = None
    first_token_ns: int | None = None
    usage: dict[str, int] = field(default_factory=dict)  # by the name in types.proto
    first: int = 0  # number of its start, among the client's events
    kept: set[int] = field(default_factory=set)  # numbers of those that are not acknowledged
    acknowledged_on: int = 0  # the connection on which its stop was; 0: it was not
    answer: types_pb2.Window | None = None  # when it is final
    error: GreendError | None = None  # why there will never be an answer


@dataclass(slots=True, eq=False)
class Event:
    """One event; ``record`` is its window, None for an iteration."""

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
