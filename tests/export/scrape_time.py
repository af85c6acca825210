"""How long a scrape takes with 8 devices and as many series as the default bound allows.

`python -m tests.export.scrape_time` prints it.
"""

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles

from greend.export.exporter import on_loop
from greend.export.recorder import USUAL_MAX_SERIES
from tests.export.fed import Fed, fed, window
from tests.export.text import Scrape

DEVICES = 8
TARGET_MS = 25.0
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@contextmanager
def at_the_bound() -> Iterator[Fed]:
    """All series that can be: three tag keys, more tag sets than fit."""
    with fed(DEVICES, tag_keys=("model", "tenant", "route")) as made:
        on_loop(made.loop, made.feed)
        on_loop(made.loop, lambda: _fill(made))
        yield made


def _fill(made: Fed) -> None:
    for number in range(USUAL_MAX_SERIES):
        tags = {"model": "llama-3-8b", "tenant": f"tenant-{number}", "route": "/v1/completions"}
        made.recorder.window_final(window(1000.0 * number + 0.1, number, **tags))


def measure_ms(url: str, scrapes: int = 50) -> list[float]:
    """Times of whole scrapes over HTTP, asked for as Prometheus asks."""
    request = urllib.request.Request(url, headers={"Accept": OPEN_METRICS})
    times_ms = []
    for _ in range(scrapes):
        begun_s = time.perf_counter()
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()
        times_ms.append((time.perf_counter() - begun_s) * 1e3)
    return times_ms


def main() -> None:
    """Prints the median and the 95th percentile."""
    with at_the_bound() as made:
        series = sum(len(found) for found in Scrape(made.url).samples.values())
        times_ms = measure_ms(made.url)
    p95_ms = quantiles(times_ms, n=20)[-1]
    print(
        f"{DEVICES} devices, {series} series: median {median(times_ms):.1f} ms,"
        f" p95 {p95_ms:.1f} ms (at most {TARGET_MS:.0f} ms)"
    )


if __name__ == "__main__":
    main()
