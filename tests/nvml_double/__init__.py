"""A double of the driver's library: the real pynvml runs on it, over the real ABI, without a GPU.

    with NvmlDouble(directory, ["a100", "a100"]) as double:
        env = os.environ | double.environment  # for the process that uses pynvml
        double.gpus[0].set_power_w(300.0)

It cannot be loaded into a process that runs already: the dynamic linker reads LD_LIBRARY_PATH at
start. To control it from that process, attach: ``NvmlDouble.attach(path)``.
"""

from tests.nvml_double.double import NvmlDouble, SetterCall
from tests.nvml_double.gpu import DoubleGpu
from tests.nvml_double.profiles import PROFILES, Profile

__all__ = [
    "PROFILES",
    "DoubleGpu",
    "NvmlDouble",
    "Profile",
    "SetterCall",
]
