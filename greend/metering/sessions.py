"""Sessions: which there are, how late they may tell of their windows, and when they are over."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from greend.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from greend.metering.active import ActiveWindows
from greend.metering.allowance import Allowance
from greend.metering.ended import Ended, EndedSessions
from greend.metering.refusals import from_kept, to_kept
from greend.metering.session import LONGEST_TURN_S, Session
from greend.metering.windows import ActiveWindow, token_digest
from greend.model import NS_PER_S, Window
from greend.store.reader import StoreReader
from greend.store.recovery import Run, SessionOver, StoredSession, Told
from greend.store.writer import StoreWriter

log = logging.getLogger(__name__)

LONGEST_LATENESS_S = 120.0
LONGEST_TOKEN_BYTES = 256
# A session whose connection was cut is gone after this long.
AWAY_S = 30.0


def boot_id() -> str:
    """This boot of this host: instants of CLOCK_MONOTONIC mean nothing in another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Opening:
    """What a client says of itself; uid and pid are claims, for information."""

    session_token: str
    boot_id: str
    lateness_s: float
    uid: int
    pid: int
    # The last event that the client has to tell now.
    last_sequence: int = 0


@dataclass(slots=True, eq=False)
class Connection:
    """A stream of a session; of several the newest one is `current`."""

    session: Session
    lateness_ns: int
    allowance: Allowance
    # The last event that the client had to tell when it came.
    last_sequence: int = 0
    current: bool = True
    # The client has told something on it.
    told: bool = False
    # The client said that nothing more will come.
    closed: bool = False


@dataclass(frozen=True, slots=True)
class _Away:
    """A session whose connection was lost at `left_ns`; it is over when `going` is due.

    `session` is None for one of the last run, of which only `known` is.
    """

    session: Session | None
    known: Ended
    lateness_ns: int
    left_ns: int
    going: asyncio.TimerHandle


