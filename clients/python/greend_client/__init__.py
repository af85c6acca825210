"""The client of greend, the energy meter of a GPU node: joules per request.

    client = greend_client.Client()
    with client.window("request-7", model="llama-3-8b") as window:
        ...
        window.tokens(prompt=512, output=128)
    window.result(timeout=5).energy_j

``greend_client.aio.Client`` is the same for asyncio, imported where it is wanted.

Measuring never raises and never waits, with or without a daemon. Errors, each
with a ``code`` (a ``grpc.StatusCode``):

    Exception
    └── GreendError              what was asked for could not be had
        └── ResultUnavailable    a window has no result, or none yet
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from greend_client import _fork  # noqa: F401  # before anything imports gRPC

# isort: split
from greend_client._client import Client
from greend_client._errors import GreendError, ResultUnavailable
from greend_client._node import Device, MigInstance, Part, Sample, Status
from greend_client._stats import Stats
from greend_client._values import Group, LedgerRow, Phase, Statistics, WindowResult
from greend_client._watch import Watch
from greend_client._window import Window, current_window

if TYPE_CHECKING:
    from greend_client import aio as aio

__all__ = [
    "Client",
    "Device",
    "GreendError",
    "Group",
    "LedgerRow",
    "MigInstance",
    "Part",
    "Phase",
    "ResultUnavailable",
    "Sample",
    "Statistics",
    "Stats",
    "Status",
    "Watch",
    "Window",
    "WindowResult",
    "current_window",
]


def __getattr__(name: str) -> ModuleType:
    # asyncio's part is imported by whoever names it.
    if name == "aio":
        return importlib.import_module("greend_client.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
