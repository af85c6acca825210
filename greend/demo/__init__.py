"""`greend demo`: two simulated GPUs serve requests, greend measures each one.

daemon.py     a real `greend serve` on a temporary directory
workload.py   what the simulated engines do, and when (pure)
replay.py     does it: loads to the GPUs, windows to greend
truth.py      what each request truly cost (pure)
report.py     figures beside the truth (pure)
tables.py     how a person likes to read them
"""

from greend.demo.run import run_demo

__all__ = ["run_demo"]
