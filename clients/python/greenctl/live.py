"""Devices and windows as they change: a table in place, or line by line."""

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from greenctl.formats import UNKNOWN, duration, energy, instant, number, plain, with_unit
from greenctl.tables import Column, table
from greend_client import Device, Sample, WindowResult


def show(devices: Sequence[Device], samples: Iterable[Sample]) -> None:
    """Show the latest sample of each device in a table, updated until samples end."""
    latest: dict[str, Sample] = {}
    console = Console(highlight=False)

    def current() -> Table:
        return table(columns(devices, dict(latest)), console.width)

    with Live(get_renderable=current, console=console, refresh_per_second=4):
        for sample in samples:
            latest[sample.device] = sample


def columns(devices: Sequence[Device], latest: dict[str, Sample]) -> list[Column]:
    """Return the columns of a table of devices with their latest samples, if any."""
    samples = [latest.get(device.uuid) for device in devices]

    def column(title: str, name: str, rank: int, digits: int = 0) -> Column:
        # All but rank 0 would vanish while nothing is known, and the table jump.
        cells = [number(getattr(sample, name, None), digits) for sample in samples]
        return Column(title, cells, rank)

    return [
        Column("GPU", [str(device.index) for device in devices]),
        Column("name", [plain(device.name or UNKNOWN) for device in devices], 6, least=12),
        column("power W", "power_w", 0, 1),
        column("limit W", "power_limit_w", 4),
        column("SM MHz", "sm_clock_mhz", 1),
        column("memory MHz", "memory_clock_mhz", 5),
        column("GPU %", "gpu_utilization_percent", 1),
        column("memory %", "memory_utilization_percent", 3),
        column("°C", "temperature_c", 2),
        Column("age", [_age(sample) for sample in samples], 3),
    ]


def line(sample: Sample, devices: Sequence[Device]) -> str:
    """Return a sample as one line."""
    index = next((str(d.index) for d in devices if d.uuid == sample.device), sample.device)
    figures = [
        with_unit(number(sample.power_w, 1), "W"),
        "SM " + with_unit(number(sample.sm_clock_mhz), "MHz"),
        "memory " + with_unit(number(sample.memory_clock_mhz), "MHz"),
        "GPU " + with_unit(number(sample.gpu_utilization_percent), "%"),
        with_unit(number(sample.temperature_c), "°C"),
    ]
    return f"{instant(sample.unix_ns, whole=True)}  GPU {plain(index)}  " + "  ".join(figures)


def window_line(window: WindowResult) -> str:
    """Return a final window as one line."""
    tags = [f"{key}={value}" for key, value in sorted(window.tags.items())]
    figures = [
        window.window_id,
        window.request_id or UNKNOWN,
        duration(window.duration_s),
        energy(window.energy_j, window.uncertainty_j),
        *tags,
        *window.flags,
    ]
    return plain(f"{instant(window.stop_unix_ns, whole=True)}  " + "  ".join(figures))


def _age(sample: Sample | None) -> str:
    return UNKNOWN if sample is None else f"{max(0.0, time.time() - sample.unix_ns / 1e9):.1f} s"
