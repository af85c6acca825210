"""Windows: opened, ended, asked for."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import uuid6

from greend.energy.ledger import Settled
from greend.errors import GreendError, InvalidArgument, NotFound, OutOfRange, ResourceExhausted
from greend.metering import checks
from greend.metering.clock import Clock
from greend.metering.feed import Feed
from greend.metering.registry import DeviceRegistry, MeteredDevice
from greend.metering.windows import ActiveWindow, check_token, token_digest
from greend.model import NS_PER_S, Flag, Usage, Window, WindowState
from greend.store.reader import StoreReader
from greend.store.writer import StoreWriter

LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class WindowStart:
    """What is asked of a start; None or empty: the daemon's choice."""

    window_id: str
    request_id: str
    devices: Sequence[str]
    tags: dict[str, str]
    weight: float | None
    start_unix_ns: int | None
    session_token: str
    parent_id: str = ""


class WindowService:
    """The windows of this run that are not final, and the way to all others.

    Every method runs on the event loop. What returns a window returns it committed.
    """

    def __init__(
        self,
        registry: DeviceRegistry,
        writer: StoreWriter,
        reader: StoreReader,
        *,
        most_open: int = 100_000,
        clock: Clock,
    ) -> None:
        self.set_pace: Callable[[MeteredDevice], None] = lambda device: None
        self._registry = registry
        self._writer = writer
        self._reader = reader
        self._most_open = most_open
        self._clock = clock
        self._active: dict[str, ActiveWindow] = {}
        # Final because a child that they waited for was cancelled.
        self._aside: list[Window] = []
        self._claims = itertools.count()
        self.finals: Feed[Window] = Feed()

    @property
    def open_count(self) -> int:
        """Windows that run."""
        return sum(active.stop_ns is None for active in self._active.values())

    def is_active(self, window_id: str) -> bool:
        """Whether it is not final, or this is not yet known to be committed."""
        return window_id in self._active

    async def start(self, start: WindowStart) -> Window:
        """Opens a window. The same start again gets the same answer again."""
        window_id = (
            checks.check_window_id(start.window_id) if start.window_id else str(uuid6.uuid7())
        )
        active = self._active.get(window_id)
        if active is not None:
            _check_same(active.window, start)
            active.starters += 1
            await self._commit(active.window)
            return self._so_far(active)
        try:
            active, devices = self._open(window_id, start)
        except GreendError:
            # What could not start now may have started, and ended, long ago.
            known = None
            if start.window_id:
                known = await asyncio.to_thread(self._reader.window, window_id)
            if known is None:
                raise
            _check_same(known, start)
            return self.current(known)
        try:
            inserted = await asyncio.wrap_future(self._writer.insert(active.window))
        except GreendError:
            # Unless it was said again, or ended, meanwhile: then that decides.
            if active.starters == 1 and active.stop_ns is None:
                self._cancel(active, devices)
            raise
        except asyncio.CancelledError:
            # The caller gave up. It can say the start again, if it knows the id.
            if not start.window_id:
                self._end(active, active.window.start_unix_ns, Usage())
            raise
        if not inserted:
            self._cancel(active, devices)
            stored = await self._stored(window_id)
            _check_same(stored, start)
            return stored
        return active.window

    async def stop(
        self,
        window_id: str,
        stop_unix_ns: int | None,
        usage: Usage,
        session_token: str,
        wait_s: float,
    ) -> Window:
        """Ends a window, and waits for its final energy if asked to."""
        window_id = checks.check_window_id(window_id)
        active = self._active.get(window_id)
        window = active.window if active is not None else await self._stored(window_id)
        check_token(window, session_token)
        wait_s = checks.check_wait(wait_s, LONGEST_WAIT_S)
        if active is None:
            return window
        if active.stop_ns is None:
            self._end(active, stop_unix_ns, usage)
        # Also when it was ended before: that may not have been committed.
        await self._commit(active.window)
        return await self._wait(active, wait_s)

    async def get(self, window_id: str, wait_s: float) -> Window:
        """A window as it stands, or final if waited for."""
        window_id = checks.check_window_id(window_id)
        wait_s = checks.check_wait(wait_s, LONGEST_WAIT_S)
        active = self._active.get(window_id)
        if active is None:
            return await self._stored(window_id)
        return await self._wait(active, wait_s)

    def current(self, window: Window) -> Window:
        """A stored window with what it has got so far, if it is not final."""
        active = self._active.get(window.window_id)
        return window if active is None else self._so_far(active)

    async def drain(self, timeout_s: float) -> None:
        """Before the end: lets stopped windows become final, then stores the rest as they are."""
        stopped = [item.finished for item in self._active.values() if item.stop_ns is not None]
        if stopped:
            await asyncio.wait(stopped, timeout=timeout_s)
        left = [self._so_far(active) for active in self._active.values()]
        if left:
            await asyncio.wrap_future(self._writer.write(windows=left))

    # Told by the meter

    def settled(self, device: MeteredDevice, shares: Iterable[Settled]) -> list[Window]:
        """See WindowSink."""
        finals, self._aside = self._aside, []
        for item in shares:
            active = self._active.get(item.window_id.partition("#")[0])
            if active is not None and active.claim_id == item.window_id:
                active.settle(device.info.uuid, item.share)
                finals += self._complete(active)
        return finals

    def device_lost(self, uuid: str) -> None:
        """See WindowSink."""
        for active in self._active.values():
            if uuid in active.awaited:
                active.flag(Flag.PARTIAL)

    def stored(self, window: Window) -> None:
        """A final window is committed."""
        active = self._active.pop(window.window_id, None)
        self.finals.publish(window)
        if active is not None and not active.finished.done():
            active.finished.set_result(window)

    # Inside

    def _complete(self, active: ActiveWindow | None) -> list[Window]:
        """The window if nothing of it is still to come, and ancestors that waited for it."""
        finals: list[Window] = []
        while active is not None and active.complete:
            final = active.as_final()
            finals.append(final)
            active = self._active.get(final.parent_id)
            if active is not None:
                active.take_child(final)
        return finals

    def _check_parent(self, window_id: str, parent_id: str) -> None:
        """Nobody can be their own ancestor."""
        ancestor = parent_id
        while ancestor:
            if ancestor == window_id:
                raise InvalidArgument("parent_id: the window would be its own ancestor")
            active = self._active.get(ancestor)
            ancestor = active.window.parent_id if active is not None else ""

    def _open(
        self, window_id: str, start: WindowStart
    ) -> tuple[ActiveWindow, Sequence[MeteredDevice]]:
        now_ns, offset_ns = self._clock.monotonic_ns(), self._clock.offset_ns
        checks.check_request_id(start.request_id)
        checks.check_tags(start.tags)
        weight = 1.0 if start.weight is None else start.weight
        checks.check_weight(weight)
        start_ns = now_ns if start.start_unix_ns is None else start.start_unix_ns - offset_ns
        checks.check_not_future("start_unix_ns", start_ns, now_ns)
        parent_id = _parent_id(start)
        self._check_parent(window_id, parent_id)
        devices = self._registry.select(start.devices, now_ns)
        for device in devices:
            _check_reach(device, start_ns, now_ns)
        if len(self._active) >= self._most_open:
            raise ResourceExhausted(
                f"{len(self._active)} windows are open or not final yet, the most that are allowed:"
                " stop some first, or allow more ([metering] most_open_windows)"
            )
        uuids = tuple(device.info.uuid for device in devices)
        simulated = any(device.info.simulated for device in devices)
        active = ActiveWindow(
            Window(
                window_id=window_id,
                request_id=start.request_id,
                tags=dict(start.tags),
                devices=uuids,
                start_unix_ns=start_ns + offset_ns,
                weight=weight,
                parent_id=parent_id,
                token_digest=token_digest(start.session_token),
                flags=frozenset({Flag.SIMULATED} if simulated else ()),
            ),
            start_ns,
            awaited=set(uuids),
            claim_id=f"{window_id}#{next(self._claims)}",
        )
        self._active[window_id] = active
        parent = self._active.get(parent_id)
        if parent is not None and not parent.final:
            parent.children.add(window_id)
        parent_claim_id = parent.claim_id if parent is not None else ""
        for device in devices:
            device.ledger.start(active.claim_id, start_ns, weight, parent_claim_id)
            self.set_pace(device)
        return active, devices

    def _end(self, active: ActiveWindow, stop_unix_ns: int | None, usage: Usage) -> None:
        now_ns = self._clock.monotonic_ns()
        if stop_unix_ns is None:
            stop_ns = max(now_ns, active.start_ns)
        else:
            # From the start, so that a wall clock set meanwhile cannot bend it.
            stop_ns = active.start_ns + stop_unix_ns - active.window.start_unix_ns
            checks.check_not_future("stop_unix_ns", stop_ns, now_ns)
        start_unix_ns = active.window.start_unix_ns
        if stop_unix_ns is not None and stop_unix_ns < start_unix_ns:
            early_s = (start_unix_ns - stop_unix_ns) / NS_PER_S
            raise InvalidArgument(f"stop_unix_ns: {early_s:.6f} s before the window's start")
        active.stop(stop_ns, usage)
        for uuid in active.awaited:
            self._registry.devices[uuid].ledger.stop(active.claim_id, stop_ns)

    def _cancel(self, active: ActiveWindow, devices: Iterable[MeteredDevice]) -> None:
        """A start that was not acknowledged never was: its claim ends where it began."""
        del self._active[active.window.window_id]
        parent = self._active.get(active.window.parent_id)
        if parent is not None:
            parent.children.discard(active.window.window_id)
            self._aside += self._complete(parent)
        for device in devices:
            device.ledger.stop(active.claim_id, active.start_ns)

    async def _wait(self, active: ActiveWindow, wait_s: float) -> Window:
        if wait_s > 0:
            await asyncio.wait([active.finished], timeout=wait_s)
        return active.finished.result() if active.finished.done() else self._so_far(active)

    async def _commit(self, window: Window) -> None:
        await asyncio.wrap_future(self._writer.write(windows=[window]))

    async def _stored(self, window_id: str) -> Window:
        window = await asyncio.to_thread(self._reader.window, window_id)
        if window is None:
            running = (key for key, active in self._active.items() if active.stop_ns is None)
            some = ", ".join(itertools.islice(running, 3)) or "none"
            raise NotFound(f"window_id: no window {window_id}; open now: {some}")
        return window

    def _so_far(self, active: ActiveWindow) -> Window:
        shares = dict(active.shares)
        for uuid in active.awaited:
            share = self._registry.devices[uuid].ledger.share(active.claim_id)
            if share is not None:
                shares[uuid] = share
        return replace(active.window, shares=shares)


