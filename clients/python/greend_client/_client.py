"""The client: windows in, joules out."""

import atexit
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from types import TracebackType

from greend_client import _channel, _requests
from greend_client._control import ControlDoor
from greend_client._door import Door
from greend_client._measuring import Measuring
from greend_client._node import Sample, Status
from greend_client._requests import Devices
from greend_client._sender import Sender
from greend_client._times import When
from greend_client._values import Group, LedgerRow, WindowResult
from greend_client._watch import Watch
from greend_client._window import Window
from greend_proto.v1 import metering_pb2, types_pb2

_FLUSH_S = 2.0


class Client(Measuring[Window], Door):
    """A connection to the daemon of this host; thread-safe, meant to live long.

    Measuring (``window``, ``record``) never raises and never waits: a thread of
    the client's speaks to the daemon. Without a daemon there is one warning in the
    log of "greend_client", and inference goes on. Reading (``history``, ``summary``,
    ``ledger``, ``devices``, ``status``, ``snapshot``, ``watch_…``) asks the daemon and
    raises ``GreendError``.

    Args:
        address: Where the daemon serves; by default GREEND_ADDRESS or
            ``unix:///run/greend/greend.sock``.
        control_address: Where it takes limits; by default GREEND_CONTROL_ADDRESS or
            ``control.sock`` beside a reading door named ``greend.sock``.
        lateness_s: How long after the fact windows are told, by ``record``, at most
            120 s. As long as the client lives, all results of its host come that much
            later; only then windows told afterwards are measured as well as others.
    """

    def __init__(
        self,
        address: str | None = None,
        control_address: str | None = None,
        lateness_s: float = 0.25,
    ) -> None:
        Door.__init__(self, _channel.reading_address(address))
        self.control_address = _channel.control_address(control_address, self.address)
        self.lateness_s = lateness_s
        sender = Sender(self.address, self._get_window, lateness_s)
        Measuring.__init__(self, sender, partial(Window, sender))
        atexit.register(self.close)

    @cached_property
    def control(self) -> ControlDoor:
        """The control door, for programs that want the messages themselves."""
        return ControlDoor(self.control_address)

    def history(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Devices = None,
        states: Sequence[str] = (),
        **tags: object,
    ) -> Iterator[WindowResult]:
        """Iterate over windows, newest start first, fetching pages as they are needed.

        Args: see ``window_filter``.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked.
        """
        chosen = self.window_filter(since, until, request_id, devices, states, **tags)
        return self._pages(chosen)

    def summary(
        self,
        /,
        by: Sequence[str] = (),
        since: When | None = None,
        until: When | None = None,
        bucket_s: float | None = None,
        idle: str = "include",
        devices: Devices = None,
        request_id: str | None = None,
        **tags: object,
    ) -> list[Group]:
        """Return final windows in groups, with sums, means and quantiles.

        Args:
            by: Tag keys whose values make the groups; none: one group.
            bucket_s: Length of time buckets; None: one bucket.
            idle: Whether the windows' share of the floor counts: "include" or
                "exclude".
            since, until, devices, request_id, tags: See ``window_filter``.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked.
        """
        chosen = self.window_filter(since, until, request_id, devices, (), **tags)
        answer = self.summarize(self.summary_request(chosen, by, bucket_s, idle))
        return [Group.from_message(group) for group in answer.groups]

    def ledger(
        self,
        since: When | None = None,
        until: When | None = None,
        devices: Devices = None,
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

    def status(self) -> Status:
        """Return the daemon's health; raises GreendError."""
        answer = self.call(self._stub.GetStatus, metering_pb2.GetStatusRequest())
        return Status.from_message(answer)

    def snapshot(self, devices: Devices = None) -> list[Sample]:
        """Return the latest sample of each device that was read; raises GreendError."""
        request = metering_pb2.GetSnapshotRequest(devices=self._uuids(devices))
        answer = self.call(self._stub.GetSnapshot, request)
        return [Sample.from_message(sample) for sample in answer.samples]

    def watch_samples(
        self, devices: Devices = None, interval_s: float | None = None
    ) -> Watch[Sample]:
        """Iterate over samples as they are read, until closed; see ``Watch``.

        Args:
            devices: Indices, UUIDs or beginnings of UUIDs; None: all.
            interval_s: Least time between two samples of a device; None: every one.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked.
        """
        request = _requests.watch_samples(self._uuids(devices), interval_s)
        return self.stream(self._stub.WatchSamples, request, Sample.from_message)

    def watch_windows(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Devices = None,
        states: Sequence[str] = (),
        **tags: object,
    ) -> Watch[WindowResult]:
        """Iterate over windows as they become final, until closed; see ``Watch``.

        Arguments are those of ``window_filter``.

        Raises:
            GreendError: An argument is wrong, or the daemon cannot be asked.
        """
        chosen = self.window_filter(since, until, request_id, devices, states, **tags)
        request = metering_pb2.WatchWindowsRequest(filter=chosen)
        return self.stream(self._stub.WatchWindows, request, WindowResult.from_message)

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
            if "control" in vars(self):
                self.control.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _pages(self, chosen: types_pb2.WindowFilter) -> Iterator[WindowResult]:
        request = metering_pb2.ListWindowsRequest(filter=chosen, page_size=_requests.PAGE_SIZE)
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
