"""From run to run: ledgers, windows and sessions go on where the last run left them.

What is kept is committed with what was booked until there, so that after a kill no joule is
booked twice or lost: the counter's next reading bridges the time between.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import msgspec
from msgspec.structs import replace

from greend.energy.ledger import DeviceLedger
from greend.energy.saved import SavedClaim, SavedLedger, SavedSums
from greend.metering.active import ActiveWindows
from greend.metering.clock import Clock
from greend.metering.kept import KeptEvent, KeptIteration, encode
from greend.metering.registry import DeviceRegistry, MeteredDevice
from greend.metering.windows import ActiveWindow
from greend.model import DeviceInfo, DeviceRecord, Flag, Share, Window, WindowState
from greend.store.recovery import LeftBehind

log = logging.getLogger(__name__)

# For so long, and as long as somebody is expected, what lies in a restart may be told: where
# everybody known is back, for somebody unknown.
LEAST_HOLD_S, LEAST_HOLD_ALL_BACK_S, LONGEST_HOLD_S = 2.5, 0.4, 120.0
HOLD_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a device was, and where its ledger was; None before its first step."""

    info: DeviceInfo
    ledger: SavedLedger | None

    @property
    def sums(self) -> SavedSums | None:
        """The ledger's running sums."""
        return None if self.ledger is None else self.ledger.sums


_ANCHOR = msgspec.msgpack.Decoder(Anchor)
_CLAIM = msgspec.msgpack.Decoder(SavedClaim)
_EVENT = msgspec.msgpack.Decoder(KeptEvent)


def anchor_of(device: MeteredDevice) -> bytes:
    """What is kept of a device."""
    return encode(Anchor(device.info, device.ledger.save()))


