"""kill -9 at random moments under load, again and again; what is kept is checked each time."""

import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.faults.audit import (
    check_acknowledged,
    check_conserved,
    check_nothing_open,
    check_shares,
)
from tests.faults.host import Host
from tests.faults.journal import Journal

RATE = 80.0
# The longest that a daemon may take from its start until it serves.
RESTART_S = 1.5
# How long a daemon lives: from the middle of its start to well into the load; some longer
# than the time of a restart is held open.
LIFE_S = (0.05, 3.5)


@dataclass
class Kills:
    """What was seen."""

    windows: int = 0
    journals: list[Journal] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{len(self.restarts_s)} kills, {self.windows} windows acknowledged;"
            f" restart to serving {spread(self.restarts_s)} s"
        )


def spread(values: Sequence[float]) -> str:
    """Least, median, 95th percentile and greatest."""
    cuts = statistics.quantiles(values, n=20) if len(values) > 1 else [*values] * 19
    return (
        f"{min(values):.2f} least, {statistics.median(values):.2f} p50, {cuts[-1]:.2f} p95,"
        f" {max(values):.2f} most"
    )


def kill_again_and_again(
    loaded: Host, cycles: int, seed: int, progress: Callable[[int, Kills], None] | None = None
) -> Kills:
    """Kills and restarts the daemon that often under load, then lets clients finish.

    Rows are checked while the daemon is dead: acknowledged is what had been committed.
    """
    rng = random.Random(seed)
    seen = Kills()
    clients = [loaded.teller(RATE) for _ in range(3)]
    time.sleep(1)
    for cycle in range(cycles):
        loaded.vary_power()
        time.sleep(rng.uniform(*LIFE_S))
        loaded.daemon.stop(signal.SIGKILL)
        if cycle % 10 == 9:  # what is checked grows with the cycles
            check_acknowledged(loaded.daemon, [client.journal for client in clients])
            check_conserved(loaded.daemon)
        begun = time.monotonic()
        loaded.daemon.start()
        seen.restarts_s.append(time.monotonic() - begun)
        if progress is not None:
            progress(cycle + 1, seen)
    seen.journals = [client.finish() for client in clients]
    loaded.wait_until_settled()
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    seen.windows = check_acknowledged(loaded.daemon, seen.journals)
    check_nothing_open(loaded.daemon)
    check_conserved(loaded.daemon)
    return seen


def check_went_on(loaded: Host, seen: Kills) -> None:
    """Nobody was gone for long: windows went on, and what was told again was taken."""
    for journal in seen.journals:
        assert journal.refusals == {}
        assert journal.finals.keys() == journal.windows.keys()
    heard = [final for journal in seen.journals for final in journal.finals.values()]
    assert not any("abandoned" in final["flags"] for final in heard)
    assert any("recovered" in final["flags"] for final in heard)
    check_shares(loaded.daemon, check_conserved(loaded.daemon))
