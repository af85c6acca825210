"""The figures that greend promises, on the real path."""

import time
from statistics import mean

from benchmarks.isolated import MS, measure


def test_isolated_windows_are_near_the_truth() -> None:
    """100 windows of each length at random phases; a new seed each time."""
    by_length = measure([100 * MS, 500 * MS, 2_000 * MS], 100, seed=time.time_ns())
    targets = {100 * MS: 0.08, 500 * MS: 0.05, 2_000 * MS: 0.02}
    errors = {
        length: mean(abs(case.error) for case in cases) for length, cases in by_length.items()
    }
    print({f"{length // MS} ms": f"{error:.2%}" for length, error in errors.items()})
    for length, cases in by_length.items():
        assert len(cases) >= 100
        assert errors[length] <= targets[length]
