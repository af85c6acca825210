"""The client's errors, and how a gRPC error becomes one."""

import grpc

_NOBODY = ("failed to connect", "errors resolving", "DNS resolution failed", "empty address list")
_GONE = ("Socket closed", "Cancelling all calls", "Connection reset by peer")


class GreendError(Exception):
    """Something that was asked of greend could not be had; the text says what to do.

    ``code`` is the gRPC status code: the daemon's, or the one that the client
    gives where the daemon was not asked or not reached (UNAVAILABLE).
    """

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(message)
        self.code = code


class ResultUnavailable(GreendError):
    """A window has no result, or none yet.

    ``code`` tells which: UNAVAILABLE (no daemon answers now, ask again later),
    DEADLINE_EXCEEDED (not final within the timeout, ask again), anything else
    (there will be none: the window was refused or lost, and the text says why).
    """


def from_rpc(error: grpc.RpcError, address: str, *, control: bool = False) -> GreendError:
    """Turn what a call to the daemon at ``address`` raised into a GreendError.

    ``control`` says that it is the control door's address.
    """
    code = code_of(error)
    details = (error.details() if isinstance(error, grpc.Call) else str(error)) or code.name
    if code is grpc.StatusCode.UNAVAILABLE and "Permission denied" in details:
        group = "greend-control" if control else "greend"
        return GreendError(
            f"no permission to open {address}: join its group "
            f"(sudo usermod -aG {group} $USER, then log in again)",
            code,
        )
    # gRPC's own words for "nobody there" or "gone"; a daemon that answers UNAVAILABLE
    # says something of its own.
    if code is grpc.StatusCode.UNAVAILABLE and any(words in details for words in _NOBODY):
        return unreachable(address, control=control)
    if code is grpc.StatusCode.UNAVAILABLE and any(words in details for words in _GONE):
        return GreendError(
            f"the greend daemon at {address} ended before it had answered: ask again when it is "
            "back (greenctl status --wait 60)",
            code,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return GreendError(f"the daemon at {address} did not answer in time", code)
    return GreendError(details, code)


def unreachable(address: str, *, control: bool = False) -> GreendError:
    """Return the error for a daemon that is not there."""
    variable = "GREEND_CONTROL_ADDRESS" if control else "GREEND_ADDRESS"
    return GreendError(
        f"no greend daemon answers at {address}: start it (systemctl start greend, or "
        f"greend serve), or set {variable} to where it listens",
        grpc.StatusCode.UNAVAILABLE,
    )


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status code of an RPC's error; UNKNOWN where it has none."""
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def forked_error() -> GreendError:
    """Return the error of a client that did not come along."""
    return GreendError(
        "the client was made before this process was forked: make one in the child",
        grpc.StatusCode.FAILED_PRECONDITION,
    )
