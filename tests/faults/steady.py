"""1000 windows a second for minutes or hours: does the memory of daemon and client grow?"""

import time
from collections.abc import Callable
from statistics import median

import psutil

from tests.faults.host import Host

RATE = 1000.0
FLAT = 0.05
# A timeline is full after 10 minutes; what is watched for less has to be flat on its way there.
FULL_S = 660.0


class Steady:
    """A host whose only client has so many windows a second, and how much memory they have."""

    def __init__(self, loaded: Host, length_s: float) -> None:
        self._loaded = loaded
        self._length_s = length_s
        self._warm_s = min(FULL_S, length_s / 2)
        self._caller = loaded.caller(RATE, "", "--quiet")
        self._processes = {
            "daemon": psutil.Process(loaded.daemon.pid),
            "client": psutil.Process(self._caller.pid),
        }
        self._begun = time.monotonic()
        self._seen_mb: dict[str, list[tuple[float, float]]] = {name: [] for name in self._processes}

    def watch(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Looks once a second for the whole length."""
        told = 0
        while (now_s := time.monotonic() - self._begun) < self._length_s:
            for name, process in self._processes.items():
                self._seen_mb[name].append((now_s, process.memory_info().rss / 1e6))
            if now_s >= 60 * (told + 1):
                told += 1
                progress(f"minute {told}: {self}")
            time.sleep(1)

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {self._mb(name, -30.0):.1f} MB ({self.growth(name):+.1%})"
            for name in self._processes
        )

    def growth(self, name: str) -> float:
        """By how much it has more now than after it was warm, in parts."""
        return self._mb(name, -30.0) / self._mb(name, self._warm_s) - 1

    def _mb(self, name: str, at_s: float) -> float:
        """Its median over half a minute, from an instant on (below 0: before the last one)."""
        seen = self._seen_mb[name]
        begin_s = at_s if at_s >= 0 else seen[-1][0] + at_s
        return median([mb for s, mb in seen if begin_s <= s < begin_s + 30] or [seen[-1][1]])

    def end(self) -> int:
        """Lets the client end; returns how many windows are stored, all of them final."""
        self._caller.finish()
        self._loaded.wait_until_settled()
        self._loaded.check_healthy()
        assert self._loaded.daemon.stop() == 0
        (row,) = self._loaded.daemon.rows("select count(*) as n from windows")
        return int(row["n"])
