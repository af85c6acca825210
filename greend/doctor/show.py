"""Findings as people read them, in any width."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from greend.doctor.finding import Finding, Level

_STYLES = {Level.OK: "green", Level.INFO: "cyan", Level.WARNING: "yellow", Level.ERROR: "bold red"}
_WIDTH = 100  # longer lines are hard to read


def show(findings: Sequence[Finding], console: Console) -> None:
    """Prints findings by check, what to do below each, and how many there are of a kind."""
    console.width = min(console.width, _WIDTH)
    for name, group in groupby(findings, lambda finding: finding.name):
        console.print(Text(name, "bold"))
        console.print(_list(group))
    counts = Counter(finding.level for finding in findings)
    console.print()
    console.print(_summary(counts))


def _list(findings: Iterable[Finding]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=9)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(f"  {finding.level}", _STYLES[finding.level]), Text(finding.found))
        if finding.remedy:
            table.add_row("", Text(f"→ {finding.remedy}"))
    return table


def _summary(counts: Counter[Level]) -> Text:
    parts = [
        Text(_count(counts[level], level), _STYLES[level] if counts[level] else "dim")
        for level in Level
    ]
    return Text(", ").join(parts)


def _count(count: int, level: Level) -> str:
    plural = level in (Level.WARNING, Level.ERROR) and count != 1
    return f"{count} {level}{'s' if plural else ''}"
