"""Events of which no window's row tells: kept until no step is shared by them any more."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class KeptWeight:
    """A window has another weight from an instant on."""

    window_id: str
    at_ns: int
    weight: float


@dataclass(frozen=True, slots=True)
class KeptIteration:
    """A batch execution."""

    start_ns: int
    stop_ns: int
    costs: Mapping[str, float]


class KeptEvent(msgspec.Struct, frozen=True, array_like=True):
    """One of both."""

    weight: KeptWeight | None = None
    iteration: KeptIteration | None = None


encode = msgspec.msgpack.encode
