"""The one error tree of greend.

    GreendError
    ├── InvalidArgument       the caller said something that cannot be
    ├── OutOfRange            the caller is too late: the timeline no longer reaches there
    ├── NotFound              no such device, window or lease
    ├── PermissionDenied      somebody else's window, or a right that the door does not give
    ├── ResourceExhausted     too many open windows, a full disk
    ├── FailedPrecondition    the GPU or driver lacks a function
    ├── Unavailable           GPU lost or hung, no driver, store not writable
    └── Internal              greend itself failed at one event of many

Messages are read by users: they say what can be done, never internals. The one
mapping to gRPC status codes is in greend/rpc/interceptor.py.
"""


class GreendError(Exception):
    """Base of all errors that a caller is told of."""


class InvalidArgument(GreendError):
    """The request cannot be right; the message names the field."""


class OutOfRange(GreendError):
    """An instant that the timeline no longer reaches."""


class NotFound(GreendError):
    """An unknown device, window or lease; the message names what exists."""


class PermissionDenied(GreendError):
    """The caller may not do this."""


class ResourceExhausted(GreendError):
    """A limit is reached; measuring goes on."""


class FailedPrecondition(GreendError):
    """The GPU or driver lacks what is asked for."""


class Unavailable(GreendError):
    """A device, the driver or the store does not answer."""


class Internal(GreendError):
    """A defect of greend; the message says where its log tells of it."""
