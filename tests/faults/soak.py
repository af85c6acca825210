"""`sh scripts/soak`: what tests/faults does in minutes, for hours.

Each part runs on a host of its own, one after the other; `--minutes` is shared out among
those that load for a time, `--cycles` is the number of kills.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.daemon import Daemon
from tests.faults.host import Host, host
from tests.faults.kills import RESTART_S, Kills, kill_again_and_again
from tests.faults.steady import FLAT, Steady
from tests.faults.test_bad_line import check_bad_line
from tests.nvml_double import NvmlDouble

Part = Callable[[Console, float, int], str]
# Of the log of a daemon whose part failed, so many lines of these levels are shown.
TROUBLES = ("WARNING", "ERROR", "CRITICAL")
LAST_LINES = 40


@contextmanager
def loaded_host(console: Console) -> Iterator[Host]:
    """Two A100s and a daemon. What they leave is kept if the part fails."""
    path = Path(tempfile.mkdtemp(prefix="greend-", dir="/tmp"))
    try:
        with (
            NvmlDouble(path, ["a100", "a100"]) as double,
            host(Daemon(path, os.environ | double.environment), double) as running,
        ):
            yield running
    except BaseException:
        console.print(f"  kept: {path} (greend.db, daemon.log, client*.journal)")
        for line in _troubles(path / "daemon.log"):
            console.print(f"  {line}", markup=False)
        raise
    shutil.rmtree(path)


def _troubles(log: Path) -> list[str]:
    """The last lines of a daemon's log that are more than information."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line for line in lines if any(level in line for level in TROUBLES)][-LAST_LINES:]


def kills(console: Console, minutes: float, cycles: int) -> str:
    """kill -9 at random moments under load."""

    def progress(cycle: int, seen: Kills) -> None:
        if cycle % 25 == 0:
            console.print(f"  {cycle} of {cycles}: {seen}")

    seed = random.randrange(2**32)
    console.print(f"  seed {seed}")
    with loaded_host(console) as running:
        seen = kill_again_and_again(running, cycles, seed, progress)
        assert max(seen.restarts_s) <= RESTART_S, f"too slow: {seen}"
    return str(seen)


def line(console: Console, minutes: float, cycles: int) -> str:
    """Connections are cut, slow, half-closed and repeated."""
    seed = random.randrange(2**32)
    console.print(f"  seed {seed}")
    with loaded_host(console) as running:
        return check_bad_line(running, minutes * 60, seed)


def steady(console: Console, minutes: float, cycles: int) -> str:
    """1000 windows/s: the memory of daemon and client."""
    with loaded_host(console) as running:
        watched = Steady(running, minutes * 60)
        watched.watch(lambda words: console.print(f"  {words}"))
        count = watched.end()
    growths = [watched.growth(name) for name in ("daemon", "client")]
    assert max(growths) <= FLAT, f"it grows: {watched}"
    return f"{count} windows; {watched}"


def rest(console: Console, minutes: float, cycles: int) -> str:
    """The other tests of faults, again and again."""
    return _again_and_again(
        console, minutes, "not fuzz and not bad_line and not kills and not flat"
    )


def fuzz(console: Console, minutes: float, cycles: int) -> str:
    """Calls and streams with other examples each time."""
    os.environ["FAULTS_EXAMPLES"] = "500"
    return _again_and_again(console, minutes, "fuzz")


def _again_and_again(console: Console, minutes: float, which: str) -> str:
    end, rounds = time.monotonic() + minutes * 60, 0
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", which]
    while not rounds or time.monotonic() < end:
        done = subprocess.run([*command, tests], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        rounds += 1
        console.print(f"  round {rounds}: {done.stdout.splitlines()[-1]}")
    return f"{rounds} rounds"


# What part of the minutes each gets; kills take as long as they take.
PARTS: dict[str, tuple[Part, float]] = {
    "kills": (kills, 0.0),
    "line": (line, 0.2),
    "rest": (rest, 0.1),
    "fuzz": (fuzz, 0.2),
    "steady": (steady, 0.5),
}


@click.command()
@click.option("--minutes", default=120.0, help="For all parts but kills.", show_default=True)
@click.option("--cycles", default=1000, help="How many kills.", show_default=True)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(minutes: float, cycles: int, parts: tuple[str, ...]) -> None:
    """Faults under load for hours; PARTS: only these."""
    console = Console(highlight=False)
    chosen = parts or tuple(PARTS)
    whole = sum(PARTS[name][1] for name in chosen) or 1.0
    table = Table("part", "took", "verdict", "what was seen")
    failed = False
    try:
        for name in chosen:
            part, share = PARTS[name]
            console.print(f"[bold]{name}[/]: {part.__doc__}")
            begun = time.monotonic()
            verdict, seen = _tried(console, part, minutes * share / whole, cycles)
            failed |= verdict != "ok"
            table.add_row(name, f"{(time.monotonic() - begun) / 60:.1f} min", verdict, seen)
    except KeyboardInterrupt:
        console.print("interrupted")
        failed = True
    if table.rows:
        console.print(table)
    sys.exit(failed)


def _tried(console: Console, part: Part, minutes: float, cycles: int) -> tuple[str, str]:
    try:
        return "ok", part(console, minutes, cycles)
    except AssertionError as error:
        console.print_exception(max_frames=5)
        return "[red]FAILED[/]", str(error).splitlines()[0][:200] if str(error) else "see above"


if __name__ == "__main__":
    main()
