"""A wall clock that can be set, for one process: a library that is preloaded into it."""

import mmap
import struct
import subprocess
from pathlib import Path

from tests.nvml_double.build import compiler

_SOURCE = Path(__file__).with_name("wall_clock.c")
_FLAGS = ("-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-std=gnu11")


class WallClock:
    """CLOCK_REALTIME of the processes that run with `environment`; other clocks stay."""

    def __init__(self, directory: Path) -> None:
        """Builds the library in `directory`. Raises CalledProcessError."""
        library, state = directory / "wall_clock.so", directory / "wall_clock.state"
        command = [*compiler(), *_FLAGS, "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        state.write_bytes(bytes(8))
        with state.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_FILE": str(state)}

    def shift(self, shift_s: float) -> None:
        """From now on it differs by this from the host's."""
        self._memory[:] = struct.pack("=q", round(shift_s * 1e9))
