"""The client of greend, the energy meter of a GPU node: joules per request.

    client = greend_client.Client()
    with client.window("request-7", model="llama-3-8b") as window:
        ...
        window.tokens(prompt=512, output=128)
    window.result(timeout=5).energy_j

Measuring never raises and never waits, with or without a daemon. Errors, each
with a ``code`` (a ``grpc.StatusCode``):

    Exception
    └── GreendError              what was asked for could not be had
        └── ResultUnavailable    a window has no result, or none yet
"""

from greend_client._client import Client
from greend_client._errors import GreendError, ResultUnavailable
from greend_client._values import Device, LedgerRow, Part, Phase, Status, WindowResult
from greend_client._window import Window

__all__ = [
    "Client",
    "Device",
    "GreendError",
    "LedgerRow",
    "Part",
    "Phase",
    "ResultUnavailable",
    "Status",
    "Window",
    "WindowResult",
]
