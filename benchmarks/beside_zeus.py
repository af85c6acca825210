"""Zeus's windows beside ours: its own programs, in an environment of their own.

The environment has the release named here; it is made once and kept in the cache of the
tests' third-party programs.
"""

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Mapping
from pathlib import Path

from tests.debian import CACHE

RELEASE = "zeus==0.16.0"
PROGRAM = Path(__file__).with_name("zeus_windows.py")


def times_ns(environment: Mapping[str, str], *, gpus: int, blocks: int, burst: int) -> list[int]:
    """Wall times of begin_window and end_window together, one a block, in ns.

    ``environment`` leads to the driver's library; ``burst`` blocks follow each other, with
    10 ms in between.
    """
    ended = subprocess.run(
        # Without its directory, and so without ours, in front of what it imports.
        [_python(), "-P", PROGRAM, str(gpus), str(blocks), str(burst)],
        env={**environment, "PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [int(time_ns) for time_ns in json.loads(ended.stdout)]


def _python() -> Path:
    directory = CACHE / RELEASE
    if not directory.exists():
        print(f"   installing {RELEASE} into {directory}", flush=True)
        work = CACHE / f"{RELEASE}-{os.getpid()}"
        try:
            venv.create(work, with_pip=True, symlinks=True)
            subprocess.run(
                [work / "bin/python", "-m", "pip", "install", "--quiet", "--quiet", RELEASE],
                check=True,
            )
            work.rename(directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return directory / "bin/python"
