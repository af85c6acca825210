"""The demo's figures as tables that fit in 80 columns."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from greend.demo.ledger import Account
from greend.demo.report import ModelRow, Report, RequestRow, error_percent

MAX_ROWS = 40

_NEXT = """\
Try it on your own load. A daemon of your own, in a terminal of its own, on
simulated GPUs at rest:

{path}  [bold]greend serve --simulate h100x2 --state-dir /tmp/g --runtime-dir /tmp/g[/bold]

In another, around your code, in Python:

{path}  [bold]export GREEND_ADDRESS=unix:///tmp/g/greend.sock[/bold]
  [bold]with greend_client.Client().window("request-7", model="mine") as window:[/bold]

Then [bold]greenctl windows[/bold] lists what was measured, [bold]greenctl ledger[/bold] says where
every joule went. Without --simulate, greend measures this machine's GPUs."""


def _path() -> str:
    """What makes the commands found, where they are not: installed into .venv alone."""
    if shutil.which("greend"):
        return ""
    return f"  [bold]export PATH={escape(str(Path(sys.executable).parent))}:$PATH[/bold]\n"


def show(report: Report, console: Console) -> None:
    """Prints the tables and what is to be seen in them."""
    console.print(_requests(report.requests[:MAX_ROWS]))
    if len(report.requests) > MAX_ROWS:
        console.print(f"… and {len(report.requests) - MAX_ROWS} more (--json has them all)\n")
    console.print(_models(report.models))
    console.print(_ledger(report.ledger))
    console.print(_findings(report), highlight=False)
    console.print()
    console.print(_NEXT.format(path=_path()), highlight=False)


def _table(title: str, *columns: str, text: int) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,  # nine columns have to fit in 80
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < text else "right", no_wrap=True)
    return table


def _requests(rows: Sequence[RequestRow]) -> Table:
    table = _table(
        "Energy of each request (simulated)",
        *("request", "model", "prompt", "output", "time s"),
        *("energy J", "J/token", "truth J", "error %"),
        text=2,
    )
    for row in rows:
        table.add_row(
            row.request_id,
            row.model,
            str(row.prompt_tokens),
            str(row.output_tokens),
            f"{row.duration_s:.2f}",
            _number(row.energy_j, 1),
            _number(row.joules_per_output_token, 2),
            _number(row.truth_j, 1),
            _signed(row.error_percent),
        )
    return table


def _models(rows: Sequence[ModelRow]) -> Table:
    table = _table(
        "By model (simulated)",
        *("model", "requests", "energy J", "J/request", "J/token", "truth J", "error %"),
        text=1,
    )
    for row in rows:
        table.add_row(
            row.model,
            str(row.count),
            _number(row.energy_j, 1),
            _number(row.joules_per_request, 1),
            _number(row.joules_per_output_token, 2),
            _number(row.truth_j, 1),
            _signed(row.error_percent),
        )
    return table


def _ledger(rows: Sequence[Account]) -> Table:
    table = _table(
        "Ledger: every measured joule, booked once (simulated; in J)",
        *("device", "windows", "idle", "unattr.", "gap", "measured", "truth", "error %"),
        text=1,
    )
    for row in rows:
        table.add_row(
            row.device[:12] + "…",
            _number(row.windows_j, 1),
            _number(row.idle_j, 1),
            _number(row.unattributed_j, 1),
            _number(row.gap_j, 1),
            _number(row.measured_j, 1),
            _number(row.truth_j, 1),
            _signed(error_percent(row.measured_j, row.truth_j)),
        )
    return table


def _findings(report: Report) -> str:
    measured = [row for row in report.requests if row.energy_j is not None]
    found = (
        f"{len(report.requests)} requests ran on {len(report.ledger)} simulated GPUs in "
        f"{report.duration_s:.1f} s, up to {report.peak_requests} at once. greend split what "
        "counters that advance every 100 ms showed among them"
    )
    error = report.mean_absolute_error_percent
    if error is not None:
        found += f"; it was off by {error:.2f} % a request on average."
    else:
        found += "."
    found += (
        " The truth beside it is what the simulator drew between any two starts or stops, "
        "split equally among the requests then running."
    )
    costs_j = [row.joules_per_output_token for row in measured if row.joules_per_output_token]
    if costs_j:
        found += (
            f"\nAn output token cost from {min(costs_j):.2f} to {max(costs_j):.2f} J: the fewer "
            "requests share a GPU, the more of it each of them pays for."
        )
    if len(measured) < len(report.requests):
        missing = len(report.requests) - len(measured)
        found += f"\n[red]No energy came for {missing} of {len(report.requests)} requests.[/red]"
    return found


def _number(figure: float | None, digits: int) -> str:
    return "–" if figure is None else f"{figure:.{digits}f}"


def _signed(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:+.2f}"