def close_unfinished(writer: StoreWriter, reader: StoreReader) -> int:
    """Closes windows that a former run could not finish, with what was known of them.

    When those that were open ended is not known. Returns their number; runs before the
    daemon serves.
    """
    closed = [
        replace(
            window,
            state=WindowState.FINAL,
            flags=window.flags | {Flag.ABANDONED, Flag.PARTIAL},
        )
        for window in reader.unfinished()
    ]
    if closed:
        writer.write(windows=closed).result()
    return len(closed)


def _parent_id(start: WindowStart) -> str:
    """In its usual form; empty: none."""
    return checks.check_window_id(start.parent_id, "parent_id") if start.parent_id else ""


def _check_same(known: Window, start: WindowStart) -> None:
    check_token(known, start.session_token)
    same = {
        "request_id": start.request_id == known.request_id,
        "tags": start.tags == known.tags,
        "weight": start.weight in (None, known.weight),
        "devices": not start.devices or set(start.devices) == set(known.devices),
        "start_unix_ns": start.start_unix_ns in (None, known.start_unix_ns),
        "parent_id": _parent_id(start) == known.parent_id,
    }
    others = [name for name, is_same in same.items() if not is_same]
    if others:
        raise InvalidArgument(
            f"window_id: {known.window_id} was started already, with another"
            f" {', '.join(others)}: choose a new id for a new window"
        )


def _check_reach(device: MeteredDevice, start_ns: int, now_ns: int) -> None:
    begin_ns = device.ledger.begin_ns
    if start_ns < begin_ns:
        raise OutOfRange(
            f"start_unix_ns: {(now_ns - start_ns) / NS_PER_S:.1f} s ago; the timeline of"
            f" {device.info.uuid} reaches back {(now_ns - begin_ns) / NS_PER_S:.1f} s"
        )
