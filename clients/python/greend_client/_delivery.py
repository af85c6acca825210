"""One event's way to the daemon: a unary call, made on the sender's thread."""

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from greend_client._channel import open_channel
from greend_client._errors import GreendError, code_of, from_rpc
from greend_client._gpus import Gpus, resolve, shown_gpus
from greend_client._node import Device
from greend_proto.v1 import metering_pb2, metering_pb2_grpc, types_pb2

logger = logging.getLogger("greend_client")

_CALL_TIMEOUT_S = 10.0

# Codes of a daemon that is not there or does not get to answering.
_STORE_BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
_NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class Record:
    """What happened to one window, as the caller gave it, and what became of it."""

    window_id: str
    request_id: object
    gpus: Gpus
    environment: Mapping[str, str]  # what "auto" depends on, as it was at the start
    tags: Mapping[str, object]
    weight: float
    parent_id: str
    start_unix_ns: int
    stop_unix_ns: int | None = None
    usage: dict[str, int] = field(default_factory=dict)  # by the name in types.proto
    answer: types_pb2.Window | None = None  # to the stop
    error: GreendError | None = None  # why there will never be an answer


class NotTaken(Exception):
    """The daemon did not take an event, which has to be sent again; ``reason`` says why."""

    def __init__(self, reason: GreendError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Delivery:
    """Sends events to the daemon at ``address``, one after the other.

    For one thread, but for ``cut``. All windows are sent under one secret, so that
    nobody else changes them.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._token = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._cut = False
        self._channel: grpc.Channel | None = None
        self._devices: list[Device] | None = None
        self._shown: frozenset[str] = frozenset()
        self._usage_warned = False

    def start(self, record: Record) -> None:
        """Send a start.

        Raises:
            NotTaken: It has to be sent again.
            GreendError: It was refused, or cannot be sent as it is.
        """
        try:
            request = metering_pb2.StartWindowRequest(
                window_id=record.window_id,
                request_id="" if record.request_id is None else str(record.request_id),
                devices=self._uuids(record),
                tags={key: str(value) for key, value in record.tags.items()},
                weight=record.weight,
                start_unix_ns=record.start_unix_ns,
                session_token=self._token,
                parent_id=record.parent_id,
            )
        except (NotTaken, GreendError):
            raise
        except Exception as error:  # whatever the caller's values do when they are read
            raise _cannot_be_sent(error) from error
        self._call(lambda stub: stub.StartWindow(request, timeout=_CALL_TIMEOUT_S))

    def stop(self, record: Record) -> types_pb2.Window:
        """Send a stop; return the window as it stands. Raises as ``start`` does."""
        try:
            request = metering_pb2.StopWindowRequest(
                window_id=record.window_id,
                stop_unix_ns=record.stop_unix_ns,
                session_token=self._token,
                usage=self._usage(record),
            )
        except Exception as error:
            raise _cannot_be_sent(error) from error
        try:
            return self._call(lambda stub: stub.StopWindow(request, timeout=_CALL_TIMEOUT_S))
        except GreendError as error:
            # A store that is full or locked may hold a window's end up, but must not
            # keep it open.
            if error.code in _STORE_BUSY:
                raise NotTaken(error) from error
            raise

    def disconnect(self) -> None:
        """Forget the connection; the next call makes a new one.

        It connects at once instead of waiting out gRPC's backoff, and until then
        nothing wakes up.
        """
        with self._lock:
            channel, self._channel = self._channel, None
        self._devices = None  # another daemon may have others
        if channel is not None:
            channel.close()

    def cut(self) -> None:
        """End the call under way and refuse more; from any thread."""
        with self._lock:
            self._cut = True
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _call(self, method: Callable[[metering_pb2_grpc.MeteringServiceStub], Answer]) -> Answer:
        try:
            try:
                return method(self._stub())
            except grpc.RpcError as error:
                if code_of(error) not in _NO_ANSWER:
                    raise
                if code_of(error) is not grpc.StatusCode.UNAVAILABLE or not self._answers():
                    self.disconnect()
                    raise NotTaken(from_rpc(error, self._address)) from error
            # It does answer: either it has just come back, or what is unavailable
            # is what the window asks for, a lost GPU. Then it says so again.
            return method(self._stub())
        except grpc.RpcError as error:
            raise from_rpc(error, self._address) from error
        except ValueError as error:  # gRPC's answer on a channel that was cut just now
            raise NotTaken(_closed_error()) from error

    def _answers(self) -> bool:
        try:
            self._stub().GetStatus(metering_pb2.GetStatusRequest(), timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return code_of(error) not in _NO_ANSWER
        return True

    def _stub(self) -> metering_pb2_grpc.MeteringServiceStub:
        with self._lock:
            if self._cut:
                raise NotTaken(_closed_error())
            if self._channel is None:
                self._channel = open_channel(self._address)
            return metering_pb2_grpc.MeteringServiceStub(self._channel)

    def _uuids(self, record: Record) -> tuple[str, ...]:
        if self._devices is not None:
            try:
                return resolve(record.gpus, self._devices, record.environment, self._shown)
            except GreendError:
                pass  # the daemon may know more devices than before
        request = metering_pb2.ListDevicesRequest()
        answer = self._call(lambda stub: stub.ListDevices(request, timeout=_CALL_TIMEOUT_S))
        self._devices = [Device.from_message(device) for device in answer.devices]
        self._shown = shown_gpus()
        return resolve(record.gpus, self._devices, record.environment, self._shown)

    def _usage(self, record: Record) -> types_pb2.Usage | None:
        try:
            return types_pb2.Usage(**record.usage) if record.usage else None
        except Exception as error:  # the window has to end all the same
            if not self._usage_warned:
                self._usage_warned = True
                logger.warning("greend: no token counts from %s: %r", record.usage, error)
            return None


def _closed_error() -> GreendError:
    return GreendError("the client was closed", grpc.StatusCode.CANCELLED)


def _cannot_be_sent(error: Exception) -> GreendError:
    return GreendError(f"its arguments cannot be sent: {error!r}", grpc.StatusCode.INVALID_ARGUMENT)
