"""The windows of this run that are not final: what happens to them, and what they get."""

import itertools
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from greend.energy.ledger import Settled
from greend.errors import InvalidArgument, NotFound, OutOfRange, ResourceExhausted
from greend.metering import checks
from greend.metering.clock import Clock
from greend.metering.feed import Feed
from greend.metering.owners import Owners
from greend.metering.registry import DeviceRegistry, MeteredDevice
from greend.metering.starts import WindowStart, parent_of
from greend.metering.windows import ActiveWindow, token_digest
from greend.model import NS_PER_S, Flag, Usage, Window

# Of the windows that may be, so many leave little room.
CROWDED = 0.75


class ActiveWindows:
    """Opens and ends windows, and books what happens to them in between.

    Events may come in any order, early or late. Instants are CLOCK_MONOTONIC ns; the
    names of fields in errors are those of the protocol. Every method runs on the event
    loop; nothing is stored here.
    """

    def __init__(
        self,
        registry: DeviceRegistry,
        clock: Clock,
        *,
        most_open: int = 100_000,
        most_per_session: int = 50_000,
    ) -> None:
        self.catch_up: Callable[[MeteredDevice], None] = lambda device: None
        self.set_pace: Callable[[MeteredDevice], None] = lambda device: None
        self.finals: Feed[Window] = Feed()
        self._registry = registry
        self._most_open = most_open
        self._clock = clock
        self._active: dict[str, ActiveWindow] = {}
        self._owners = Owners(most_per_session)
        # Final because a child that they waited for was cancelled.
        self._aside: list[Window] = []
        # How many of them name it as their parent.
        self._named: Counter[str] = Counter()
        self._claims = itertools.count()

    @property
    def open_count(self) -> int:
        """Windows that run."""
        return sum(active.stop_ns is None for active in self._active.values())

    @property
    def crowded(self) -> bool:
        """Whether soon no more may be opened, here or by a session."""
        return len(self._active) > CROWDED * self._most_open or self._owners.crowded(CROWDED)

    def is_active(self, window_id: str) -> bool:
        """Whether it is not final, or this is not yet known to be committed."""
        return window_id in self._active

    def find(self, window_id: str) -> ActiveWindow | None:
        """A window, by its id in the usual form."""
        return self._active.get(window_id)

    @property
    def now_ns(self) -> int:
        """The instant, on the clock of events."""
        return self._clock.monotonic_ns()

    def of_session(self, digest: bytes) -> list[ActiveWindow]:
        """Those of a session, by the digest of its secret."""
        return self._owners.of(digest)

    def all(self) -> list[ActiveWindow]:
        """Every one of them."""
        return list(self._active.values())

    def so_far(self, active: ActiveWindow) -> Window:
        """A window with what it has got so far."""
        shares = dict(active.shares)
        for uuid in active.awaited:
            share = self._registry.devices[uuid].ledger.share(active.claim_id)
            if share is not None:
                shares[uuid] = share
        return active.having(shares)

    def unknown(self, window_id: str) -> NotFound:
        """The error of a window that is neither here nor stored."""
        running = (key for key, active in self._active.items() if active.stop_ns is None)
        some = ", ".join(itertools.islice(running, 3)) or "none"
        return NotFound(f"window_id: no window {window_id}; open now: {some}")

    # Events

    def open(self, window_id: str, start: WindowStart) -> ActiveWindow:
        """Opens a window. Raises what DESIGN.md's "Bad input" says."""
        now_ns, offset_ns = self._clock.monotonic_ns(), self._clock.offset_ns
        checks.check_request_id(start.request_id)
        checks.check_tags(start.tags)
        weight = 1.0 if start.weight is None else start.weight
        checks.check_weight(weight)
        name, start_ns = start.instant(now_ns, offset_ns)
        checks.check_not_future(name, start_ns, now_ns)
        parent_id = parent_of(start)
        self._check_parent(window_id, parent_id)
        digest = token_digest(start.session_token)
        places = self._registry.select(start.devices, now_ns)
        for place in places:
            self.catch_up(place.device)
            _check_reach(place.device, name, start_ns, now_ns)
        if len(self._active) >= self._most_open:
            raise ResourceExhausted(
                f"{len(self._active)} windows are open or not final yet, the most that are allowed:"
                " stop some first, or allow more ([metering] most_open_windows)"
            )
        self._owners.check_room(digest)
        parts = {place.device.info.uuid: place.part for place in places}
        cards = tuple([place.device.info.uuid for place in places if place.by_instance])
        flags = {Flag.MIG} if cards else set()
        if any(place.device.info.simulated for place in places):
            flags.add(Flag.SIMULATED)
        active = ActiveWindow(
            Window(
                window_id=window_id,
                request_id=start.request_id,
                tags=start.tags,
                devices=tuple([uuid for place in places for uuid in place.named]),
                start_unix_ns=start_ns + offset_ns,
                weight=weight,
                parent_id=parent_id,
                cards=cards,
                token_digest=digest,
                start_ns=start_ns,
                parts=parts if cards else None,
                flags=frozenset(flags),
                iteration_driven=start.iteration_driven,
            ),
            start_ns,
            awaited=set(parts),
            parts=parts,
            claim_id=f"{window_id}#{next(self._claims)}",
        )
        self._claim(active)
        return active

    def _claim(self, active: ActiveWindow) -> None:
        window = active.window
        self._keep(active)
        parent = self._active.get(window.parent_id)
        if parent is not None and not parent.final:
            parent.children.add(window.window_id)
        parent_claim_id = parent.claim_id if parent is not None else ""
        for uuid, part in active.parts.items():
            device = self._registry.devices[uuid]
            device.ledger.start(
                active.claim_id,
                active.start_ns,
                window.weight * part,
                parent_claim_id,
                iteration_driven=window.iteration_driven,
            )
            self.set_pace(device)

    def restore(self, window: Window, parts: Mapping[str, float]) -> ActiveWindow:
        """A window of the last run goes on; the caller tells the ledgers."""
        assert window.start_ns is not None
        start_ns, offset_ns = window.start_ns, window.start_unix_ns - window.start_ns
        stop_unix_ns = window.stop_unix_ns
        active = ActiveWindow(
            window,
            start_ns,
            awaited=set(parts),
            parts=parts,
            claim_id=f"{window.window_id}#{next(self._claims)}",
            stop_ns=None if stop_unix_ns is None else stop_unix_ns - offset_ns,
            marks=[
                (phase.start_unix_ns - offset_ns, phase.name)
                for phase in window.phases
                if phase.name
            ],
            stored=True,
        )
        self._keep(active)
        return active

    def restored(self, windows: Iterable[ActiveWindow]) -> None:
        """All is known of these: nothing may be still to come."""
        for active in windows:
            self._aside += self._complete(active)

    def cancel(self, active: ActiveWindow) -> None:
        """A start that was not acknowledged never was: its claim ends where it began."""
        self._forget(active.window)
        parent = self._active.get(active.window.parent_id)
        if parent is not None:
            parent.children.discard(active.window.window_id)
            self._aside += self._complete(parent)
        for uuid in active.parts:
            self._registry.devices[uuid].ledger.stop(active.claim_id, active.start_ns)

    def end(self, active: ActiveWindow, stop_ns: int | None, name: str = "monotonic_ns") -> None:
        """Ends a window, now if no instant is given. Ended before, it stays as it is."""
        if active.stop_ns is not None:
            return
        now_ns = self._clock.monotonic_ns()
        if stop_ns is None:
            stop_ns = max(now_ns, active.start_ns)
        checks.check_not_future(name, stop_ns, now_ns)
        _check_after_start(active, stop_ns, name)
        active.stop(stop_ns)
        for uuid in active.awaited:
            self._registry.devices[uuid].ledger.stop(active.claim_id, stop_ns)

    def abandon(self, active: ActiveWindow, at_ns: int) -> None:
        """Nobody will end a window any more: it ended at `at_ns`, if it began before."""
        if active.stop_ns is None:
            active.flag(Flag.ABANDONED)
            self.end(active, max(at_ns, active.start_ns))

    def weigh(self, active: ActiveWindow, at_ns: int, weight: float) -> None:
        """A window has another weight from an instant on."""
        checks.check_weight(weight)
        self._check_within(active, at_ns)
        for uuid in active.awaited:
            claimed = weight * active.parts[uuid]
            self._registry.devices[uuid].ledger.reweigh(active.claim_id, at_ns, claimed)

    def begin_phase(self, active: ActiveWindow, at_ns: int, name: str) -> None:
        """A phase of a window begins; the one before ends."""
        checks.check_phase(name)
        self._check_within(active, at_ns)
        if (at_ns, name) in active.marks:
            return  # told again
        if len(active.marks) >= checks.MOST_PHASES:
            raise InvalidArgument(
                f"phase: a window has at most {checks.MOST_PHASES}, and this one has them already"
            )
        insort(active.marks, (at_ns, name))
        for uuid in active.awaited:
            self._registry.devices[uuid].ledger.phase(active.claim_id, at_ns, name)

    def use(self, active: ActiveWindow, at_ns: int, usage: Usage) -> None:
        """Something is known of what a request did."""
        self._check_within(active, at_ns)
        active.use(usage)

    def first_token(self, active: ActiveWindow, at_ns: int) -> None:
        """A request's first token was there."""
        self._check_within(active, at_ns)
        offset_ns = active.window.start_unix_ns - active.start_ns
        active.use(Usage(first_token_unix_ns=at_ns + offset_ns))

    def iterate(
        self, start_ns: int, stop_ns: int, costs: Sequence[tuple[ActiveWindow, float]]
    ) -> None:
        """A batch execution ran, whose members' weights are shared out by cost meanwhile."""
        checks.check_not_future("stop_monotonic_ns", stop_ns, self._clock.monotonic_ns())
        if stop_ns <= start_ns:
            early_s = (start_ns - stop_ns) / NS_PER_S
            raise InvalidArgument(
                f"stop_monotonic_ns: {early_s:.6f} s before the iteration's start, or at it"
            )
        claims = {active.claim_id: cost for active, cost in costs}
        uuids = dict.fromkeys(uuid for active, _ in costs for uuid in active.awaited)
        devices = [self._registry.devices[uuid] for uuid in uuids]
        for device in devices:
            _check_reach(device, "monotonic_ns", start_ns, self._clock.monotonic_ns())
        for device in devices:
            device.ledger.iterate(start_ns, stop_ns, claims)
        for active, _ in costs:
            if not active.window.iteration_driven:
                active.window = replace(active.window, iteration_driven=True)

    # Told by the meter

    def settled(self, device: MeteredDevice, shares: Iterable[Settled]) -> list[Window]:
        """See WindowSink."""
        finals, self._aside = self._aside, []
        for item in shares:
            active = self._claiming(item.window_id)
            if active is not None:
                active.settle(device.info.uuid, item.share)
                finals += self._complete(active)
        return finals

    def goes_on(self, claim_id: str) -> bool:
        """See WindowSink."""
        active = self._claiming(claim_id)
        return active is not None and not active.final

    def parents_of(self, finals: Iterable[Window]) -> list[Window]:
        """See WindowSink."""
        parents = (self._active.get(final.parent_id) for final in finals if final.parent_id)
        return [item.as_stored() for item in parents if item is not None and not item.final]

    def device_lost(self, uuid: str) -> None:
        """See WindowSink."""
        for active in self._active.values():
            if uuid in active.awaited:
                active.flag(Flag.PARTIAL)

    def stored(self, window: Window) -> None:
        """A final window is committed."""
        active = self._forget(window)
        self.finals.publish(window)
        if active is not None:
            active.committed(window)

    # Inside

    def _claiming(self, claim_id: str) -> ActiveWindow | None:
        active = self._active.get(claim_id.partition("#")[0])
        return active if active is not None and active.claim_id == claim_id else None

    def _keep(self, active: ActiveWindow) -> None:
        window = active.window
        self._active[window.window_id] = active
        self._owners.add(active)
        if window.parent_id:
            self._named[window.parent_id] += 1

    def _forget(self, window: Window) -> ActiveWindow | None:
        active = self._active.pop(window.window_id, None)
        if active is None:
            return None
        self._owners.discard(active)
        if window.parent_id:
            self._named[window.parent_id] -= 1
            if not self._named[window.parent_id]:
                del self._named[window.parent_id]
        return active

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
        if parent_id != window_id and window_id not in self._named:
            return  # it is nobody's
        ancestor = parent_id
        while ancestor:
            if ancestor == window_id:
                raise InvalidArgument("parent_id: the window would be its own ancestor")
            active = self._active.get(ancestor)
            ancestor = active.window.parent_id if active is not None else ""

    def _check_within(self, active: ActiveWindow, at_ns: int) -> None:
        if active.final:
            raise already_final(active.window)
        checks.check_not_future("monotonic_ns", at_ns, self._clock.monotonic_ns())
        _check_after_start(active, at_ns, "monotonic_ns")
        if active.stop_ns is not None and at_ns > active.stop_ns:
            late_s = (at_ns - active.stop_ns) / NS_PER_S
            raise InvalidArgument(f"monotonic_ns: {late_s:.6f} s after the window's stop")


def already_final(window: Window) -> OutOfRange:
    """The error of an event of a window that is final."""
    return OutOfRange(f"window_id: window {window.window_id} is final, and never changes again")


def _check_after_start(active: ActiveWindow, at_ns: int, name: str) -> None:
    if at_ns < active.start_ns:
        early_s = (active.start_ns - at_ns) / NS_PER_S
        raise InvalidArgument(f"{name}: {early_s:.6f} s before the window's start")


def _check_reach(device: MeteredDevice, name: str, start_ns: int, now_ns: int) -> None:
    begin_ns = device.ledger.begin_ns
    if start_ns < begin_ns:
        raise OutOfRange(
            f"{name}: {(now_ns - start_ns) / NS_PER_S:.1f} s ago; the timeline of"
            f" {device.info.uuid} reaches back {(now_ns - begin_ns) / NS_PER_S:.1f} s"
        )
