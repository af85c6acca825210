"""Sessions: which there are, and how late they may tell of their windows."""

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from greend.errors import FailedPrecondition, InvalidArgument
from greend.metering.active import ActiveWindows
from greend.metering.session import Session
from greend.metering.windows import token_digest
from greend.model import NS_PER_S
from greend.store.reader import StoreReader
from greend.store.recovery import Ended, StoredSession
from greend.store.writer import StoreWriter

log = logging.getLogger(__name__)

LONGEST_LATENESS_S = 120.0
LONGEST_TOKEN_BYTES = 256
# A session whose connection was cut is gone after this long.
AWAY_S = 30.0
# Sessions that are over and yet known: what they say again is not applied twice.
MOST_ENDED = 10_000


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
    # The last event that the client had when it came.
    last_sequence: int = 0
    current: bool = True
    # The client said that nothing more will come.
    closed: bool = False
    going: asyncio.TimerHandle | None = None


class Sessions:
    """Sessions by their secret. Every method runs on the event loop.

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
    ) -> None:
        self._active = active
        self._writer = writer
        self._reader = reader
        self._set_lateness = set_lateness
        self._boot_id = boot_id()
        # By the digest of their secret: those with a connection, or without one for a moment.
        self._live: dict[bytes, Connection] = {}
        self._ended: OrderedDict[bytes, Session] = OrderedDict()
        self._lateness_ns = 0
        self._stopped = False
        # Those of the last run that did not come back yet, and what of theirs is committed.
        self._expected: dict[bytes, int] = {}
        self.lost_windows = 0
        """Windows that clients gave up, as they told it in this run."""

    @asynccontextmanager
    async def connect(self, opening: Opening) -> AsyncIterator[Connection]:
        """Opens a session, or goes on with it, for as long as the block lasts.

        Raises InvalidArgument; FailedPrecondition for a client of another boot or host.
        """
        lateness_ns = self._check(opening)
        key = token_digest(opening.session_token)
        before = self._live.pop(key, None)
        if before is not None:
            session = before.session
            before.current = False
            session.news.set()  # whoever waits there is to notice
            if before.going is not None:
                before.going.cancel()
        else:
            session = self._new(opening) if key not in self._ended else self._ended.pop(key)
        log.debug("session of pid %d, uid %d is connected", opening.pid, opening.uid)
        connection = self._live[key] = Connection(session, lateness_ns, opening.last_sequence)
        self._lateness_changed()
        try:
            yield connection
        finally:
            if connection.current:
                self._left(key, connection)

    @property
    def caught_up(self) -> bool:
        """Whether all are back that are expected, and have told what they had to tell."""
        behind = (
            connection.session.acknowledged < connection.last_sequence
            for connection in self._live.values()
        )
        return not self._expected and not any(behind)

    def gave_up(self, session: Session, windows: int) -> None:
        """The client of a session has given up so many windows by now."""
        self.lost_windows += max(windows - session.lost_windows, 0)
        session.lost_windows = max(windows, session.lost_windows)

    def stop(self) -> None:
        """Before the end: nothing that is late will be told any more."""
        self._stopped = True
        self._lateness_changed()

    def expect(self, sessions: Iterable[StoredSession]) -> None:
        """Sessions of the last run, which may come back."""
        self._expected = {item.digest: item.acknowledged for item in sessions}

    def _new(self, opening: Opening) -> Session:
        session = Session(opening.session_token, self._active, self._writer, self._reader)
        acknowledged = self._expected.pop(session.digest, None)
        if acknowledged is not None:
            session.go_on(acknowledged)
        return session

    def _left(self, key: bytes, connection: Connection) -> None:
        if connection.closed:
            self._end(key)
        else:
            loop = asyncio.get_running_loop()
            connection.going = loop.call_later(AWAY_S, self._end, key)

    def _end(self, key: bytes) -> None:
        session = self._ended[key] = self._live.pop(key).session
        self._writer.write(kept=Ended(key))
        session.finals.clear()
        if len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)
        self._lateness_changed()

    def _lateness_changed(self) -> None:
        asked_ns = [connection.lateness_ns for connection in self._live.values()]
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
        if opening.boot_id and not hmac.compare_digest(opening.boot_id, self._boot_id):
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
