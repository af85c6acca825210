"""A few of NVML's functions, called directly.

Beneath the binding on purpose: where pynvml is what is wrong, this still tells how
the driver is. All that greend measures is read through greend.device.nvml.
"""

import ctypes

from greend.doctor.answers import Answered, Driver

LIBRARY = "libnvidia-ml.so.1"
_TEXT_BYTES = 96


class Nvml:
    """The driver's library. Raises OSError where it cannot be loaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.nvmlErrorString.restype = ctypes.c_char_p
        self.path = _loaded_from()

    def initialise(self) -> Driver:
        """Starts NVML; on success with versions and the number of GPUs.

        It stays started: shut down, GPUs without persistence mode would be, too, and
        take seconds to come back.
        """
        result = self._library.nvmlInit_v2()
        if result:
            return Driver(result, self._words(result))
        count = ctypes.c_uint()
        result = self._library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return Driver(
            result,
            self._words(result) if result else "",
            self._text("nvmlSystemGetDriverVersion"),
            self._text("nvmlSystemGetNVMLVersion"),
            count.value,
        )

    def ask(self, index: int) -> Answered:
        """Asks a GPU for its persistence mode."""
        device, mode = ctypes.c_void_p(), ctypes.c_int()
        result = self._library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        if result:
            return Answered(index, self._words(result))
        result = self._library.nvmlDeviceGetPersistenceMode(device, ctypes.byref(mode))
        return Answered(index, persistence=None if result else bool(mode.value))

    def _text(self, function: str) -> str:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        getattr(self._library, function)(text, _TEXT_BYTES)
        return text.value.decode(errors="replace")

    def _words(self, result: int) -> str:
        words: bytes = self._library.nvmlErrorString(result)
        return words.decode(errors="replace")


def _loaded_from() -> str:
    """Which file the loader took."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")
            if "/libnvidia-ml.so" in line:
                return path[1] + path[2]
    return LIBRARY
