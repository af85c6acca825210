"""The state file: created, mapped and locked; the C library maps the same one."""

import ctypes
import fcntl
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.nvml_double.curve import BREAKPOINT, STEP
from tests.nvml_double.layout import MAGIC, VERSION, GpuState, State


class StateFile:
    """A mapped state file. Writers exclude each other; the C library reads without a lock."""

    def __init__(self, path: Path) -> None:
        """Map an existing file; raises ``ValueError`` if it is not a state file of this version."""
        self.path = path
        self._file = path.open("r+b")
        self.memory = mmap.mmap(self._file.fileno(), 0)
        if len(self.memory) < ctypes.sizeof(State):
            raise ValueError(f"{path} is no state file")
        self.state = State.from_buffer(self.memory)
        found = (self.state.magic, self.state.version, self.state.size)
        if found != (MAGIC, VERSION, len(self.memory)):
            raise ValueError(f"{path} is no state file of version {VERSION}")
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path, gpu_count: int, capacity: int) -> "StateFile":
        """Create a file with room for ``capacity`` breakpoints and steps for each GPU."""
        start = ctypes.sizeof(State)
        per_gpu = capacity * (BREAKPOINT.size + STEP.size)
        size = start + gpu_count * per_gpu
        header = State(magic=MAGIC, version=VERSION, size=size)
        header.gpu_count, header.capacity = gpu_count, capacity
        for index in range(gpu_count):
            gpu = header.gpus[index]
            gpu.breakpoint_offset = start + index * per_gpu
            gpu.step_offset = gpu.breakpoint_offset + capacity * BREAKPOINT.size
        with path.open("wb") as file:
            file.write(header)
            file.truncate(size)  # sparse: what is not scripted takes no room
        return cls(path)

    def close(self) -> None:
        """Let go of the file; the mapping goes with its last user."""
        self._file.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads' and processes' Python code from writing meanwhile."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def writing(self, gpu: GpuState) -> Iterator[None]:
        """Let the C library see what is written here all at once. Keep it short: readers wait."""
        with self.locked():
            gpu.sequence += 1
            try:
                yield
            finally:
                gpu.sequence += 1
