"""Builds the double of the driver's library, ``libnvidia-ml.so.1``, with any C compiler."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.nvml_double.layout import FUNCTIONS, c_header

LIBRARY = "libnvidia-ml.so.1"
_SOURCES = Path(__file__).parent
_FLAGS = (
    "-O2 -shared -fPIC -Wall -Wextra -Werror -std=gnu11 -fvisibility=hidden -pthread "
    f"-Wl,-soname,{LIBRARY}"
).split()


class BuildError(Exception):
    """The C compiler refused the sources; the message holds its output."""


def compiler() -> list[str]:
    """Return the command of a C compiler: ``cc``, ``gcc``, else that of the package ziglang."""
    for name in ("cc", "gcc"):
        if shutil.which(name):
            return [name]
    return [sys.executable, "-m", "ziglang", "cc"]


def build(directory: Path | None = None, omit: Iterable[str] = ()) -> Path:
    """Build the library, or find it built already, and return its path.

    ``directory`` is the cache (default: one in the temporary directory, for each user);
    functions named in ``omit`` (such as ``"nvmlDeviceGetFieldValues"``) do not exist in the
    library, as in an old driver's. Raises ``ValueError`` for unknown functions, ``BuildError``.
    """
    omitted = sorted(omit)
    if unknown := set(omitted) - {f"nvml{name}" for name in FUNCTIONS}:
        raise ValueError(f"the library never has {', '.join(sorted(unknown))}")
    header = c_header()
    sources = sorted(_SOURCES.glob("*.c"))
    command = compiler()
    flags = [*_FLAGS, *(f"-D{name}=omitted_{name}" for name in omitted)]
    digest = hashlib.sha256(repr((platform.machine(), command, flags, header)).encode())
    for source in [_SOURCES / "double.h", *sources]:
        digest.update(source.read_bytes())
    target = (directory or _default_cache()) / digest.hexdigest()[:24] / LIBRARY
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        (Path(scratch) / "layout.h").write_text(header)
        output = Path(scratch) / LIBRARY
        arguments = [*command, *flags, f"-I{scratch}", "-o", str(output), *map(str, sources)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"{' '.join(arguments)}\n{done.stderr}")
        output.replace(target)  # atomic: another process may be building the same
    return target


def _default_cache() -> Path:
    path = Path(tempfile.gettempdir()) / f"greend-nvml-double-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to somebody else")
    return path