class Recovery:
    """Goes on with what the last run left; or closes it, where that cannot be.

    Runs before the daemon serves, on the event loop. `closed` are windows that could not
    go on; the rest is in the registry and among the active windows.
    """

    def __init__(
        self,
        left: LeftBehind,
        active: ActiveWindows,
        registry: DeviceRegistry,
        clock: Clock,
        *,
        remembered: Mapping[str, DeviceRecord],
        boot_id: str,
        floors_mw: Mapping[str, Mapping[bool, float]],
    ) -> None:
        self.closed: list[Window] = []
        same_boot = left.run is not None and left.run.boot_id == boot_id
        self._active = active
        self._registry = registry
        self._anchors: dict[str, Anchor] = {}
        self._claims: dict[tuple[str, str], SavedClaim] = {}
        events: list[KeptEvent] = []
        try:
            self._anchors = {uuid: _ANCHOR.decode(body) for uuid, body in left.anchors.items()}
            self._claims = {key: _CLAIM.decode(body) for key, body in left.claims.items()}
            events = [_EVENT.decode(body) for body in left.events]
        except msgspec.DecodeError as error:  # as of another version
            log.warning("where the last run was cannot be read (%s): nothing goes on", error)
            same_boot = False
        if same_boot:
            for uuid, anchor in self._anchors.items():
                self._find(uuid, anchor, clock, remembered.get(uuid), floors_mw.get(uuid, {}))
        going = [window for window in left.windows if same_boot and self._can_go_on(window)]
        gone = {window.window_id for window in left.windows} - {item.window_id for item in going}
        self.closed = [
            self._as_closed(window) for window in left.windows if window.window_id in gone
        ]
        self._go_on(going)
        if same_boot:
            for event in events:
                self._happened(event)

    @property
    def bridging(self) -> bool:
        """Whether there is a step that what clients tell again may lie in."""
        return bool(self._registry.devices)

    def _find(
        self,
        uuid: str,
        anchor: Anchor,
        clock: Clock,
        record: DeviceRecord | None,
        floors_mw: Mapping[bool, float],
    ) -> None:
        """A device as it was known. What is told of it before it answers is not refused."""
        now_ns = clock.monotonic_ns()
        ledger = DeviceLedger(
            uuid,
            now_ns,
            has_counter=anchor.info.capabilities.energy_counter,
            remembered_floor_mw={} if record is None else record.floors_mw(),
            set_floor_mw=floors_mw,
        )
        if anchor.ledger is not None:
            ledger.go_on(anchor.ledger)
        device = MeteredDevice(anchor.info, ledger, clock.unix_ns)
        device.measured_ns = now_ns
        self._registry.devices[uuid] = device

    # Windows

    def _can_go_on(self, window: Window) -> bool:
        """A device of it is known."""
        return window.start_ns is not None and any(uuid in self._anchors for uuid in _parts(window))

    def _as_closed(self, window: Window) -> Window:
        """With what is known of it. When it ended is not, if it ran."""
        shares = {}
        for uuid in _parts(window):
            share = self._share(window, uuid)
            if share is not None:
                shares[uuid] = share
        flags = window.flags | {Flag.ABANDONED, Flag.PARTIAL}
        active = ActiveWindow(window, 0, awaited=set(), parts={})
        return replace(
            active.having(shares), phases=window.phases, state=WindowState.FINAL, flags=flags
        )

    def _share(self, window: Window, uuid: str) -> Share | None:
        """What a device is known to have given to a window."""
        claim, anchor = self._claims.get((window.window_id, uuid)), self._anchors.get(uuid)
        if claim is None or (anchor is None and claim.sums is not None):
            return None
        return claim.at("", "", None if anchor is None else anchor.sums).share()

    def _go_on(self, windows: list[Window]) -> None:
        restored = [self._active.restore(window, _parts(window)) for window in windows]
        for active in restored:
            parent = self._active.find(active.window.parent_id)
            if parent is not None:
                parent.children.add(active.window.window_id)
        for active in restored:
            parent = self._active.find(active.window.parent_id)
            for uuid in active.parts:
                self._claim(active, uuid, parent.claim_id if parent is not None else "")
        self._active.restored(restored)

    def _claim(self, active: ActiveWindow, uuid: str, parent_claim_id: str) -> None:
        window, anchor = active.window, self._anchors.get(uuid)
        saved = self._claims.get((window.window_id, uuid))
        if anchor is None or (saved is not None and saved.sums is None):
            share = self._share(window, uuid)
            if anchor is None:
                active.flag(Flag.PARTIAL)
            active.settle(uuid, Share(0.0, 0.0, 0.0) if share is None else share)
            return
        ledger = self._registry.devices[uuid].ledger
        begin_ns = ledger.begin_ns
        if saved is None and active.start_ns < begin_ns:  # what it used until then is not known
            active.flag(Flag.RECOVERED)
            active.flag(Flag.PARTIAL)
        if saved is None:
            ledger.start(
                active.claim_id,
                max(active.start_ns, begin_ns),
                window.weight * active.parts[uuid],
                parent_claim_id,
                iteration_driven=window.iteration_driven,
            )
        else:
            ledger.go_on_with(saved.at(active.claim_id, parent_claim_id, anchor.sums))
        for at_ns, name in active.marks:
            if at_ns >= begin_ns or saved is None:
                ledger.phase(active.claim_id, max(at_ns, begin_ns), name)
        if active.stop_ns is not None:
            ledger.stop(active.claim_id, max(active.stop_ns, begin_ns))

    # Events that steps are still to be shared by

    def _happened(self, event: KeptEvent) -> None:
        if event.weight is not None:
            active = self._active.find(event.weight.window_id)
            for uuid in () if active is None else active.awaited:
                ledger, at_ns = self._registry.devices[uuid].ledger, event.weight.at_ns
                if at_ns >= ledger.begin_ns:
                    assert active is not None
                    weight = event.weight.weight * active.parts[uuid]
                    ledger.reweigh(active.claim_id, at_ns, weight)
        if event.iteration is not None:
            self._iterate(event.iteration)

    def _iterate(self, iteration: KeptIteration) -> None:
        found = ((self._active.find(key), cost) for key, cost in iteration.costs.items())
        members = [(active, cost) for active, cost in found if active is not None]
        costs = {active.claim_id: cost for active, cost in members}
        for uuid in dict.fromkeys(uuid for active, _ in members for uuid in active.awaited):
            ledger = self._registry.devices[uuid].ledger
            start_ns = max(iteration.start_ns, ledger.begin_ns)
            if start_ns < iteration.stop_ns:
                ledger.iterate(start_ns, iteration.stop_ns, costs)


async def hold(
    all_back: Callable[[], bool],
    caught_up: Callable[[], bool],
    crowded: Callable[[], bool],
    release: Callable[[], None],
) -> None:
    """Holds the step that bridges the restart open for what clients tell again (rule 9).

    Until all that are expected have told what they had, but for a while: others may come
    that nobody knows of. Nothing is final meanwhile: where there is hardly room for more,
    it ends.
    """
    loop = asyncio.get_running_loop()
    begun_s, held_s = loop.time(), 0.0

    def over() -> bool:
        if held_s < LEAST_HOLD_S:
            return held_s >= LEAST_HOLD_ALL_BACK_S and all_back()
        return caught_up() or crowded() or held_s >= LONGEST_HOLD_S

    while not over():
        await asyncio.sleep(HOLD_LOOK_S)
        held_s = loop.time() - begun_s
    log.info("the time of the restart is shared out now, %.1f s later", held_s)
    release()


def _parts(window: Window) -> Mapping[str, float]:
    """Which part of each device it runs on."""
    return window.parts or cast(Mapping[str, float], dict.fromkeys(window.devices, 1.0))
