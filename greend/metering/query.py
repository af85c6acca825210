"""What is asked of the past."""

import asyncio
import base64
import binascii
import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from greend.errors import GreendError, InvalidArgument
from greend.metering.checks import MOST_TAGS, check_key, check_tags
from greend.metering.registry import MOST_DEVICES, DeviceRegistry, check_devices
from greend.metering.summary import Group, summarize
from greend.model import NS_PER_S, Window, WindowState
from greend.store.reader import Key, StoreReader, WindowQuery

Result = TypeVar("Result")

USUAL_PAGE, LARGEST_PAGE = 100, 1000
LONGEST_BUCKET_S = 1e9
# Each takes seconds, and a thread of the few that all reading shares.
MOST_SUMMARIES = 2


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A device's account of whole minutes, in mJ and ns; instants are Unix ns."""

    device: str
    start_unix_ns: int
    stop_unix_ns: int
    measured_mj: float
    windows_mj: float
    idle_mj: float
    unattributed_mj: float
    gap_mj: float
    unknown_ns: float


class Query:
    """History, read from the store in threads."""

    def __init__(
        self,
        reader: StoreReader,
        registry: DeviceRegistry,
        current: Callable[[Window], Window],
        flush: Callable[[], "asyncio.Future[object]"],
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._current = current
        self._flush = flush
        self._summaries = asyncio.Semaphore(MOST_SUMMARIES)

    async def windows(
        self, query: WindowQuery, page_size: int, page_token: str
    ) -> tuple[list[Window], str]:
        """A page of windows, newest start first, and the token of the next page."""
        await self.check_filter(query)
        size = page_size or USUAL_PAGE
        if not 1 <= size <= LARGEST_PAGE:
            raise InvalidArgument(f"page_size: {size} is not between 1 and {LARGEST_PAGE}")
        after = _from_token(page_token) if page_token else None
        found = await _read(
            lambda given_up: self._reader.windows(
                query, limit=size + 1, after=after, given_up=given_up
            )
        )
        page = found[:size]
        token = ""
        if len(found) > size:
            token = _to_token((page[-1].start_unix_ns, page[-1].window_id))
        return [self._current(window) for window in page], token

    async def summary(
        self, query: WindowQuery, by: Sequence[str], bucket_s: float | None, idle: str
    ) -> list[Group]:
        """Final windows in groups; waits while others are summed up.

        Raises InvalidArgument, naming the field.
        """
        await self.check_filter(query)
        if len(by) > MOST_TAGS:
            raise InvalidArgument(f"by: {len(by)} keys, at most {MOST_TAGS} make groups")
        for key in by:
            check_key("by", key)
        if len(set(by)) != len(by):
            raise InvalidArgument("by: a tag key is named twice")
        if bucket_s is not None and not 1 <= bucket_s <= LONGEST_BUCKET_S:
            raise InvalidArgument(
                f"bucket_s: {bucket_s} is not between 1 and {LONGEST_BUCKET_S:.0f} s"
            )
        if idle not in ("", "include", "exclude"):
            raise InvalidArgument(f"idle: {idle!r} is neither 'include' nor 'exclude'")

        def read(given_up: threading.Event) -> list[Group]:
            windows = self._reader.measured(query, by, given_up)
            return summarize(windows, by, bucket_s=bucket_s, include_idle=idle != "exclude")

        async with self._summaries:
            return await _read(read)

    async def ledger(
        self, devices: Sequence[str], since_unix_ns: int | None, until_unix_ns: int | None
    ) -> list[LedgerRow]:
        """The account of the whole minutes that touch an interval, device by device."""
        _check_interval(since_unix_ns, until_unix_ns)
        await self._check_devices(devices)
        # What cannot be written now is still booked later; reading goes on.
        with contextlib.suppress(GreendError):
            await asyncio.shield(self._flush())
        since_s = None if since_unix_ns is None else since_unix_ns // NS_PER_S // 60 * 60
        until_s = None if until_unix_ns is None else -(-until_unix_ns // NS_PER_S)
        rows = await asyncio.to_thread(self._reader.ledger, devices, since_s, until_s)
        return [
            LedgerRow(
                first.device,
                first.minute_unix_s * NS_PER_S,
                (last_minute_s + 60) * NS_PER_S,
                first.measured_mj,
                first.windows_mj,
                first.idle_mj,
                first.unattributed_mj,
                first.gap_mj,
                first.unknown_ns,
            )
            for first, last_minute_s in rows
        ]

    async def check_filter(self, query: WindowQuery) -> None:
        """Raises InvalidArgument for what no window can have, NotFound for no device."""
        states = [str(state) for state in WindowState]
        for state in set(query.states):
            if state not in states:
                raise InvalidArgument(f"states: {state!r} is none of {', '.join(states)}")
        check_tags(query.tags)
        _check_interval(query.since_unix_ns, query.until_unix_ns)
        known = await self._known(query.devices)
        unknown = [uuid for uuid in dict.fromkeys(query.devices) if uuid not in known]
        # A MIG instance that was destroyed has history, too.
        destroyed = [uuid for uuid in unknown[:MOST_DEVICES] if await self._has_windows(uuid)]
        check_devices(query.devices, known | dict.fromkeys(destroyed))

    async def _has_windows(self, uuid: str) -> bool:
        query = WindowQuery(devices=[uuid])
        found = await _read(
            lambda given_up: self._reader.windows(query, limit=1, given_up=given_up)
        )
        return bool(found)

    async def _check_devices(self, uuids: Sequence[str]) -> None:
        instances = self._registry.cards().keys() - self._registry.devices.keys()
        known = await self._known(uuids)
        check_devices(uuids, [uuid for uuid in known if uuid not in instances])

    async def _known(self, uuids: Sequence[str]) -> dict[str, None]:
        """Devices and MIG instances, those of former runs among them if they are asked for."""
        known = dict.fromkeys(self._registry.cards())
        if not all(uuid in known for uuid in uuids):
            # A device of a former run has history, too, but no place in the registry.
            known |= {record.uuid: None for record in await asyncio.to_thread(self._reader.devices)}
        return known


async def _read(read: Callable[[threading.Event], Result]) -> Result:
    """Reads in a thread, which ends soon after its caller has given up: there are few, and
    the daemon waits for them when it ends.
    """
    given_up = threading.Event()
    try:
        return await asyncio.to_thread(read, given_up)
    finally:
        given_up.set()


def _check_interval(since_unix_ns: int | None, until_unix_ns: int | None) -> None:
    if since_unix_ns is not None and until_unix_ns is not None and until_unix_ns < since_unix_ns:
        early_s = (since_unix_ns - until_unix_ns) / NS_PER_S
        raise InvalidArgument(f"until_unix_ns: {early_s:.3f} s before since_unix_ns")


def matches(query: WindowQuery, window: Window) -> bool:
    """Whether a window is among those that a query means."""
    since_unix_ns, stop_unix_ns = query.since_unix_ns, window.stop_unix_ns
    return (
        (since_unix_ns is None or stop_unix_ns is None or stop_unix_ns >= since_unix_ns)
        and (query.until_unix_ns is None or window.start_unix_ns < query.until_unix_ns)
        and all(window.tags.get(key) == value for key, value in query.tags.items())
        and query.request_id in (None, window.request_id)
        and (not query.devices or not set(query.devices).isdisjoint(window.devices + window.cards))
        and (not query.states or window.state in query.states)
    )


def _to_token(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _from_token(token: str) -> Key:
    try:
        start_unix_ns, window_id = json.loads(base64.urlsafe_b64decode(token))
        if not -(2**63) <= int(start_unix_ns) < 2**63:
            raise ValueError(start_unix_ns)
        str(window_id).encode()  # JSON has text that is none
        return int(start_unix_ns), str(window_id)
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidArgument("page_token: not one that this daemon gave") from None
