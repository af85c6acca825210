"""`scripts/bench outage`: the daemon is killed under load, is away for a minute, and comes back.

A client process has 1000 windows a second all the time. What they cost its thread is compared
with and without a daemon; what is stored in the end is compared with what the client says.
Times of single windows are start and stop together, those right after a pause included.
"""

from collections import Counter
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.outage_run import BUSY_W, PER_S, Found, flags, run
from greend_client._sender import CAPACITY

# With the daemon, without it, and from when it was started again.
BEFORE_S, AWAY_S, AFTER_S = 20.0, 60.0, 30.0
PHASES = ("with the daemon", "without", "afterwards")
MOST_RATIO = 2.0


def main() -> None:
    """Prints the tables; fails where something is lost that nobody counted."""
    found = run(BEFORE_S, AWAY_S, AFTER_S, capacity=CAPACITY)
    console = Console(width=100)
    console.print(_costs(found))
    console.print(_facts(found))
    absent = found.last.begun - len(found.rows)
    assert absent == found.last.lost == found.lost, "windows were lost that nobody counted"
    assert {row["state"] for row in found.rows.values()} == {"final"}


def _costs(found: Found) -> Table:
    table = Table(
        title=f"What one of {PER_S:g} windows a second costs, µs; CPU on average",
        caption=f"target: without at most {MOST_RATIO:g} times with",
    )
    for column in ("", "p50", "p99", "caller's CPU", "process's CPU"):
        table.add_column(column, justify="right" if column else "left")
    figures = [(costs.p50, costs.p99, costs.thread, costs.process) for costs in found.costs]
    for name, row in zip(PHASES, figures, strict=True):
        table.add_row(name, *(f"{figure:.2f}" for figure in row))
    ratios = (without / before for before, without in zip(*figures[:2], strict=True))
    table.add_row("without / with", *(f"{ratio:.2f}" for ratio in ratios))
    return table


def _facts(found: Found) -> Table:
    table = Table(title="What became of it", show_header=False)
    for fact in (*_of_client(found), *_of_windows(found)):
        table.add_row(*fact)
    return table


def _of_client(found: Found) -> Iterator[tuple[str, str]]:
    away = found.marks[2]
    names = ("beginning", "kill", "end of the outage", "end")
    for name, mb in zip(names, found.client_mb, strict=True):
        yield f"client's memory, {name}", f"{mb:.1f} MB"
    yield "kept, end of the outage", f"{away.events} events (at most {CAPACITY})"
    yield "", f"{away.kept} windows; {away.lost} lost until then"
    yield "again: served after", f"{found.again.serving_s:.2f} s"
    yield "all delivered after", f"{found.again.delivered_s:.2f} s"
    yield "all final after", f"{found.again.final_s:.2f} s"


def _of_windows(found: Found) -> Iterator[tuple[str, str]]:
    last, arrived, newest = found.last, found.of_outage, found.newest
    yield "begun, stored", f"{last.begun}, {len(found.rows)}"
    yield "not stored", f"{last.begun - len(found.rows)}"
    yield "lost, says the client, daemon", f"{last.lost}, {found.lost}"
    yield "refused", f"{last.refused}"
    during = found.marks[2].begun - found.marks[1].begun
    yield "of the outage", f"{during} begun, {len(arrived)} arrived, the newest {len(newest)} all"
    counts = Counter(flag for row in arrived for flag in flags(row))
    for flag in ("recovered", "late", *sorted(counts.keys() - {"recovered", "late"})):
        yield f"  flag {flag}", f"{counts[flag] / max(len(arrived), 1):.2%}"
    yield "  energy of the newest", _energy(newest)
    rows = [found.rows[n] for n in range(found.marks[2].begun, last.begun) if n in found.rows]
    late = [row for row in rows if "late" in flags(row)]
    yield "afterwards", f"{len(rows)} stored"
    yield "  flag late", f"{len(late)}; {sum(not row['own_mj'] for row in late)} without energy"
    yield "booked differs from measured by", f"{found.error:.1e}"


def _energy(rows: list[dict[str, Any]]) -> str:
    """Of windows without a pause between them, beside what the GPU used meanwhile."""
    if not rows:
        return "none"
    begin_ns = min(map(itemgetter("start_unix_ns"), rows))
    end_ns = max(map(itemgetter("stop_unix_ns"), rows))
    energy_j = sum(map(itemgetter("own_mj"), rows)) / 1e3
    bound_j = sum(row["own_correlated_mj"] + row["own_independent_mj"] for row in rows) / 1e3
    true_j = BUSY_W * (end_ns - begin_ns) / 1e9
    return f"{energy_j:.0f} J, in truth {true_j:.0f} J; their uncertainties sum to {bound_j:.0f} J"
