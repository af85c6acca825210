"""Times Zeus's begin_window and end_window. Runs where Zeus is installed, and nothing of ours.

Arguments: GPUs, blocks, blocks in a burst. Prints wall times in ns.
"""

import json
import logging
import sys
import time
import warnings

from zeus.monitor import ZeusMonitor

PAUSE_S = 0.01


def main() -> None:
    gpus, blocks, burst = map(int, sys.argv[1:])
    # That a window is too short for it costs no warning each.
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    monitor = ZeusMonitor(gpu_indices=list(range(gpus)), cpu_indices=[])
    times_ns = []
    for number in range(blocks):
        if number % burst == 0:
            time.sleep(PAUSE_S)
        begun_ns = time.perf_counter_ns()
        monitor.begin_window("request-7", sync_execution=False)
        monitor.end_window("request-7", sync_execution=False)
        times_ns.append(time.perf_counter_ns() - begun_ns)
    json.dump(times_ns, sys.stdout)


if __name__ == "__main__":
    main()
