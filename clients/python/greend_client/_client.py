"""The client: windows in, joules out."""

import atexit
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import grpc

from greend_client import _errors
from greend_client._channel import open_channel
from greend_client._errors import GreendError
from greend_client._gpus import Gpu, Gpus, find
from greend_client._sender import Sender
from greend_client._times import When, unix_ns
from greend_client._values import Device, LedgerRow, Status, WindowResult
from greend_client._window import Window
from greend_proto.v1 import metering_pb2, metering_pb2_grpc, types_pb2

if TYPE_CHECKING:
    Request = TypeVar("Request")
    Response = TypeVar("Response")

_PAGE_SIZE = 500
_FLUSH_S = 2.0


class Client:
    """A connection to the daemon of this host; thread-safe, meant to live long.

    Measuring (``window``, ``record``) never raises and never waits: a thread of
    the client's speaks to the daemon. Without a daemon there is one warning in the
    log of "greend_client", and inference goes on. Reading (``history``, ``ledger``,
    ``devices``, ``status``) asks the daemon and raises ``GreendError``.

    Args:
        address: Where the daemon serves; by default GREEND_ADDRESS or
            ``unix:///run/greend/greend.sock``.
        control_address: Where it takes limits; by default GREEND_CONTROL_ADDRESS or
            ``unix:///run/greend/control.sock``.
        lateness_s: How long after the fact windows are told, for ``record``; asked
            for on the streaming path. Single calls, as of now, have the daemon's
            own allowance.
    """

    def __init__(
        self,
        address: str | None = None,
        control_address: str | None = None,
        lateness_s: float = 0.25,
    ) -> None:
        environment = os.environ.get
        self.address = address or environment("GREEND_ADDRESS") or "unix:///run/greend/greend.sock"
        self.control_address = (
            control_address
            or environment("GREEND_CONTROL_ADDRESS")
            or "unix:///run/greend/control.sock"
        )
        self.lateness_s = lateness_s
        self._channel = open_channel(self.address)
        self._stub = metering_pb2_grpc.MeteringServiceStub(self._channel)
        self._sender = Sender(self.address, self._get_window)
        self._closed = False
        atexit.register(self.close)

    def window(
        self,
        /,
        request_id: str | None = None,
        *,
        gpus: Gpus = "auto",
        weight: float = 1.0,
        parent: Window | str | None = None,
        **tags: object,
    ) -> Window:
        """Return a window, to be entered by ``with`` or started by hand.

        Args:
            request_id: The caller's name for it; need not be unique.
            gpus: Indices (as ``greenctl devices`` shows them), UUIDs, a list of
                those, or "auto": the GPUs that this process can see.
            weight: Claim on energy shared with other windows, 1e-3 to 1e6.
            parent: The window that it is a part of, or its id; by default the one
                in whose block it starts, else GREEND_PARENT_WINDOW; "": none.
            tags: At most 32, keys ``[a-z][a-z0-9_.]*``; values are turned into
                strings. The names above are taken and cannot be tags.
        """
        return Window(
            self._sender,
            request_id=request_id,
            gpus=gpus,
            weight=weight,
            parent=parent,
            tags=tags,
        )

    def record(
        self,
        /,
        request_id: str | None = None,
        *,
        start_ns: int,
        stop_ns: int,
        first_token_ns: int | None = None,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        output_tokens: int | None = None,
        gpus: Gpus = "auto",
        weight: float = 1.0,
        parent: Window | str | None = None,
        **tags: object,
    ) -> Window:
        """Tell of a window afterwards; return it, for its result.

        Instants are nanoseconds of ``time.monotonic_ns``. All else is as in
        ``window``; the names here are taken and cannot be tags.
        """
        window = self.window(request_id, gpus=gpus, weight=weight, parent=parent, **tags)
        window.tokens(prompt=prompt_tokens, cached=cached_tokens, output=output_tokens)
        window._happened(start_ns, stop_ns, first_token_ns)
        return window

    def history(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Gpu | Sequence[Gpu] | None = None,
        states: Sequence[str] = (),
        **tags: str,
    ) -> Iterator[WindowResult]:
        """Iterate over windows, newest start first, fetching pages as they are needed.

        Args: see ``window_filter``.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked.
        """
        chosen = self.window_filter(since, until, request_id, devices, states, **tags)
        return self._pages(chosen)

    def ledger(
        self,
        since: When | None = None,
        until: When | None = None,
        devices: Gpu | Sequence[Gpu] | None = None,
    ) -> list[LedgerRow]:
        """Return the account of an interval, one row a device.

        Both ends are taken outward to whole minutes by the daemon. Arguments are
        those of ``window_filter``.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked.
        """
        request = self.ledger_request(since, until, devices)
        answer = self.call(self._stub.GetLedger, request)
        return [LedgerRow.from_message(row) for row in answer.rows]

    def devices(self) -> list[Device]:
        """Return the daemon's devices, in NVML's order; raises GreendError."""
        answer = self.call(self._stub.ListDevices, metering_pb2.ListDevicesRequest())
        return [Device.from_message(device) for device in answer.devices]

    def status(self) -> Status:
        """Return the daemon's health; raises GreendError."""
        answer = self.call(self._stub.GetStatus, metering_pb2.GetStatusRequest())
        return Status.from_message(answer)

    def close(self) -> None:
        """Send what is still to be sent, for at most 2 s, and disconnect. May be repeated.

        Called at exit for a client that was not closed. Afterwards results that
        were not fetched are out of reach, and windows are not measured.
        """
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            self._sender.close(_FLUSH_S)
            self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The hook for programs that want the messages themselves, as greenctl does.

    @property
    def stub(self) -> metering_pb2_grpc.MeteringServiceStub:
        """The reading door's generated stub; make its calls through ``call``."""
        return self._stub

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: "Request",
        *,
        timeout_s: float = 10.0,
        wait_for_daemon: bool = False,
    ) -> "Response":
        """Make a unary call of ``stub``.

        With ``wait_for_daemon`` the time until a daemon is there counts as part of
        ``timeout_s``; without, a missing daemon is an error at once.

        Raises:
            GreendError: The daemon's error, or UNAVAILABLE where there is none.
        """
        try:
            return method(request, timeout=timeout_s, wait_for_ready=wait_for_daemon)
        except grpc.RpcError as error:
            raise _errors.from_rpc(error, self.address) from error
        except ValueError as error:  # gRPC's answer on a closed channel
            raise GreendError("the client was closed", grpc.StatusCode.CANCELLED) from error

    def window_filter(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Gpu | Sequence[Gpu] | None = None,
        states: Sequence[str] = (),
        **tags: str,
    ) -> types_pb2.WindowFilter:
        """Return the filter for windows that meet all conditions.

        Args:
            since: Those that end at or after it, or still run: "24h", "30m", "7d"
                (ago), an ISO date-time, a datetime, or Unix seconds.
            until: Those that start before it, in the same forms.
            request_id: Those of this request.
            devices: Those on any of these: indices, UUIDs or beginnings of UUIDs.
            states: Those in any of these: "open", "stopped", "final".
            tags: Those with all of these tags. The names above cannot be asked for.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked for its
                devices.
        """
        return types_pb2.WindowFilter(
            since_unix_ns=None if since is None else unix_ns(since),
            until_unix_ns=None if until is None else unix_ns(until),
            tags={key: str(value) for key, value in tags.items()},
            request_id=request_id,
            devices=self._uuids(devices),
            states=[states] if isinstance(states, str) else states,
        )

    def ledger_request(
        self,
        since: When | None = None,
        until: When | None = None,
        devices: Gpu | Sequence[Gpu] | None = None,
    ) -> metering_pb2.GetLedgerRequest:
        """Return the request for the ledger of an interval; see ``window_filter``."""
        return metering_pb2.GetLedgerRequest(
            devices=self._uuids(devices),
            since_unix_ns=None if since is None else unix_ns(since),
            until_unix_ns=None if until is None else unix_ns(until),
        )

    def _uuids(self, devices: Gpu | Sequence[Gpu] | None) -> list[str]:
        if devices is None:
            return []
        if isinstance(devices, str) or not isinstance(devices, Sequence):
            devices = [devices]
        known = self.devices()
        return [_uuid(device, known) for device in devices]

    def _pages(self, chosen: types_pb2.WindowFilter) -> Iterator[WindowResult]:
        request = metering_pb2.ListWindowsRequest(filter=chosen, page_size=_PAGE_SIZE)
        while True:
            page = self.call(self._stub.ListWindows, request)
            yield from map(WindowResult.from_message, page.windows)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _get_window(
        self, request: metering_pb2.GetWindowRequest, timeout_s: float
    ) -> types_pb2.Window:
        return self.call(self._stub.GetWindow, request, timeout_s=timeout_s, wait_for_daemon=True)


def _uuid(device: Gpu, known: Sequence[Device]) -> str:
    try:
        return find(device, known).uuid
    except GreendError as error:
        # History knows devices that are no longer there: let the daemon say.
        if (
            error.code is grpc.StatusCode.NOT_FOUND
            and isinstance(device, str)
            and not device.strip().isdecimal()
        ):
            return device
        raise
