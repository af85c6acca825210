"""A window until it is final."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from msgspec.structs import asdict, replace

from greend.errors import PermissionDenied
from greend.metering.phases import Mark, own_bound, window_phases
from greend.model import NS_PER_MS, NS_PER_S, Bound, Flag, Share, Usage, Window, WindowState

# Shorter than the counter's usual step: most of the figure is shaping.
SHORT_NS = 100 * NS_PER_MS
_NOTHING = Usage()


@dataclass(slots=True)
class ActiveWindow:
    """A window and what is still to come of it. Owned by the event loop.

    `finished` is done, and `on_final` called, when the final window is committed.
    """

    window: Window
    start_ns: int
    awaited: set[str]
    # Of each device, the part on which it runs: its weight there is so much of its own.
    parts: Mapping[str, float]
    # How the ledgers know it: unlike the window's id, never used again.
    claim_id: str = ""
    stop_ns: int | None = None
    shares: dict[str, Share] = field(default_factory=dict)
    # When its phases began, in order of time.
    marks: list[Mark] = field(default_factory=list)
    # Its children that are not final.
    children: set[str] = field(default_factory=set)
    final: bool = False
    # Whether the store is known to have it.
    stored: bool = False
    # Calls that said its start.
    starters: int = 1
    on_final: Callable[[Window], None] | None = None
    # The final window, when it is committed. Most have nobody who waits for it.
    _committed: Window | None = None
    _finished: "asyncio.Future[Window] | None" = None

    def stop(self, stop_ns: int) -> None:
        """The window has ended; its energy is still to come."""
        self.stop_ns = stop_ns
        window, length_ns = self.window, stop_ns - self.start_ns
        self.window = replace(
            window,
            # From the length, so that a wall clock set meanwhile cannot bend it.
            stop_unix_ns=window.start_unix_ns + length_ns,
            state=WindowState.STOPPED,
            flags=window.flags | {Flag.SHORT} if length_ns < SHORT_NS else window.flags,
        )

    def flag(self, flag: Flag) -> None:
        """Something to know of its figures."""
        self.window = replace(self.window, flags=self.window.flags | {flag})

    def use(self, usage: Usage) -> None:
        """Adds to what is known of what the request did."""
        self.window = replace(self.window, usage=_merged(self.window.usage, usage))

    def settle(self, device: str, share: Share) -> None:
        """Takes a device's final share."""
        self.shares[device] = share
        self.awaited.discard(device)

    def take_child(self, child: Window) -> None:
        """Takes a child that is final: what it got belongs to its parent, too."""
        self.children.discard(child.window_id)
        idle_mj = sum(share.idle_mj for share in child.shares.values())
        active_mj = sum(share.active_mj for share in child.shares.values())
        self.window = replace(
            self.window,
            flags=self.window.flags.union(all_flags(child)) - ({Flag.SHORT} - self.window.flags),
            descendants_idle_mj=self.window.descendants_idle_mj
            + idle_mj
            + child.descendants_idle_mj,
            descendants_active_mj=self.window.descendants_active_mj
            + active_mj
            + child.descendants_active_mj,
            descendants_bound=self.window.descendants_bound.plus(child.bound or Bound()).plus(
                child.descendants_bound
            ),
        )

    @property
    def finished(self) -> "asyncio.Future[Window]":
        """Done when the final window is committed."""
        if self._finished is None:
            self._finished = asyncio.get_running_loop().create_future()
            if self._committed is not None:
                self._finished.set_result(self._committed)
        return self._finished

    def committed(self, final: Window) -> None:
        """The final window is committed."""
        self._committed = final
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(final)
        if self.on_final is not None:
            self.on_final(final)

    @property
    def complete(self) -> bool:
        """Nothing is still to come, and it was not said before."""
        return not self.awaited and not self.children and not self.final

    def as_final(self) -> Window:
        """The window with its final figures."""
        self.final = True
        return replace(self.having(self.shares), state=WindowState.FINAL)

    def as_stored(self) -> Window:
        """The window as it stands, without what it got."""
        return self.having({}) if self.marks else self.window

    def having(self, shares: Mapping[str, Share]) -> Window:
        """The window with what its devices gave to it."""
        measured = [share for share in shares.values() if share.source is not None]
        window = self.window
        offset_ns = window.start_unix_ns - self.start_ns
        return replace(
            window,
            shares=dict(shares),
            bound=own_bound(measured),
            phases=window_phases(self.marks, self.start_ns, self.stop_ns, offset_ns, measured),
        )


def _merged(known: Usage, said: Usage) -> Usage:
    if known == _NOTHING:
        return said
    news = {name: value for name, value in asdict(said).items() if value is not None}
    return replace(known, **news)


def all_flags(window: Window) -> list[Flag]:
    """A window's flags and those of its shares."""
    return sorted(window.flags.union(*(share.flags for share in window.shares.values())))


def duration_s(window: Window) -> float | None:
    """A window's length; None while it runs."""
    if window.stop_unix_ns is None:
        return None
    return (window.stop_unix_ns - window.start_unix_ns) / NS_PER_S


@lru_cache(maxsize=256)  # it is asked for with every event
def token_digest(session_token: str) -> bytes:
    """What is kept of a session's secret."""
    return hashlib.sha256(session_token.encode()).digest() if session_token else b""


def check_token(window: Window, session_token: str) -> None:
    """Raises PermissionDenied unless `session_token` is what the window was started with."""
    known = window.token_digest
    if known and not hmac.compare_digest(known, token_digest(session_token)):
        raise PermissionDenied(
            f"window {window.window_id} belongs to another session: it can be changed only with"
            " the session_token that it was started with"
        )
