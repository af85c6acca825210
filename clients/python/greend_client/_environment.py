"""What windows take from the process's environment, as bytes."""

import os
from collections.abc import Mapping

from greend_client._gpus import ENVIRONMENT

# os.environ encodes, decodes and catches at every look, 2 µs for the four variables. What
# lies behind it is a dict.
_environment: Mapping[bytes, bytes] = getattr(os.environ, "_data", os.environb)
_look = _environment.get
_FIRST, _SECOND, _THIRD = map(os.fsencode, ENVIRONMENT)


def gpus() -> tuple[bytes | None, ...]:
    """Return what decides what "auto" means now."""
    return _look(_FIRST), _look(_SECOND), _look(_THIRD)


def as_text(variables: tuple[bytes | None, ...] | None) -> dict[str, str]:
    """Return what ``gpus`` returned, by name; what is not set is not there."""
    told = zip(ENVIRONMENT, variables or (), strict=False)
    return {name: os.fsdecode(value) for name, value in told if value is not None}


def parent() -> str:
    """Return the window that this process is a part of; empty if it is of none."""
    value = _look(b"GREEND_PARENT_WINDOW")
    return "" if value is None else os.fsdecode(value)
