"""`scripts/bench accuracy`: mean absolute error of isolated windows, by length."""

import time
from statistics import mean, median

from rich.console import Console
from rich.table import Table

from benchmarks.isolated import BASE_W, MS, measure

LENGTHS_MS = (100, 500, 2000)
TARGETS = {100: 0.08, 500: 0.05, 2000: 0.02}
WINDOWS = 100


def main() -> None:
    """Prints the table."""
    seed = time.time_ns()
    by_length = measure([length * MS for length in LENGTHS_MS], WINDOWS, seed)
    table = Table(
        title=f"Isolated windows on A100-like counters of 100 ms, jitter 1 ms, idle {BASE_W:g} W",
        caption=f"Random seed {seed}.",
    )
    for column in ("length", "windows", "mean |error|", "median", "largest", "target"):
        table.add_column(column, justify="right")
    for length, cases in by_length.items():
        errors = [abs(case.error) for case in cases]
        table.add_row(
            f"{length // MS} ms",
            str(len(errors)),
            f"{mean(errors):.2%}",
            f"{median(errors):.2%}",
            f"{max(errors):.2%}",
            f"{TARGETS[length // MS]:.0%}",
        )
    Console(width=100).print(table)
