"""How the client reaches the daemon."""

import grpc

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


def open_channel(address: str) -> grpc.Channel:
    """Return a channel to ``address``; it connects at its first call."""
    return grpc.insecure_channel(address, options=_OPTIONS)
