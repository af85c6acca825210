"""The host as it stands: devices, open windows, health."""

from collections.abc import Callable
from dataclasses import dataclass

from greend.metering.registry import DeviceRegistry, MeteredDevice
from greend.model import DeviceInfo, Sample


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device. `sample` is its latest, None if it is not "ok": then it is out of date.

    `sample_age_s` counts from the last reading of energy or power, None before the first.
    `floors_mw` are by context state (True: a compute context lives).
    """

    info: DeviceInfo
    state: str
    sample: Sample | None
    sample_age_s: float | None
    floors_mw: dict[bool, float]

    @property
    def power_limit_mw(self) -> int | None:
        """The limit in force, as last seen."""
        if self.sample is not None and self.sample.power_limit_mw is not None:
            return self.sample.power_limit_mw
        return self.info.limits.power_limit_mw if self.state == "ok" else None


@dataclass(frozen=True, slots=True)
class Host:
    """All that is not a sum."""

    devices: tuple[DeviceView, ...]
    open_windows: int
    lost_windows: int
    driver_failed: bool
    store_failed: bool


@dataclass(frozen=True, slots=True)
class HostReader:
    """Looks at what the meter holds in memory. Runs on the event loop; asks no device."""

    registry: DeviceRegistry
    open_windows: Callable[[], int]
    lost_windows: Callable[[], int]
    store_error: Callable[[], str | None]
    now_ns: Callable[[], int]

    def read(self) -> Host:
        """The host at this instant."""
        now_ns = self.now_ns()
        return Host(
            devices=tuple(_view(device, now_ns) for device in self.registry.named(())),
            open_windows=self.open_windows(),
            lost_windows=self.lost_windows(),
            driver_failed=self.registry.driver_error is not None,
            store_failed=self.store_error() is not None,
        )


def _view(device: MeteredDevice, now_ns: int) -> DeviceView:
    state, _ = device.state(now_ns)
    latest = device.latest
    floors = {alive: device.ledger.floor.floor_mw(context_alive=alive) for alive in (False, True)}
    return DeviceView(
        info=device.info,
        state=state,
        sample=latest if state == "ok" else None,
        sample_age_s=device.sample_age_s(now_ns),
        floors_mw={alive: floor for alive, floor in floors.items() if floor is not None},
    )
