"""One session: its events are applied once, committed, then acknowledged."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from greend.errors import GreendError, Internal, InvalidArgument
from greend.metering import checks
from greend.metering.active import ActiveWindows, already_final
from greend.metering.events import Change, Event, FirstToken, Iteration, PhaseBegin, Stop, Weight
from greend.metering.kept import KeptEvent, KeptIteration, KeptWeight, encode
from greend.metering.refusals import MOST_REFUSALS, Refusals, Refused, to_kept
from greend.metering.starts import WindowStart, check_same
from greend.metering.windows import ActiveWindow, check_token, token_digest
from greend.model import Usage, Window
from greend.store.reader import StoreReader
from greend.store.recovery import StoredSession, Told
from greend.store.writer import StoreWriter

log = logging.getLogger(__name__)

LARGEST_BATCH = 10_000
# The store's integers end there.
LARGEST_SEQUENCE = 2**63 - 1
# Of a large batch, so much is done before others are let in.
LONGEST_TURN_S = 0.02
# Final windows that wait for a client to take them, or to come back.
LONGEST_BACKLOG = 10_000


# Windows that the store was asked for; None: it has none.
Known = dict[str, Window | None]


@dataclass(slots=True)
class _Unsaved:
    """A window that changed since the store had it; `start` is the event, if it is new."""

    active: ActiveWindow
    start: Event | None = None


class Session:
    """What a client told, and what it is to be told. Owned by the event loop.

    `news` is set when there is something to be told: `acknowledged`, which is the number
    up to which everything is committed, or something in `refusals` or `finals`.
    """

    def __init__(
        self, token: str, active: ActiveWindows, writer: StoreWriter, reader: StoreReader
    ) -> None:
        self.acknowledged = 0
        self.lost_windows = 0  # that its client gave up
        self.refusals: deque[Refused] = deque(maxlen=MOST_REFUSALS)
        self.finals: deque[Window] = deque(maxlen=LONGEST_BACKLOG)
        self.news = asyncio.Event()
        self.digest = token_digest(token)
        self._token = token
        self._active = active
        self._writer = writer
        self._reader = reader
        # The last one taken; it may not be committed yet.
        self._taken = 0
        self._unsaved: dict[str, _Unsaved] = {}
        # Of what was taken, as it may be said again by a client that missed the answer.
        self._refused = Refusals()
        # Of what was taken, what the store has to be asked about, and why.
        self._later: list[tuple[Event, GreendError | None]] = []
        # Of these nothing is in a window's row.
        self._events: list[tuple[int, bytes]] = []
        self._lock = asyncio.Lock()

    async def take(self, events: Sequence[Event]) -> None:
        """Applies and commits those that are new; those that were taken before are only
        answered again.

        One that is wrong is refused by itself. Raises InvalidArgument, and applies
        nothing, if they are out of order or too many; ResourceExhausted or Unavailable if
        they cannot be committed: then they are to be told again.
        """
        _check_order(events)
        # Not given up half way: what was applied has to be committed.
        await asyncio.shield(asyncio.ensure_future(self._take(events)))

    def go_on(self, acknowledged: int, refusals: Iterable[Refused] = ()) -> None:
        """Goes on with a session that was over, or of the last run; `refusals` are stored."""
        self.acknowledged = self._taken = acknowledged
        self._refused = Refusals(refusals)
        for active in self._active.of_session(self.digest):
            active.on_final = self.final

    def refused(self) -> list[Refused]:
        """What was refused, the newest last, as it may be told again."""
        return self._refused.all()

    def tell_again(self) -> None:
        """There is a new stream: what was refused may have been lost with the one before."""
        self.refusals.clear()
        self.refusals.extend(self._refused.unheard())

    def heard(self, sequence: int) -> None:
        """The client has heard the acknowledgement of all up to this number."""
        self._refused.heard(min(sequence, self.acknowledged))

    def final(self, window: Window) -> None:
        """A window of this session is final."""
        self.finals.append(window)
        self.news.set()

    async def _take(self, events: Sequence[Event]) -> None:
        async with self._lock:
            later, turn_s = self._later, time.monotonic()
            for event in events:
                if time.monotonic() - turn_s > LONGEST_TURN_S:
                    await asyncio.sleep(0)  # others are waiting
                    turn_s = time.monotonic()
                if event.sequence <= self._taken:
                    self._answer_again(event)
                    continue
                self._taken = event.sequence
                self._take_one(event, later)
            if later:  # kept if the store cannot be asked: they count as taken
                await self._settle(later)
                self._later = []
            taken = self._taken
            await self._commit(taken)
            self.acknowledged = taken
            self.news.set()

    def _take_one(self, event: Event, later: list[tuple[Event, GreendError | None]]) -> None:
        """Applies an event, or refuses it, or puts it off."""
        try:
            if not self._apply(event):
                later.append((event, None))
        except GreendError as error:
            # What could not start now may have started, and ended, long ago.
            if isinstance(event.what, WindowStart):
                later.append((event, error))
            else:
                self._refuse(event, error)
        except Exception:  # one bad event is one bad event; said again, it would fail again
            log.exception("event %d of window %r failed", event.sequence, event.window_id[:64])
            message = f"event: internal error; the daemon's log says more: event {event.sequence}"
            self._refuse(event, Internal(message))

    def _apply(self, event: Event) -> bool:
        """False: of windows that are not open, or final; the store has to be asked."""
        what = event.what
        if isinstance(what, Iteration):
            return self._iterate(event, what, {})
        if what is None:
            raise InvalidArgument("event: nothing that this version of greend knows is told")
        window_id = checks.check_window_id(event.window_id)
        active = self._active.find(window_id)
        if isinstance(what, WindowStart):
            self._start(window_id, active, event, what)
            return True
        if active is None:
            return False
        check_token(active.window, self._token)
        active.on_final = self.final
        self._change(active, event.at_ns, what)
        if window_id not in self._unsaved:
            self._unsaved[window_id] = _Unsaved(active)
        return True

    def _start(
        self, window_id: str, active: ActiveWindow | None, event: Event, start: WindowStart
    ) -> None:
        if active is None:
            active = self._active.open(window_id, start)
            self._unsaved[window_id] = _Unsaved(active, event)
        else:
            check_same(active.window, start)
            if active.start_ns != start.start_ns:
                raise InvalidArgument(
                    f"window_id: {window_id} was started already, at another instant: choose a new"
                    " id for a new window"
                )
            active.starters += 1
            self._unsaved.setdefault(window_id, _Unsaved(active))
        active.on_final = self.final

    def _change(self, active: ActiveWindow, at_ns: int, what: Change) -> None:
        match what:
            case Weight(weight):
                self._active.weigh(active, at_ns, weight)
                kept = KeptWeight(active.window.window_id, at_ns, weight)
                self._events.append((at_ns, encode(KeptEvent(weight=kept))))
            case PhaseBegin(name):
                self._active.begin_phase(active, at_ns, name)
            case Usage():
                self._active.use(active, at_ns, what)
            case FirstToken():
                self._active.first_token(active, at_ns)
            case Stop():
                self._active.end(active, at_ns)

    def _iterate(self, event: Event, what: Iteration, known: Known) -> bool:
        """False if the store has to be asked for some of the members first."""
        checks.check_members(len(what.costs))
        members: list[tuple[ActiveWindow, float]] = []
        for told_id, cost in what.costs.items():
            window_id = checks.check_window_id(told_id, "costs")
            active = self._active.find(window_id)
            if active is not None:
                check_token(active.window, self._token)
                members.append((active, cost))
                continue
            if window_id not in known:
                return False
            window = known[window_id]
            if window is None:
                raise self._active.unknown(window_id)
            check_token(window, self._token)  # what is final claims no part
        checks.check_costs(what.costs)
        self._active.iterate(event.at_ns, what.stop_ns, members)
        costs = {active.window.window_id: cost for active, cost in members}
        kept = KeptIteration(event.at_ns, what.stop_ns, costs)
        self._events.append((what.stop_ns, encode(KeptEvent(iteration=kept))))
        return True

    # Events of windows that are not active

    async def _settle(self, later: Iterable[tuple[Event, GreendError | None]]) -> None:
        """Of windows that are final, or that nobody knows: for these, the error is told."""
        ids = {window_id for event, _ in later for window_id in _named(event)}
        stored = await asyncio.to_thread(self._reader.windows_by_id, ids)
        known: Known = {window_id: stored.get(window_id) for window_id in ids}
        for event, error in later:
            try:
                if isinstance(event.what, Iteration):
                    self._iterate(event, event.what, known)
                else:
                    self._say_again(event, known, error)
            except GreendError as refusal:
                self._refuse(event, refusal)

    def _say_again(self, event: Event, known: Known, error: GreendError | None) -> None:
        window_id = checks.check_window_id(event.window_id)
        window = known[window_id]
        if window is None:
            raise error or self._active.unknown(window_id)
        if isinstance(event.what, WindowStart):
            check_same(window, event.what)
        else:
            check_token(window, self._token)
            if not isinstance(event.what, Stop):
                raise already_final(window)
        self.finals.append(window)

    def _refuse(self, event: Event, error: GreendError) -> None:
        # Anew: the one that was raised holds on to the calls, and all events of their batches.
        told = type(error)(str(error))
        refused = Refused(event.sequence, told)
        self._refused.add(refused)
        self.refusals.append(refused)

    def _answer_again(self, event: Event) -> None:
        refused = self._refused.find(event.sequence)
        if refused is not None:
            self.refusals.append(refused)

    # The store

    async def _commit(self, taken: int) -> None:
        """One write for all; what cannot be written is kept for the next time."""
        if not (self._unsaved or self._refused.unsaved) and taken == self.acknowledged:
            return
        new: list[Window] = []
        changed: list[Window] = []
        for item in self._unsaved.values():
            is_new = item.start is not None and not item.active.stored and not item.active.final
            (new if is_new else changed).append(item.active.as_stored())
        news = refused, heard = self._refused.news()
        told = Told(StoredSession(self.digest, taken), self._events, to_kept(refused), heard)
        there = await asyncio.wrap_future(self._writer.insert(new, changed, told))
        saved, self._unsaved = self._unsaved, {}
        self._events = []
        self._refused.saved(news)
        elsewhere: list[tuple[Event, GreendError | None]] = []
        for window_id, item in saved.items():
            if window_id in there and not item.active.stored and item.start is not None:
                self._active.cancel(item.active)
                elsewhere.append((item.start, None))
            item.active.stored = True
        if elsewhere:
            await self._settle(elsewhere)
            if self._refused.unsaved:
                await self._commit(taken)


def _named(event: Event) -> Iterator[str]:
    """The ids of an event's windows, in their usual form."""
    told = event.what.costs if isinstance(event.what, Iteration) else [event.window_id]
    for window_id in told:
        with suppress(InvalidArgument):
            yield checks.check_window_id(window_id)


def check_count(count: int) -> None:
    """Bounded: a batch is taken as a whole."""
    if count > LARGEST_BATCH:
        raise InvalidArgument(f"events: {count} in a batch, at most {LARGEST_BATCH} are taken")


def _check_order(events: Sequence[Event]) -> None:
    check_count(len(events))
    before = 0
    for event in events:
        if not before < event.sequence <= LARGEST_SEQUENCE:
            raise InvalidArgument(
                f"events: sequence {event.sequence} after {before}: numbers begin with 1,"
                f" grow, and end with {LARGEST_SEQUENCE}"
            )
        before = event.sequence
