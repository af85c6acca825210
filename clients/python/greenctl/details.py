"""One thing in full: a window, or the daemon, line by line."""

import time
from collections.abc import Iterator

from greenctl.formats import UNKNOWN, duration, energy, instant, joules, number, plain, with_unit
from greend_client import Status, WindowResult


def window_lines(window: WindowResult) -> Iterator[str]:
    """Say everything about a window."""
    tags = " ".join(f"{key}={value}" for key, value in sorted(window.tags.items()))
    ended = "runs" if window.stop_unix_ns is None else instant(window.stop_unix_ns, whole=True)
    tokens = (window.prompt_tokens, window.cached_tokens, window.output_tokens)
    figures = {
        "window": window.window_id,
        "request": window.request_id or UNKNOWN,
        "tags": tags or UNKNOWN,
        "state": window.state,
        "parent": window.parent_id or UNKNOWN,
        "start": instant(window.start_unix_ns, whole=True),
        "stop": ended,
        "lasted": duration(window.duration_s),
        "energy": energy(window.energy_j, window.uncertainty_j),
        "  active": energy(window.active_energy_j),
        "  idle": energy(window.idle_energy_j),
        "devices used": UNKNOWN
        if window.device_energy_j is None
        else f"{joules(window.device_energy_j)} J meanwhile, unshared",
        "mean power": with_unit(number(window.avg_power_w, 1), "W"),
        "SM clock": with_unit(number(window.sm_clock_mhz), "MHz"),
        "weight": f"{window.weight:g}",
        "tokens": "prompt {}, cached {}, output {}".format(*map(number, tokens)),
        "first token": UNKNOWN if window.ttft_s is None else f"after {duration(window.ttft_s)}",
        "per token": energy(window.joules_per_output_token),
        "source": window.source or UNKNOWN,
        "flags": " ".join(window.flags) or "none",
    }
    for name, figure in figures.items():
        yield f"{name:<14}{plain(figure)}"
    for device in window.devices:
        yield f"{'device':<14}{plain(device)}"
    for phase in window.phases:
        yield (
            f"{'phase':<14}{plain(phase.name or UNKNOWN)} from {instant(phase.start_unix_ns)}: "
            f"{energy(phase.energy_j, phase.uncertainty_j)}"
        )


def status_lines(status: Status, address: str) -> Iterator[str]:
    """Say how the daemon is."""
    up = duration(time.time() - status.start_unix_ns / 1e9)
    yield f"greend {status.version} is {status.state} at {address} (pid {status.pid}, up {up})"
    age = "" if status.sample_age_s is None else f", read {duration(status.sample_age_s)} ago"
    yield f"devices  {status.devices_ok} of {status.devices_total} answer{age}"
    lost = f", {status.lost_windows} lost by clients" if status.lost_windows else ""
    yield f"windows  {status.open_windows} open{lost}"
    for part in status.parts:
        yield f"{part.name:<9}{part.state}{': ' + plain(part.message) if part.message else ''}"
    if status.simulated:
        yield "Simulated devices: no figure here is of real hardware."
