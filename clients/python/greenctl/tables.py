"""Tables of windows, devices and the ledger, for any width of terminal.

They take greend_client's values. Where the terminal is narrow, the columns of the
highest rank are left out, and texts that may be are shortened. Figures are not,
but where not even rank 0 has room; then an ellipsis shows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from greenctl.formats import UNKNOWN, duration, instant, joules, number, plain, short_ids
from greend_client import Device, LedgerRow, MigInstance, WindowResult

BALANCE = 1e-9
"""How far, relative to what was measured, bookings may be from adding up."""

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, a cell for each row, and how soon it is left out.

    Rank 0 stays at any width. A column with ``least`` is text, and may be shortened
    to that many characters. ``total`` stands under a line below the cells.
    """

    title: str
    cells: Sequence[str]
    rank: int = 0
    least: int = 0
    total: str = ""

    @property
    def width(self) -> int:
        """Characters that it takes at most, without the gap to the next one."""
        lines = [*self.title.split("\n"), *self.cells, self.total]
        return max(Text(line).cell_len for line in lines)

    @property
    def least_width(self) -> int:
        """Characters that it takes at least."""
        return min(self.least or self.width, self.width)

    @property
    def tells(self) -> bool:
        """Whether there is anything in it."""
        return self.rank == 0 or not {"", UNKNOWN}.issuperset(self.cells)


def show(
    columns: Sequence[Column], notes: Sequence[str] = (), console: Console | None = None
) -> None:
    """Print columns as a table, and notes below it."""
    console = console or Console(highlight=False)
    console.print(table(columns, console.width))
    for note in notes:
        console.print(Text(note), soft_wrap=True)


def table(columns: Sequence[Column], width: int) -> Table:
    """Return a table of the columns that have room in ``width`` characters."""
    chosen = _fitting([column for column in columns if column.tells], width)
    widths = _widths(chosen, width)
    totals = any(column.total for column in chosen)
    # Between columns: a space of the box, and one of padding.
    built = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, _GAP - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_footer=totals,
    )
    for column, room in zip(chosen, widths, strict=True):
        built.add_column(
            Text(column.title),
            footer=Text(column.total),
            justify="left" if column.least else "right",
            no_wrap=True,
            overflow="ellipsis",
            width=room,
        )
    for row in zip(*(column.cells for column in chosen), strict=True):
        built.add_row(*map(Text, row))
    return built


def window_columns(windows: Sequence[WindowResult]) -> list[Column]:
    """Return the columns of a table of windows."""
    shared = shared_flags(windows)

    def column(
        title: str, cell: Callable[[WindowResult], str], rank: int = 0, least: int = 0
    ) -> Column:
        return Column(title, [cell(window) for window in windows], rank, least)

    return [
        column("window", lambda w: f"…{w.window_id[-8:]}", 1, least=9),
        column("request", lambda w: plain(w.request_id or UNKNOWN), 0, least=12),
        column("tags", _tags, 9, least=16),
        column("start", lambda w: instant(w.start_unix_ns), 3),
        column("lasted", lambda w: duration(w.duration_s), 2),
        column("energy J", lambda w: joules(w.energy_j)),
        column("± J", lambda w: joules(w.uncertainty_j), 1),
        column("active J", lambda w: joules(w.active_energy_j), 6),
        column("idle J", lambda w: joules(w.idle_energy_j), 6),
        column("tokens", lambda w: number(w.output_tokens), 7),
        column("J/token", lambda w: joules(w.joules_per_output_token), 4),
        column("power W", lambda w: number(w.avg_power_w, 1), 8),
        column("remarks", lambda w: _remarks(w, shared), 2, least=10),
    ]


def window_notes(windows: Sequence[WindowResult]) -> list[str]:
    """Return what is to be said of all windows of a table."""
    flags = sorted(shared_flags(windows))
    return [f"All of them: {', '.join(flags)}."] if flags else []


def shared_flags(windows: Sequence[WindowResult]) -> set[str]:
    """Return the flags that every one of the windows has."""
    return set.intersection(*(set(window.flags) for window in windows)) if windows else set()


def ledger_columns(rows: Sequence[LedgerRow]) -> list[Column]:
    """Return the columns of the ledger, with totals."""
    names = short_ids([row.device for row in rows])

    def column(title: str, cell: Callable[[LedgerRow], float]) -> Column:
        figures = [cell(row) for row in rows]
        return Column(title, [joules(figure) for figure in figures], total=joules(sum(figures)))

    return [
        Column("device", [names[row.device] for row in rows], least=12, total="total"),
        column("measured\nJ", lambda row: row.measured_j),
        column("windows\nJ", lambda row: row.windows_j),
        column("idle\nJ", lambda row: row.idle_j),
        column("unattributed\nJ", lambda row: row.unattributed_j),
        column("gap\nJ", lambda row: row.gap_j),
        column("unknown\ns", lambda row: row.unknown_s),
    ]


