"""How measured energies compare with the truth, as tables; the same for both runners."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks.classes import FEWEST_FLAGGED, MOST_UNTRACKED_ERROR, Class
from greend.model import Flag

COVERAGE = 0.95
MOST_BOUND_TO_P95 = 3.0


@dataclass(frozen=True, slots=True)
class Case:
    """What was measured of a window, beside its truth, in J; `bound_j`: the uncertainty."""

    truth_j: float
    energy_j: float
    bound_j: float | None
    flags: frozenset[Flag] = frozenset()

    @property
    def error(self) -> float:
        return self.energy_j / self.truth_j - 1


@dataclass(frozen=True, slots=True)
class Totals:
    """What the ledger of a device booked, in J, beside the untracked work's truth."""

    measured_j: float
    windows_j: float
    idle_j: float
    unattributed_j: float
    gap_j: float
    untracked_j: float


@dataclass
class Figures:
    """What came out of a class."""

    kind: Class
    cases: list[Case] = field(default_factory=list)
    totals: list[Totals] = field(default_factory=list)

    @property
    def errors(self) -> list[float]:
        return [abs(case.error) for case in self.cases]


def print_tables(all_figures: Sequence[Figures], caption: str) -> None:
    console = Console(width=90)
    console.print(_errors(all_figures, caption))
    if any(case.bound_j is not None for figures in all_figures for case in figures.cases):
        console.print(_bounds(all_figures))
    untracked = [
        figures for figures in all_figures if any(totals.untracked_j for totals in figures.totals)
    ]
    if untracked:
        console.print(_untracked(untracked))


def _errors(all_figures: Iterable[Figures], caption: str) -> Table:
    table = _table(
        "|error| of energy_j", "windows", "mean", "median", "p95", "max", "bias", "target"
    )
    table.caption = caption
    for figures in all_figures:
        errors = figures.errors
        table.add_row(
            figures.kind.name,
            str(len(errors)),
            f"{mean(errors):.2%}",
            f"{median(errors):.2%}",
            f"{_p95(errors):.2%}",
            f"{max(errors):.2%}",
            f"{mean(case.error for case in figures.cases):+.2%}",
            _judged(f"{figures.kind.most_error:.2%}", mean(errors) <= figures.kind.most_error),
        )
    return table


def _bounds(all_figures: Iterable[Figures]) -> Table:
    table = _table(
        f"energy_j ± uncertainty_j (targets: {COVERAGE:.0%}, {MOST_BOUND_TO_P95:g})",
        "windows",
        "covered",
        "bound / p95",
        "bound / energy",
        "target",
    )
    for figures in all_figures:
        known = [(case, case.bound_j) for case in figures.cases if case.bound_j is not None]
        if not known:
            continue
        covered = mean(abs(case.energy_j - case.truth_j) <= bound_j for case, bound_j in known)
        bound = median(bound_j / case.energy_j for case, bound_j in known)
        to_p95 = bound / _p95(figures.errors)
        most = figures.kind.most_bound
        table.add_row(
            figures.kind.name,
            str(len(known)),
            _judged(f"{covered:.1%}", covered >= COVERAGE),
            _judged(f"{to_p95:.2f}", to_p95 <= MOST_BOUND_TO_P95),
            f"{bound:.2%}",
            "" if most is None else _judged(f"{most:.0%}", bound <= most),
        )
    return table


def _untracked(all_figures: Iterable[Figures]) -> Table:
    table = _table("untracked work", "truth", "unattributed", "off", "target", "flagged", "target")
    for figures in all_figures:
        true_j = sum(totals.untracked_j for totals in figures.totals)
        booked_j = sum(totals.unattributed_j for totals in figures.totals)
        off = booked_j / true_j - 1
        flagged = mean(Flag.SHARED_WITH_UNTRACKED in case.flags for case in figures.cases)
        table.add_row(
            figures.kind.name,
            f"{true_j:.0f} J",
            f"{booked_j:.0f} J",
            f"{off:+.1%}",
            _judged(f"{MOST_UNTRACKED_ERROR:.0%}", abs(off) <= MOST_UNTRACKED_ERROR)
            if figures.kind.steady
            else "",
            f"{flagged:.0%}",
            _judged(f"{FEWEST_FLAGGED:.0%}", flagged >= FEWEST_FLAGGED)
            if figures.kind.steady
            else "",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    table.add_column("class", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _judged(text: str, holds: bool) -> str:
    return f"[green]{text}" if holds else f"[bold red]{text} !"


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]
