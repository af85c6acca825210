"""The reading door: its calls, and the messages that they take."""

from collections.abc import Sequence

from greend_client import _requests
from greend_client._calls import Calls
from greend_client._node import Device
from greend_client._requests import Devices
from greend_client._times import When
from greend_proto.v1 import metering_pb2, metering_pb2_grpc, types_pb2


class Door(Calls):
    """The hook for programs that want the messages themselves, as greenctl does."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = metering_pb2_grpc.MeteringServiceStub(self._channel)

    @property
    def stub(self) -> metering_pb2_grpc.MeteringServiceStub:
        """The reading door's generated stub; make its calls through ``call``."""
        return self._stub

    def window_filter(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Devices = None,
        states: Sequence[str] = (),
        **tags: object,
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
        uuids = self._uuids(devices)
        return _requests.window_filter(since, until, request_id, uuids, states, tags)

    def ledger_request(
        self,
        since: When | None = None,
        until: When | None = None,
        devices: Devices = None,
    ) -> metering_pb2.GetLedgerRequest:
        """Return the request for the ledger of an interval; see ``window_filter``."""
        return _requests.ledger(since, until, self._uuids(devices))

    def summary_request(
        self,
        chosen: types_pb2.WindowFilter,
        by: Sequence[str] = (),
        bucket_s: float | None = None,
        idle: str = "include",
    ) -> metering_pb2.SummarizeWindowsRequest:
        """Return the request for a summary of windows; see ``Client.summary``."""
        return _requests.summary(chosen, by, bucket_s, idle)

    def summarize(
        self, request: metering_pb2.SummarizeWindowsRequest
    ) -> metering_pb2.SummarizeWindowsResponse:
        """Have windows summed up, which may take the daemon a while; raises GreendError."""
        return self.call(self._stub.SummarizeWindows, request, timeout_s=_requests.SUMMARY_S)

    def devices(self) -> list[Device]:
        """Return the daemon's devices, in NVML's order; raises GreendError."""
        answer = self.call(self._stub.ListDevices, metering_pb2.ListDevicesRequest())
        return [Device.from_message(device) for device in answer.devices]

    def _uuids(self, devices: Devices) -> list[str]:
        return [] if devices is None else _requests.uuids(devices, self.devices())
