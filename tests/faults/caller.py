"""A client as a process: windows by greend_client, at a steady rate.

    python -m tests.faults.caller ADDRESS JOURNAL RATE [--quiet]

Writes down each window, what it cost its caller, and its result. `--quiet`: nothing of
that, for long runs. SIGTERM: no new windows; ends when every result is there or will never be.
"""

import queue
import random
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path

from greend_client import Client, ResultUnavailable, Window
from tests.faults.journal import Pen

MS = 1_000_000
TICK_S = 0.02
RESULT_S = 45.0


class Caller:
    """An engine with requests of a fifth of a second."""

    def __init__(self, client: Client, pen: Pen, rate: float, *, quiet: bool) -> None:
        self._client = client
        self._pen = pen
        self._rate = rate
        self._quiet = quiet
        self._running: deque[Window] = deque()
        self._stopped: queue.SimpleQueue[Window | None] = queue.SimpleQueue()

    def run(self, is_over: Callable[[], bool]) -> None:
        results = threading.Thread(target=self._take_results)
        results.start()
        due, owed = time.monotonic(), 0.0
        at_once = round(self._rate * 0.2)
        while not is_over():
            due += TICK_S
            time.sleep(max(due - time.monotonic(), 0))
            owed += self._rate * TICK_S
            for _ in range(int(owed)):
                self._start()
                if len(self._running) > at_once:
                    self._stop()
            owed -= int(owed)
        while self._running:
            self._stop()
        self._stopped.put(None)
        results.join()

    def _start(self) -> None:
        request_id, model = uuid.uuid4().hex, random.choice(("llama", "qwen"))
        begun_ns = time.perf_counter_ns()
        at_ns = time.monotonic_ns()
        window = self._client.window(request_id, model=model, gpus=[0]).start(at_ns)
        cost_ns = time.perf_counter_ns() - begun_ns
        self._running.append(window)
        if not self._quiet:
            self._pen.write(
                "start",
                window_id=window.window_id,
                request_id=request_id,
                tags={"model": model},
                start_ns=at_ns,
                cost_ns=cost_ns,
            )

    def _stop(self) -> None:
        window = self._running.popleft()
        begun_ns = time.perf_counter_ns()
        window.tokens(prompt=512, output=100)
        at_ns = time.monotonic_ns()
        window.stop(at_ns)
        cost_ns = time.perf_counter_ns() - begun_ns
        if not self._quiet:
            self._pen.write(
                "stop",
                window_id=window.window_id,
                stop_ns=at_ns,
                output_tokens=100,
                stop_cost_ns=cost_ns,
            )
            self._stopped.put(window)

    def _take_results(self) -> None:
        while (window := self._stopped.get()) is not None:
            try:
                result = window.result(RESULT_S)
            except ResultUnavailable as error:
                self._pen.write(
                    "unavailable",
                    window_id=window.window_id,
                    code=error.code.name,
                    message=str(error),
                )
                continue
            self._pen.write(
                "final",
                window_id=result.window_id,
                start_unix_ns=result.start_unix_ns,
                stop_unix_ns=result.stop_unix_ns,
                energy_j=result.energy_j,
                flags=sorted(result.flags),
            )


def main() -> None:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    address, path, rate, *options = sys.argv[1:]
    pen = Pen(Path(path))
    with Client(address) as client:
        Caller(client, pen, float(rate), quiet="--quiet" in options).run(over.is_set)
    pen.write("done")


if __name__ == "__main__":
    main()
