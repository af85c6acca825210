"""`scripts/bench accuracy`: energies of windows beside the truth, by class of windows.

`python -m benchmarks.accuracy CLASS ...` measures these classes alone.
"""

import sys
import time
from collections.abc import Sequence

from benchmarks import real
from benchmarks.classes import named, parser
from benchmarks.figures import print_tables
from greend.model import Flag


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the tables."""
    given = parser("benchmarks.accuracy", "Real time: client, daemon, double.").parse_args(
        arguments
    )
    begun = time.monotonic()
    all_figures = []
    for kind in named(given.classes):
        figures = real.measure(kind, given.seed)
        all_figures.append(figures)
        late = sum(Flag.LATE in case.flags for case in figures.cases)
        print(f"   {time.monotonic() - begun:4.0f} s {kind.name}: {late} told late", flush=True)
    print_tables(all_figures, f"Real time, seed {given.seed}.")


if __name__ == "__main__":
    main(sys.argv[1:])
