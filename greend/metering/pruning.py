"""Deleting history: what is too old by itself, the rest when an operator says so."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from greend.energy.closed_step import KEPT_NS
from greend.errors import InvalidArgument
from greend.model import NS_PER_S, WindowState
from greend.store.prunable import Extent, MinuteKey, Prunable
from greend.store.reader import Key, WindowQuery
from greend.store.retention import Retention, expired
from greend.store.writer import StoreWriter

log = logging.getLogger(__name__)

# Deleting this many rows takes a few ms: no acknowledgement waits longer for it.
STEP_ROWS = 200
# Late windows change what the timeline holds, which ends some minutes ago, too: steps stay
# open for lateness, and what they book waits for a flush. Booked into a minute that was
# deleted, the difference would be all that is left of it.
UNSETTLED_NS = KEPT_NS + 300 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Pruned:
    """How far a deletion is. What matched is as of its beginning; instants are Unix ns."""

    matching: Extent
    matching_minutes: int
    until_unix_ns: int
    windows: int = 0
    minutes: int = 0


class Pruner:
    """Deletes windows that are final, and minutes, in small steps; owned by the event loop.

    A window that `is_active` knows is left alone: what became of it may still be told.
    """

    def __init__(
        self,
        prunable: Prunable,
        writer: StoreWriter,
        *,
        is_active: Callable[[str], bool],
        now_unix_ns: Callable[[], int],
    ) -> None:
        self._prunable = prunable
        self._writer = writer
        self._is_active = is_active
        self._now_unix_ns = now_unix_ns

    async def expire(self, retention: Retention) -> bool:
        """Deletes a step of what is kept no longer; True if there may be more."""
        windows, minutes = await asyncio.to_thread(
            expired, self._prunable, retention, self._now_unix_ns(), STEP_ROWS
        )
        return any(await self._delete(windows, minutes))

    async def prune(
        self, query: WindowQuery, *, minutes: bool, dry_run: bool
    ) -> AsyncIterator[Pruned]:
        """Deletes what a query means, telling how far it is; the last word is the result.

        With `minutes`, also the ledger's minutes that lie as a whole in the query's time,
        but for those that may still change. What starts meanwhile is not meant. Raises
        InvalidArgument, naming the field.
        """
        check_prune(query, minutes)
        now_ns = self._now_unix_ns()
        until_ns = now_ns if query.until_unix_ns is None else min(query.until_unix_ns, now_ns)
        settled_ns = min(until_ns, now_ns - UNSETTLED_NS)
        query = replace(query, until_unix_ns=until_ns)
        count_minutes = self._prunable.count_minutes if minutes else lambda *_: 0
        pruned = Pruned(
            await asyncio.to_thread(self._prunable.extent, query),
            await asyncio.to_thread(count_minutes, query.since_unix_ns, settled_ns),
            until_ns,
        )
        yield pruned
        if dry_run:
            return
        try:
            async for count in self._delete_windows(query):
                pruned = replace(pruned, windows=pruned.windows + count)
                yield pruned
            if minutes:
                async for count in self._delete_minutes(query.since_unix_ns, settled_ns):
                    pruned = replace(pruned, minutes=pruned.minutes + count)
                    yield pruned
        finally:
            log.info("deleted %d windows, %d minutes: %s", pruned.windows, pruned.minutes, query)

    async def _delete_windows(self, query: WindowQuery) -> AsyncIterator[int]:
        after: Key | None = None
        while keys := await asyncio.to_thread(
            self._prunable.windows, query, limit=STEP_ROWS, after=after
        ):
            after = keys[-1]
            count, _ = await self._delete(keys, ())
            yield count

    async def _delete_minutes(
        self, since_unix_ns: int | None, until_unix_ns: int
    ) -> AsyncIterator[int]:
        while keys := await asyncio.to_thread(
            self._prunable.minutes, since_unix_ns, until_unix_ns, limit=STEP_ROWS
        ):
            _, count = await self._delete((), keys)
            yield count

    async def _delete(
        self, windows: Sequence[Key], minutes: Sequence[MinuteKey]
    ) -> tuple[int, int]:
        ids = [window_id for _, window_id in windows if not self._is_active(window_id)]
        return await asyncio.wrap_future(self._writer.delete(ids, minutes))


def check_prune(query: WindowQuery, minutes: bool) -> None:
    """Raises InvalidArgument for what must not or cannot be deleted."""
    since_ns, until_ns = query.since_unix_ns, query.until_unix_ns
    by_time = since_ns is not None or until_ns is not None
    by_kind = bool(query.tags or query.devices) or query.request_id is not None
    if not by_time and not by_kind:
        raise InvalidArgument(
            "filter: without a condition everything would be deleted; give at least one of"
            " since_unix_ns, until_unix_ns, tags, request_id, devices"
        )
    if set(query.states) - {WindowState.FINAL}:
        raise InvalidArgument("filter.states: only windows that are final can be deleted")
    if since_ns is not None and until_ns is not None and until_ns < since_ns:
        raise InvalidArgument("filter.until_unix_ns: before since_unix_ns")
    if minutes and (by_kind or not by_time):
        raise InvalidArgument(
            "minutes: the ledger's minutes are of all windows; they can be deleted by time alone"
            " (since_unix_ns, until_unix_ns)"
        )