def ledger_notes(rows: Sequence[LedgerRow]) -> list[str]:
    """Return the interval and the check that every device's bookings add up."""
    off = {row.device: _booked(row) - row.measured_j for row in rows}
    wrong = [row for row in rows if abs(off[row.device]) > BALANCE * abs(row.measured_j)]
    begin = instant(min(row.start_unix_ns for row in rows), whole=True)
    end = instant(max(row.stop_unix_ns for row in rows), whole=True)
    notes = [f"From {begin} to {end}."]
    if not wrong:
        notes.append("✓ windows + idle + unattributed + gap = measured, on every device.")
    return notes + [
        f"✗ {row.device}: windows + idle + unattributed + gap = {joules(_booked(row))} J, "
        f"which is {off[row.device]:+.3g} J off what was measured. Please report this."
        for row in wrong
    ]


def device_columns(devices: Sequence[Device]) -> list[Column]:
    """Return the columns of a table of devices."""

    def column(title: str, cell: Callable[[Device], str], rank: int = 0, least: int = 0) -> Column:
        return Column(title, [cell(device) for device in devices], rank, least)

    return [
        column("index", lambda d: str(d.index)),
        column("name", lambda d: plain(d.name or UNKNOWN), 2, least=12),
        column("uuid", lambda d: plain(d.uuid), 0, least=14),
        column("state", lambda d: plain(d.state), 0, least=5),
        column("idle W", lambda d: number(d.floor_w, 1), 1),
        column("idle W\nin use", lambda d: number(d.context_floor_w, 1), 6),
        column("limit W", lambda d: number(d.power_limit_w), 4),
        column("SM clock MHz", _clocks, 5),
        column("energy by", lambda d: "counter" if d.energy_counter else "power", 3, least=9),
    ]


def instance_columns(devices: Sequence[Device]) -> list[Column]:
    """Return the columns of a table of devices' MIG instances."""
    listed = [(device, instance) for device in devices for instance in device.mig_instances]

    def column(
        title: str, cell: Callable[[Device, MigInstance], str], rank: int = 0, least: int = 0
    ) -> Column:
        return Column(title, [cell(device, instance) for device, instance in listed], rank, least)

    return [
        column("index", lambda d, _: str(d.index)),
        # The card's name, which the table of devices has, and the instance's profile.
        column("MIG instance", lambda _, i: plain((i.name or UNKNOWN).split(" MIG ")[-1]), 2, 12),
        column("uuid", lambda _, i: plain(i.uuid), 0, least=14),
        column("slices", lambda d, i: f"{i.compute_slices}/{number(d.compute_slices)}", 1),
    ]


def device_notes(devices: Sequence[Device]) -> list[str]:
    """Return why devices are not well, and whether they are real."""
    notes = [
        f"GPU {device.index} is {plain(device.state)}: {plain(device.state_reason)}"
        for device in devices
        if device.state_reason
    ]
    if any(device.simulated for device in devices):
        notes.append("Simulated devices: no figure here is of real hardware.")
    return notes


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    chosen = list(columns)
    while sum(column.least_width + _GAP for column in chosen) - _GAP > width:
        worst = max(chosen, key=lambda column: column.rank)
        if worst.rank == 0:
            break
        chosen.remove(worst)
    return chosen


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return each column's width: its least, and room that is left to the first in rank."""
    widths = [column.least_width for column in columns]
    spare = width - sum(widths) - _GAP * (len(columns) - 1)
    for n in sorted(range(len(columns)), key=lambda n: columns[n].rank):
        more = max(0, min(spare, columns[n].width - widths[n]))
        widths[n] += more
        spare -= more
    return widths


def _booked(row: LedgerRow) -> float:
    return row.windows_j + row.idle_j + row.unattributed_j + row.gap_j


def _tags(window: WindowResult) -> str:
    return plain(" ".join(f"{key}={value}" for key, value in sorted(window.tags.items())))


def _remarks(window: WindowResult, shared: set[str]) -> str:
    state = [] if window.state == "final" else [window.state]
    return plain(" ".join(state + [flag for flag in window.flags if flag not in shared]))


def _clocks(device: Device) -> str:
    if device.min_sm_clock_mhz is None or device.max_sm_clock_mhz is None:
        return UNKNOWN
    return f"{device.min_sm_clock_mhz}–{device.max_sm_clock_mhz}"
