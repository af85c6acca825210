"""How the client reaches the daemon."""

import os

import grpc

from greend_client import _fork

_SOCKET, _CONTROL_SOCKET = "greend.sock", "control.sock"
_OPTIONS = (
    # A daemon that comes back is found soon, and no proxy lies in between.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    # A page of windows with the most tags is beyond gRPC's 4 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A new channel connects anew, whatever another one waits for.
    ("grpc.use_local_subchannel_pool", 1),
)


def reading_address(given: str | None) -> str:
    """Return where the reading door is, unless it was said."""
    return given or os.environ.get("GREEND_ADDRESS") or f"unix:///run/greend/{_SOCKET}"


def control_address(given: str | None, reading: str) -> str:
    """Return where the control door is, unless it was said: beside the reading door."""
    told = given or os.environ.get("GREEND_CONTROL_ADDRESS")
    if told:
        return told
    directory, slash, name = reading.rpartition("/")
    if reading.startswith("unix:") and name == _SOCKET:
        return f"{directory}{slash}{_CONTROL_SOCKET}"
    return f"unix:///run/greend/{_CONTROL_SOCKET}"


def open_channel(address: str) -> grpc.Channel:
    """Return a channel to ``address``; it connects at its first call."""
    channel = grpc.insecure_channel(address, options=_OPTIONS)
    _fork.channel_made()
    return channel
