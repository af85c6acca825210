"""Devices as the meter knows them: their ledger, their health, their pace."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from greend.energy.ledger import DeviceLedger
from greend.errors import InvalidArgument, NotFound, Unavailable
from greend.model import NS_PER_S, DeviceInfo, DeviceRecord, Sample

HUNG_NS = 5 * NS_PER_S
# The daemon looks at its devices more often than this, unless it was frozen itself.
ASLEEP_NS = 3 * NS_PER_S
MOST_DEVICES = 1000


@dataclass(slots=True)
class MeteredDevice:
    """One device. Owned by the event loop."""

    info: DeviceInfo
    ledger: DeviceLedger
    since_unix_ns: int
    latest: Sample | None = None
    lost_reason: str | None = None
    fast_until_ns: int = 0
    # Of this fast spell, until when samples may come more often still; 0 in none.
    sharpen_until_ns: int = 0
    interval_ns: int = 0
    watchers: int = 0
    # In this run: one of the last run is here before it answers.
    found: bool = False
    # The last reading of energy or power; silence since then is a failure.
    measured_ns: int = 0
    # Whether the next run of the daemon could go on with its ledger.
    anchored: bool = False
    # Samples that are not booked yet (Meter.catch_up).
    put_off: list[Sample] = field(default_factory=list)

    def state(self, now_ns: int) -> tuple[str, str]:
        """("ok" | "lost" | "hung", why and since when, for people)."""
        if self.lost_reason is not None:
            since_s = (now_ns - self.measured_ns) / NS_PER_S
            return "lost", f"{self.lost_reason} (for {since_s:.0f} s)"
        silent_ns = now_ns - self.measured_ns
        if silent_ns > HUNG_NS:
            return "hung", f"no reading for {silent_ns / NS_PER_S:.0f} s"
        return "ok", ""

    def sample_age_s(self, now_ns: int) -> float | None:
        """Time since its energy or power was read; None before the first reading."""
        return None if self.latest is None else (now_ns - self.measured_ns) / NS_PER_S

    def record(self, now_unix_ns: int) -> DeviceRecord:
        """What is remembered of it."""
        return DeviceRecord(
            self.info.uuid,
            self.info.name,
            now_unix_ns,
            self.ledger.floor.floor_mw(context_alive=False),
            self.ledger.floor.floor_mw(context_alive=True),
        )


class Place(msgspec.Struct, frozen=True, gc=False):
    """A device on which a window runs: all of it, or the MIG instances that were named.

    `part` is their part of its compute slices.
    """

    device: MeteredDevice
    named: tuple[str, ...]
    part: float = 1.0

    @property
    def by_instance(self) -> bool:
        """Whether MIG instances were named."""
        return self.named != (self.device.info.uuid,)


@dataclass(slots=True)
class DeviceRegistry:
    """The devices of this run, by UUID."""

    devices: dict[str, MeteredDevice] = field(default_factory=dict)
    driver_error: str | None = None
    # GPUs that the driver knows and that could not be opened.
    missing: list[str] = field(default_factory=list)
    begin_ns: int = field(default_factory=time.monotonic_ns)
    _beat_ns: int = 0

    def beat(self, now_ns: int) -> None:
        """The daemon runs. Time in which it did not is no silence of its devices."""
        slept_ns = now_ns - self._beat_ns
        if self._beat_ns and slept_ns > ASLEEP_NS:
            for device in self.devices.values():
                device.measured_ns = min(device.measured_ns + slept_ns, now_ns)
        self._beat_ns = now_ns

    def select(self, uuids: Sequence[str], now_ns: int) -> list[Place]:
        """Where a window runs that names devices and MIG instances; in NVML's order.

        If it names none, all devices that answer. Raises NotFound for an unknown one,
        Unavailable for one that does not answer.
        """
        self.beat(now_ns)
        if not uuids:
            answering = [item for item in self.devices.values() if item.state(now_ns)[0] == "ok"]
            if not answering:
                raise self._unavailable(now_ns)
            return _places({item.info.uuid: [item.info.uuid] for item in answering}, self.devices)
        cards = self.cards()
        if (self.driver_error or not self.devices) and not cards.keys() >= set(uuids):
            raise self._unavailable(now_ns)  # nobody can tell whether there are such
        check_devices(uuids, cards)
        named: dict[str, list[str]] = {}
        for uuid in dict.fromkeys(uuids):
            named.setdefault(cards[uuid], []).append(uuid)
        for uuid in named:
            state, reason = self.devices[uuid].state(now_ns)
            if state != "ok":
                raise Unavailable(f"device {uuid} is {state}: {reason}")
        return _places(named, self.devices)

    def cards(self) -> dict[str, str]:
        """The device that each UUID is on: its own, and those of its MIG instances now."""
        cards = {uuid: uuid for uuid in self.devices}
        for uuid, item in self.devices.items():
            cards.update((instance.uuid, uuid) for instance in item.info.instances)
        return cards

    def _unavailable(self, now_ns: int) -> Unavailable:
        last_ns = max((item.measured_ns for item in self.devices.values()), default=self.begin_ns)
        states = ((item.info.uuid, *item.state(now_ns)) for item in self.devices.values())
        reasons = [f"{uuid} is {state}: {why}" for uuid, state, why in states] + self.missing
        why = self.driver_error or "; ".join(reasons) or "still looking for GPUs"
        return Unavailable(
            f"no GPU can be measured for {(now_ns - last_ns) / NS_PER_S:.0f} s: {why}"
        )

    def named(self, uuids: Sequence[str]) -> list[MeteredDevice]:
        """The devices named, or all, whether they answer or not; in NVML's order."""
        chosen = self._found(uuids) if uuids else list(self.devices.values())
        return sorted(chosen, key=lambda item: item.info.index)

    def _found(self, uuids: Sequence[str]) -> list[MeteredDevice]:
        check_devices(uuids, self.devices)
        return [self.devices[uuid] for uuid in dict.fromkeys(uuids)]


def _places(named: Mapping[str, list[str]], devices: Mapping[str, MeteredDevice]) -> list[Place]:
    places = [
        Place(devices[card], tuple(uuids), _part(devices[card].info, uuids))
        for card, uuids in named.items()
    ]
    return sorted(places, key=lambda place: place.device.info.index)


def _part(card: DeviceInfo, uuids: Collection[str]) -> float:
    if card.uuid in uuids or card.compute_slices is None:
        return 1.0
    slices = sum(item.compute_slices for item in card.instances if item.uuid in uuids)
    return min(slices / card.compute_slices, 1.0)


def check_devices(uuids: Sequence[str], known: Collection[str]) -> None:
    """Raises InvalidArgument for too many devices, NotFound, naming those known, for others."""
    if len(uuids) > MOST_DEVICES:
        raise InvalidArgument(f"devices: {len(uuids)} are named, at most {MOST_DEVICES} can be")
    for uuid in uuids:
        if uuid not in known:
            there = ", ".join(known) or "none"
            raise NotFound(f"devices: no device {uuid[:64]!r}; there are: {there}")
