"""A program on a terminal of 80 columns."""

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence


def on_terminal(
    command: Sequence[str], environment: Mapping[str, str], typed: str = ""
) -> tuple[int, str]:
    """Runs a program, types something; returns its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        env={**environment, "TERM": "xterm", "COLUMNS": "80"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the program has closed its end
                break
        os.close(ours)
    return process.returncode, shown.decode()
