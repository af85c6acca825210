"""MeteringService: convert, call, convert."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable

from greend import __version__
from greend.errors import InvalidArgument
from greend.metering import health
from greend.metering.active import ActiveWindows
from greend.metering.backup import Backups
from greend.metering.clock import Clock
from greend.metering.meter import Meter
from greend.metering.query import Query, matches
from greend.metering.service import WindowService
from greend.metering.sessions import Sessions
from greend.metering.starts import WindowStart
from greend.model import NS_PER_S
from greend.rpc import convert
from greend.rpc.interceptor import Context
from greend.rpc.record import record
from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from greend_proto.v1 import types_pb2 as types

LONGEST_INTERVAL_S = 3600.0
CHUNK_BYTES = 256 * 1024


class MeteringServicer(metering_pb2_grpc.MeteringServiceServicer):
    """What is not defined here answers UNIMPLEMENTED."""

    def __init__(
        self,
        active: ActiveWindows,
        windows: WindowService,
        sessions: Sessions,
        query: Query,
        meter: Meter,
        clock: Clock,
        backups: Backups,
        *,
        store_error: Callable[[], str | None],
    ) -> None:
        self._active = active
        self._windows = windows
        self._sessions = sessions
        self._query = query
        self._meter = meter
        self._registry = meter.registry
        self._backups = backups
        self._store_error = store_error
        self._start_unix_ns = clock.unix_ns
        self._clock = clock

    async def GetStatus(  # noqa: N802
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """The daemon's health, part by part."""
        now_ns = self._clock.monotonic_ns()
        devices = list(self._registry.devices.values())
        ages = [age_s for item in devices if (age_s := item.sample_age_s(now_ns)) is not None]
        parts = health.parts(self._registry, now_ns, self._store_error())
        return pb.GetStatusResponse(
            version=__version__,
            state="degraded" if any(parts.values()) else "serving",
            start_unix_ns=self._start_unix_ns,
            pid=os.getpid(),
            parts=[
                pb.GetStatusResponse.Part(
                    name=name, state="failed" if message else "ok", message=message
                )
                for name, message in parts.items()
            ],
            open_windows=self._active.open_count,
            devices_ok=sum(device.state(now_ns)[0] == "ok" for device in devices),
            devices_total=len(devices),
            simulated=any(device.info.simulated for device in devices),
            sample_age_s=max(ages, default=None),
            lost_windows=self._sessions.lost_windows,
        )

    async def ListDevices(  # noqa: N802
        self, request: pb.ListDevicesRequest, context: Context
    ) -> pb.ListDevicesResponse:
        """The devices, in NVML's order."""
        devices = sorted(self._registry.devices.values(), key=lambda device: device.info.index)
        now_ns, offset_ns = self._clock.monotonic_ns(), self._clock.offset_ns
        return pb.ListDevicesResponse(
            devices=[convert.device_to_message(device, now_ns, offset_ns) for device in devices]
        )

    async def StartWindow(  # noqa: N802
        self, request: pb.StartWindowRequest, context: Context
    ) -> types.Window:
        """Opens a window."""
        window = await self._windows.start(
            WindowStart(
                window_id=request.window_id,
                request_id=request.request_id,
                devices=list(request.devices),
                tags=dict(request.tags),
                weight=request.weight if request.HasField("weight") else None,
                start_unix_ns=request.start_unix_ns if request.HasField("start_unix_ns") else None,
                session_token=request.session_token,
                parent_id=request.parent_id,
            )
        )
        return convert.window_to_message(window)

    async def StopWindow(  # noqa: N802
        self, request: pb.StopWindowRequest, context: Context
    ) -> types.Window:
        """Ends a window."""
        window = await self._windows.stop(
            request.window_id,
            request.stop_unix_ns if request.HasField("stop_unix_ns") else None,
            convert.usage_from_message(request.usage),
            request.session_token,
            request.wait_s,
        )
        return convert.window_to_message(window)

    async def GetWindow(  # noqa: N802
        self, request: pb.GetWindowRequest, context: Context
    ) -> types.Window:
        """One window."""
        return convert.window_to_message(await self._windows.get(request.window_id, request.wait_s))

    def RecordWindows(  # noqa: N802
        self, requests: AsyncIterator[pb.RecordWindowsRequest], context: Context
    ) -> AsyncIterator[pb.RecordWindowsResponse]:
        """The hot path: see greend/rpc/record.py."""
        return record(self._sessions, requests)

    async def ListWindows(  # noqa: N802
        self, request: pb.ListWindowsRequest, context: Context
    ) -> pb.ListWindowsResponse:
        """A page of windows."""
        windows, token = await self._query.windows(
            convert.filter_from_message(request.filter), request.page_size, request.page_token
        )
        return pb.ListWindowsResponse(
            windows=[convert.window_to_message(window) for window in windows],
            next_page_token=token,
        )

    async def SummarizeWindows(  # noqa: N802
        self, request: pb.SummarizeWindowsRequest, context: Context
    ) -> pb.SummarizeWindowsResponse:
        """Windows in groups."""
        groups = await self._query.summary(
            convert.filter_from_message(request.filter),
            list(request.by),
            request.bucket_s if request.HasField("bucket_s") else None,
            request.idle,
        )
        return pb.SummarizeWindowsResponse(
            groups=[convert.group_to_message(group) for group in groups]
        )

    async def GetSnapshot(  # noqa: N802
        self, request: pb.GetSnapshotRequest, context: Context
    ) -> pb.GetSnapshotResponse:
        """The latest sample of each device."""
        offset_ns = self._clock.offset_ns
        return pb.GetSnapshotResponse(
            samples=[
                convert.sample_to_message(device.latest, offset_ns)
                for device in self._registry.named(list(request.devices))
                if device.latest is not None
            ]
        )

    async def WatchSamples(  # noqa: N802
        self, request: pb.WatchSamplesRequest, context: Context
    ) -> AsyncIterator[types.Sample]:
        """A live feed of samples."""
        interval_s = request.interval_s if request.HasField("interval_s") else 0.0
        if not 0 <= interval_s <= LONGEST_INTERVAL_S:
            raise InvalidArgument(
                f"interval_s: {interval_s} is not between 0 and {LONGEST_INTERVAL_S:.0f} s"
            )
        interval_ns = round(interval_s * NS_PER_S)
        due_ns: dict[str, int] = {}
        with self._meter.watch(list(request.devices)) as samples:
            await context.send_initial_metadata(())  # from here on nothing is missed
            async for sample in samples:
                if sample.monotonic_ns >= due_ns.get(sample.device, 0):
                    due_ns[sample.device] = sample.monotonic_ns + interval_ns
                    yield convert.sample_to_message(sample, self._clock.offset_ns)

    async def WatchWindows(  # noqa: N802
        self, request: pb.WatchWindowsRequest, context: Context
    ) -> AsyncIterator[types.Window]:
        """A live feed of windows that became final."""
        query = convert.filter_from_message(request.filter)
        await self._query.check_filter(query)
        with self._active.finals.watch() as finals:
            await context.send_initial_metadata(())  # from here on nothing is missed
            async for window in finals:
                if matches(query, window):
                    yield convert.window_to_message(window)

    async def GetLedger(  # noqa: N802
        self, request: pb.GetLedgerRequest, context: Context
    ) -> pb.GetLedgerResponse:
        """The account of an interval."""
        rows = await self._query.ledger(
            list(request.devices),
            request.since_unix_ns if request.HasField("since_unix_ns") else None,
            request.until_unix_ns if request.HasField("until_unix_ns") else None,
        )
        return pb.GetLedgerResponse(rows=convert.ledger_to_messages(rows))

    async def Backup(  # noqa: N802
        self, request: pb.BackupRequest, context: Context
    ) -> AsyncIterator[pb.BackupChunk]:
        """A copy of what is kept."""
        async with self._backups.copy() as copy:
            total_bytes: int | None = os.fstat(copy.fileno()).st_size
            while data := await asyncio.to_thread(copy.read, CHUNK_BYTES):
                yield pb.BackupChunk(total_bytes=total_bytes, data=data)
                total_bytes = None
