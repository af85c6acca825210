"""systemd-analyze: the one installed, or Debian's package unpacked into a cache."""

import os
import shutil
import subprocess

from tests.debian import unpacked


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs it to its end."""
    environment = dict(os.environ)
    program = shutil.which("systemd-analyze")
    if program is None:
        tree = unpacked("systemd")
        program = str(tree / "usr/bin/systemd-analyze")
        libraries = {str(library.parent) for library in tree.rglob("*.so*")}
        environment["LD_LIBRARY_PATH"] = ":".join(sorted(libraries))
        (units,) = (path.parent for path in tree.rglob("multi-user.target"))
        environment["SYSTEMD_UNIT_PATH"] = f"{units}:"
    return subprocess.run(
        [program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