class Sessions:
    """Sessions by their secret. Every method runs on the event loop.

    What a session leaves open when it is over was ended at its last sign of life.
    `set_lateness` is told whenever the largest allowance that a live session asked for
    has changed, in ns.
    """

    def __init__(
        self,
        active: ActiveWindows,
        writer: StoreWriter,
        reader: StoreReader,
        *,
        set_lateness: Callable[[int], None],
        most: int = 1_000,
        events_per_s: int = 50_000,
    ) -> None:
        self._active = active
        self._writer = writer
        self._reader = reader
        self._set_lateness = set_lateness
        self._most = most
        self._events_per_s = events_per_s
        self._boot_id = boot_id()
        # By the digest of their secret.
        self._connected: dict[bytes, Connection] = {}
        self._away: dict[bytes, _Away] = {}
        self._expected: set[bytes] = set()  # of the last run, whatever became of them
        self._ended = EndedSessions()
        self._abandoning: set[asyncio.Task[None]] = set()
        self._lateness_ns = 0
        self._stopped = False
        self.lost_windows = 0
        """Windows that clients gave up, as they told it in this run."""

    @asynccontextmanager
    async def connect(self, opening: Opening) -> AsyncIterator[Connection]:
        """Opens a session, or goes on with it, for as long as the block lasts.

        Raises InvalidArgument; FailedPrecondition for a client of another boot or host;
        ResourceExhausted if there are too many.
        """
        lateness_ns = self._check(opening)
        key = token_digest(opening.session_token)
        session = self._go_on(key, opening.session_token)
        log.debug("session of pid %d, uid %d is connected", opening.pid, opening.uid)
        allowance = Allowance(self._events_per_s, time.monotonic())
        connection = Connection(session, lateness_ns, allowance, opening.last_sequence)
        self._connected[key] = connection
        session.tell_again()
        self._keep(StoredSession(key, session.acknowledged))
        self._lateness_changed()
        try:
            yield connection
        finally:
            if connection.current:
                self._left(key, connection)

    def expect(
        self,
        sessions: Iterable[StoredSession],
        run: Run,
        refusals: Mapping[bytes, Sequence[tuple[int, bytes]]],
    ) -> None:
        """Sessions of the last run, which may come back as if their connections were lost.

        Their time runs from now, as it was the daemon that was away. `refusals` are by
        their digests, as they were stored.
        """
        for one in sessions:
            self._expected.add(one.digest)
            left_ns = run.alive_ns if one.left_ns is None else one.left_ns
            if one.left_ns is None:  # or the next run would take this one's life for theirs
                self._keep(StoredSession(one.digest, one.acknowledged, left_ns))
            refused = from_kept(refusals.get(one.digest, ()))
            self._went(one.digest, None, Ended(one.acknowledged, refused), 0, left_ns)

    @property
    def all_back(self) -> bool:
        """Whether every session of the last run has told what it had; False if there was none."""
        missing = (self._away.get(key) for key in self._expected)
        return (
            bool(self._expected)
            and self.caught_up
            and not any(away is not None and away.session is None for away in missing)
        )

    @property
    def caught_up(self) -> bool:
        """Whether those of the last run are back, or over, and all have told what they had.

        A session without a window is not waited for: it would be back by now.
        """
        missing = (key for key, away in self._away.items() if away.session is None)
        return not any(self._active.of_session(key) for key in missing) and not any(
            one.session.acknowledged < one.last_sequence for one in self._connected.values()
        )

    def gave_up(self, session: Session, windows: int) -> None:
        """The client of a session has given up so many windows by now."""
        self.lost_windows += max(windows - session.lost_windows, 0)
        session.lost_windows = max(windows, session.lost_windows)

    def stop(self) -> None:
        """Before the end: nothing that is late will be told any more."""
        self._stopped = True
        self._lateness_changed()

    def _go_on(self, key: bytes, token: str) -> Session:
        """The session of a secret: where it was left, or from the beginning."""
        connected = self._connected.pop(key, None)
        if connected is not None:
            connected.current = False
            connected.session.news.set()  # whoever waits there is to notice
            return connected.session
        away = self._away.pop(key, None)
        if away is not None:
            away.going.cancel()
            if away.session is not None:
                return away.session
        elif len(self._connected) + len(self._away) >= self._most:
            raise ResourceExhausted(
                f"{self._most} sessions are live, the most that are allowed: close some first"
                f" (one that is cut counts for {AWAY_S:g} s), or allow more ([metering]"
                " most_sessions)"
            )
        session = Session(token, self._active, self._writer, self._reader)
        known = self._ended.take(key) if away is None else away.known
        if known is not None:
            session.go_on(known.acknowledged, known.refusals)
        if known is not None and away is None:  # it was over: the store knows nothing of it
            told = StoredSession(key, known.acknowledged)
            self._writer.write(kept=Told(told, refusals=to_kept(known.refusals)))
        return session

    def _left(self, key: bytes, connection: Connection) -> None:
        session = self._connected.pop(key).session
        now_ns = self._active.now_ns
        if connection.closed:
            self._end(key, Ended(session.acknowledged, session.refused()), now_ns)
        else:
            known = Ended(session.acknowledged)
            self._went(key, session, known, connection.lateness_ns, now_ns)
            self._keep(StoredSession(key, session.acknowledged, now_ns))

    def _went(
        self,
        key: bytes,
        session: Session | None,
        known: Ended,
        lateness_ns: int,
        left_ns: int,
    ) -> None:
        going = asyncio.get_running_loop().call_later(AWAY_S, self._gone, key)
        self._away[key] = _Away(session, known, lateness_ns, left_ns, going)

    def _gone(self, key: bytes) -> None:
        away = self._away.pop(key)
        ended = away.known
        if away.session is not None:
            # What was told last may have been committed since.
            ended = Ended(away.session.acknowledged, away.session.refused())
        self._end(key, ended, away.left_ns)

    def _end(self, key: bytes, ended: Ended, last_life_ns: int) -> None:
        self._ended.add(key, ended)
        self._lateness_changed()
        left = self._active.of_session(key)
        for active in left:
            active.on_final = None  # nobody is there to be told
        task = asyncio.create_task(self._abandon(key, left, last_life_ns))
        self._abandoning.add(task)
        task.add_done_callback(self._abandoning.discard)

    def _keep(self, session: StoredSession) -> None:
        self._writer.write(kept=Told(session))

    async def _abandon(self, key: bytes, left: Iterable[ActiveWindow], last_life_ns: int) -> None:
        """Ends those that are open. Others are let in meanwhile: it may be much."""
        ended: list[Window] = []
        turn_s = time.monotonic()
        for active in left:
            if active.stop_ns is None:
                self._active.abandon(active, last_life_ns)
                ended.append(active.as_stored())
            if time.monotonic() - turn_s > LONGEST_TURN_S:
                await asyncio.sleep(0)
                turn_s = time.monotonic()
        is_back = key in self._connected or key in self._away
        self._writer.write(windows=ended, kept=None if is_back else SessionOver(key))
        if ended:
            log.warning(
                "a session is over and left %d windows open: closed as abandoned", len(ended)
            )

    def _lateness_changed(self) -> None:
        asked_ns = [one.lateness_ns for one in self._connected.values()]
        asked_ns += [one.lateness_ns for one in self._away.values()]
        lateness_ns = 0 if self._stopped else max(asked_ns, default=0)
        if lateness_ns != self._lateness_ns:
            self._lateness_ns = lateness_ns
            self._set_lateness(lateness_ns)

    def _check(self, opening: Opening) -> int:
        """The allowance asked for, in ns."""
        if not opening.session_token:
            raise InvalidArgument("session_token: it is empty; a random one of 128 bits is right")
        if len(opening.session_token.encode()) > LONGEST_TOKEN_BYTES:
            raise InvalidArgument(f"session_token: longer than {LONGEST_TOKEN_BYTES} bytes")
        if opening.boot_id not in ("", self._boot_id):
            raise FailedPrecondition(
                f"boot_id: {opening.boot_id[:64]!r} is another boot, or another host, than the"
                f" daemon's ({self._boot_id}), where its instants mean nothing: connect to the"
                " daemon of the host that the work runs on"
            )
        if not 0 <= opening.lateness_s <= LONGEST_LATENESS_S:
            raise InvalidArgument(
                f"lateness_s: {opening.lateness_s} is not between 0 and {LONGEST_LATENESS_S:g}"
            )
        return round(opening.lateness_s * NS_PER_S)
