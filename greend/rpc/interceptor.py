"""Errors become gRPC status codes; here and nowhere else."""

import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from greend import errors

log = logging.getLogger(__name__)

STATUS = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Internal: grpc.StatusCode.INTERNAL,
}

if TYPE_CHECKING:  # generic in the type stubs alone
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Handler = Context = Any


class DoorInterceptor(grpc.aio.ServerInterceptor):
    """Tells callers what they can do, and the log what happened.

    `denied` are services to which the door gives no right, with what to say; they are
    denied before anything of a request is looked at.
    """

    def __init__(self, denied: Mapping[str, str]) -> None:
        self._denied = dict(denied)
        # Wrapped once: a method's handler never changes.
        self._handlers: dict[str, Handler | None] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped method that is called."""
        method = handler_call_details.method
        try:
            return self._handlers[method]
        except KeyError:
            pass
        handler = await continuation(handler_call_details)
        denial = self._denied.get(method.split("/")[1])
        if denial is not None:
            return _refuse(grpc.StatusCode.PERMISSION_DENIED, denial)
        if handler is None:
            return _refuse(
                grpc.StatusCode.UNIMPLEMENTED,
                f"there is no {method[:100]} on this socket, in this version of greend: reflection"
                " lists what there is",
            )
        wrapped = self._handlers[method] = _wrap(handler, method)
        return wrapped


def _refuse(status: grpc.StatusCode, message: str) -> Handler:
    async def refuse(_requests: Any, context: Context) -> None:
        await context.abort(status, message)

    return grpc.stream_stream_rpc_method_handler(refuse)


class _Undecodable:
    """What stands for a request whose bytes are none of its type: here it can be refused."""


def _decoder(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Undecodable()

    return decode


def _decoded(request: Any) -> Any:
    if isinstance(request, _Undecodable):
        raise errors.InvalidArgument(
            "the request is no message of its type: were the caller's stubs made from greend's"
            " protocol, and is all text UTF-8?"
        )
    return request


async def _each_decoded(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _decoded(request)


def _wrap(handler: Handler, method: str) -> Handler:
    assert handler.request_deserializer is not None
    codecs = {
        "request_deserializer": _decoder(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    check = _each_decoded if handler.request_streaming else _decoded
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary, check, method), **codecs
        )
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(
            _unary(handler.stream_unary, check, method), **codecs
        )
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(
            _stream(handler.unary_stream, check, method), **codecs
        )
    assert handler.stream_stream is not None
    return grpc.stream_stream_rpc_method_handler(
        _stream(handler.stream_stream, check, method), **codecs
    )


def _unary(
    behaviour: Callable[[Any, Any], Any], check: Callable[[Any], Any], method: str
) -> Callable[[Any, Context], Any]:
    async def call(request: Any, context: Context) -> Any:
        try:
            result = behaviour(check(request), context)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            await _abort(context, error, method)

    return call


def _stream(
    behaviour: Callable[[Any, Any], Any], check: Callable[[Any], Any], method: str
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            # Closed at once when the caller gives up, not when it is collected.
            async with aclosing(behaviour(check(request), context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await _abort(context, error, method)

    return call


def code_of(error: errors.GreendError) -> int:
    """The number of an error's status code, where it is told in a message."""
    return int(_status(error).value[0])


def _status(error: errors.GreendError) -> grpc.StatusCode:
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


async def _abort(context: Context, error: Exception, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, errors.GreendError):
        await context.abort(_status(error), str(error))
    if isinstance(error, NotImplementedError):
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, f"{method} is not built yet in this version of greend"
        )
    # Internals are for the log; the id joins the two.
    incident = uuid.uuid4().hex[:12]
    log.error("%s failed (incident %s)", method, incident, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, f"internal error; the daemon's log says more: incident {incident}"
    )
