"""The classes of windows that the accuracy bench measures, and what it demands of each."""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.arrivals import poisson
from benchmarks.engine import engine
from benchmarks.power import MS, S
from benchmarks.scenarios import Device, Make, Scenario, host_gaps, isolated, untracked

KINDS = ("a100", "h100")


@dataclass(frozen=True, slots=True)
class Class:
    """`windows` on each of `devices` devices, half A100-like and half H100-like.

    Targets: the mean of |error|; the median of bound / energy where there is one; where
    untracked work is `steady`, its energy and flag.
    """

    name: str
    make: Make
    most_error: float
    devices: int = 16
    windows: int = 25
    most_bound: float | None = None
    steady: bool = False

    def scenario(self, seed: int, number: int) -> Scenario:
        """The one for a device."""
        rng = random.Random(f"{seed} {self.name} {number}")
        return self.make(Device(KINDS[number % len(KINDS)], rng), self.windows)


CLASSES: Sequence[Class] = (
    Class("isolated-10ms", isolated(10 * MS), 0.04),
    Class("isolated-50ms", isolated(50 * MS), 0.01),
    Class("isolated-100ms", isolated(100 * MS), 0.006, most_bound=0.05),
    Class("isolated-500ms", isolated(500 * MS), 0.003),
    Class("isolated-2s", isolated(2 * S), 0.0015, most_bound=0.02),
    Class("isolated-10s", isolated(10 * S), 0.001),
    Class("poisson-8", poisson(8), 0.01, windows=50),
    Class("poisson-64", poisson(64), 0.01, devices=4, windows=250),
    Class("poisson-256", poisson(256), 0.01, devices=2, windows=1000),
    Class("engine", engine, 0.02, devices=4, windows=120),
    Class("untracked", untracked(bursts=False), 0.05, steady=True),
    Class("bursts", untracked(bursts=True), 0.25),
    Class("host-gaps", host_gaps, 0.25),
)
MOST_UNTRACKED_ERROR, FEWEST_FLAGGED = 0.03, 0.9


def named(names: Sequence[str]) -> list[Class]:
    """The classes with these names or beginnings of names; all if there is none.

    Ends the program where one is not known, naming those there are.
    """
    for name in names:
        if not any(one.name.startswith(name) for one in CLASSES):
            known = " ".join(one.name for one in CLASSES)
            sys.exit(f"no class {name!r}; there are: {known}")
    return [one for one in CLASSES if not names or one.name.startswith(tuple(names))]


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """What both runners take."""
    options = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    known = " ".join(one.name for one in CLASSES)
    options.add_argument(
        "classes", nargs="*", metavar="CLASS", help=f"or the beginning of a name; {known}"
    )
    options.add_argument("--seed", type=int, default=time.time_ns())
    return options
