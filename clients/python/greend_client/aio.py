"""The client for asyncio: the same surface, awaited.

    client = greend_client.aio.Client()
    async with client.window("request-7", model="llama-3-8b") as window:
        ...
    (await window.result(timeout=5)).energy_j

It is the client of ``greend_client`` underneath, with its thread for windows and
its one connection: a client belongs to no event loop, and may serve several. What
is awaited holds no thread while it waits, so that a cancelled ``await`` ends at
once, and its call with it; a live feed has a thread, which ends with it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from greend_client import _client, _requests
from greend_client._asyncio import call, items
from greend_client._door import Door
from greend_client._errors import GreendError, ResultUnavailable
from greend_client._measuring import Measuring
from greend_client._node import Device, Sample, Status
from greend_client._requests import Devices
from greend_client._sender import WAIT_S, Sender, not_final
from greend_client._times import When
from greend_client._values import Group, LedgerRow, WindowResult
from greend_client._waiting import left
from greend_client._window import Measured
from greend_proto.v1 import metering_pb2, types_pb2

__all__ = ["Client", "Window"]


class Window(Measured):
    """A window as in ``greend_client``, whose result is awaited.

    Entering and leaving never wait: ``with`` and ``async with`` are the same.
    """

    __slots__ = ("_door",)

    def __init__(self, sender: Sender, door: Door, *arguments: Any) -> None:
        super().__init__(sender, *arguments)
        self._door = door

    async def result(self, timeout: float | None = None) -> WindowResult:
        """Wait for the final energy, as ``greend_client.Window.result`` does.

        Cancelled, it ends at once and leaves nothing behind; the window is kept, and
        may be asked for again.

        Raises:
            ResultUnavailable: There is no result, or none yet; ``code`` tells which.
        """
        self._require_stopped()
        timeout = _requests.timeout_s(timeout)
        record = self._record
        deadline = None if timeout is None else time.monotonic() + timeout
        window = await self._outcome(deadline)
        while window is None or window.state != "final":
            rest = left(deadline)
            if rest == 0:
                raise not_final(record, timeout)
            wait_s = WAIT_S if rest is None else min(WAIT_S, rest)
            window = await self._get_window(wait_s)
        record.answer = window
        return WindowResult.from_message(window)

    async def _outcome(self, deadline: float | None) -> types_pb2.Window | None:
        record, since = self._record, time.monotonic()
        delivered = self._sender.delivered(record)
        if delivered.done():  # what is known is no matter of time
            return delivered.result()
        future = asyncio.wrap_future(delivered)
        try:
            while True:
                rest = left(deadline)
                await asyncio.wait([future], timeout=WAIT_S if rest is None else min(WAIT_S, rest))
                if future.done():
                    return future.result()
                if left(deadline) == 0 or self._sender.is_overdue(record, since):
                    return None
        finally:
            future.cancel()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _new(self, *arguments: Any) -> Self:
        return type(self)(self._sender, self._door, *arguments)

    async def _get_window(self, wait_s: float) -> types_pb2.Window:
        request = metering_pb2.GetWindowRequest(window_id=self.window_id, wait_s=wait_s)
        door = self._door
        try:
            return await call(
                door.stub.GetWindow,
                request,
                door.address,
                timeout_s=wait_s + 1,
                wait_for_daemon=True,
            )
        except GreendError as error:
            raise ResultUnavailable(str(error), error.code) from error


class Client(Measuring[Window]):
    """A connection to the daemon of this host, as ``greend_client.Client``.

    ``window`` and ``record`` never raise and never wait; the rest is awaited, or
    iterated over by ``async for``, and raises ``GreendError``. Arguments are those
    of ``greend_client.Client`` and its methods.
    """

    def __init__(
        self,
        address: str | None = None,
        control_address: str | None = None,
        lateness_s: float = 0.25,
    ) -> None:
        self._client = client = _client.Client(address, control_address, lateness_s)
        self.address = client.address
        self.control_address = client.control_address
        self.lateness_s = lateness_s
        sender = client._sender
        super().__init__(sender, partial(Window, sender, client))

    async def history(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Devices = None,
        states: Sequence[str] = (),
        **tags: object,
    ) -> AsyncGenerator[WindowResult, None]:
        """Iterate over windows, newest start first, fetching pages as they are needed."""
        uuids = await self._uuids(devices)
        chosen = _requests.window_filter(since, until, request_id, uuids, states, tags)
        request = metering_pb2.ListWindowsRequest(filter=chosen, page_size=_requests.PAGE_SIZE)
        while True:
            page = await call(self._client.stub.ListWindows, request, self.address)
            for window in page.windows:
                yield WindowResult.from_message(window)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def summary(
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
        """Return final windows in groups, with sums, means and quantiles."""
        uuids = await self._uuids(devices)
        chosen = _requests.window_filter(since, until, request_id, uuids, (), tags)
        request = _requests.summary(chosen, by, bucket_s, idle)
        answer = await call(
            self._client.stub.SummarizeWindows,
            request,
            self.address,
            timeout_s=_requests.SUMMARY_S,
        )
        return [Group.from_message(group) for group in answer.groups]

    async def ledger(
        self, since: When | None = None, until: When | None = None, devices: Devices = None
    ) -> list[LedgerRow]:
        """Return the account of an interval, one row a device."""
        request = _requests.ledger(since, until, await self._uuids(devices))
        answer = await call(self._client.stub.GetLedger, request, self.address)
        return [LedgerRow.from_message(row) for row in answer.rows]

    async def devices(self) -> list[Device]:
        """Return the daemon's devices, in NVML's order."""
        request = metering_pb2.ListDevicesRequest()
        answer = await call(self._client.stub.ListDevices, request, self.address)
        return [Device.from_message(device) for device in answer.devices]

    async def status(self) -> Status:
        """Return the daemon's health."""
        request = metering_pb2.GetStatusRequest()
        return Status.from_message(await call(self._client.stub.GetStatus, request, self.address))

    async def snapshot(self, devices: Devices = None) -> list[Sample]:
        """Return the latest sample of each device that was read."""
        request = metering_pb2.GetSnapshotRequest(devices=await self._uuids(devices))
        answer = await call(self._client.stub.GetSnapshot, request, self.address)
        return [Sample.from_message(sample) for sample in answer.samples]

    async def watch_samples(
        self, devices: Devices = None, interval_s: float | None = None
    ) -> AsyncGenerator[Sample, None]:
        """Iterate over samples as they are read.

        It ends with the client, or by ``aclose()``: ``contextlib.aclosing`` calls it
        in time where the iteration is left early.
        """
        request = _requests.watch_samples(await self._uuids(devices), interval_s)
        watch = self._client.stream(self._client.stub.WatchSamples, request, Sample.from_message)
        async with contextlib.aclosing(items(watch)) as samples:
            async for sample in samples:
                yield sample

    async def watch_windows(
        self,
        /,
        since: When | None = None,
        until: When | None = None,
        request_id: str | None = None,
        devices: Devices = None,
        states: Sequence[str] = (),
        **tags: object,
    ) -> AsyncGenerator[WindowResult, None]:
        """Iterate over windows as they become final; ends as ``watch_samples`` does."""
        uuids = await self._uuids(devices)
        chosen = _requests.window_filter(since, until, request_id, uuids, states, tags)
        request = metering_pb2.WatchWindowsRequest(filter=chosen)
        watch = self._client.stream(
            self._client.stub.WatchWindows, request, WindowResult.from_message
        )
        async with contextlib.aclosing(items(watch)) as windows:
            async for window in windows:
                yield window

    async def close(self) -> None:
        """Send what is still to be sent, for at most 2 s, and disconnect.

        Cancelled, it goes on in a thread until then.
        """
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _uuids(self, devices: Devices) -> list[str]:
        return [] if devices is None else _requests.uuids(devices, await self.devices())
