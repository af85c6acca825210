"""How the daemon is: part by part, and in a line."""

from greend.metering.registry import DeviceRegistry


def parts(registry: DeviceRegistry, now_ns: int, store_error: str | None) -> dict[str, str]:
    """What is wrong with each part, for people; empty where nothing is."""
    states = [
        (device.info.uuid, *device.state(now_ns)) for device in list(registry.devices.values())
    ]
    troubled = [f"{uuid} is {state}: {why}" for uuid, state, why in states if state != "ok"]
    troubled += registry.missing
    if not states and registry.driver_error is None:
        troubled.append("still looking for GPUs")
    return {
        "driver": registry.driver_error or "",
        "devices": "; ".join(troubled),
        "store": store_error or "",
    }


def status_line(
    registry: DeviceRegistry, now_ns: int, store_error: str | None, open_windows: int
) -> str:
    """For the service manager: what is wrong, then what is measured."""
    wrong = parts(registry, now_ns, store_error).items()
    told = [f"{name}: {message}" for name, message in wrong if message]
    told += [_count(len(registry.devices), "GPU"), _count(open_windows, "open window")]
    return ("degraded: " if any(message for _, message in wrong) else "") + ", ".join(told)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
