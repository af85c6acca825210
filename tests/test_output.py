"""`greend` where what it prints cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    ["--version"],
    ["serve", "--help"],
    ["serve", "--print-config"],
    ["restore", "--state-dir", "."],
    ["service", "status", "--root", "."],
    ["service", "status", "--root", ".", "--json"],
    ["service", "install", "--root", "."],
    ["demo", "--requests", "1"],
    ["demo", "--requests", "1", "--json"],
    ["doctor", "--seconds", "0.1", "--json"],
]


def ended(command: list[str], shell: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Runs greend by a line of the shell, in which it is "$@"."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, "bash", sys.executable, "-m", "greend", *command],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_told_in_a_line(command: list[str], tmp_path: Path) -> None:
    full = ended(command, '"$@" > /dev/full', tmp_path)
    assert full.stderr == "greend: cannot write: No space left on device\n"
    assert full.returncode == 1


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_who_leaves_and_an_output_that_is_closed_are_no_news(
    command: list[str], tmp_path: Path
) -> None:
    assert ended(command, '"$@" | true', tmp_path).stderr == ""
    assert ended(command, '"$@" >&-', tmp_path).stderr == ""


def test_an_error_that_is_not_of_the_output_is_told_whole(tmp_path: Path) -> None:
    code = (
        "import greend.restore\n"
        "from greend.cli import main\n"
        "def broken(state_dir): raise OSError(28, 'No space left on device')\n"
        "greend.restore.restore = broken\n"
        "main(['restore'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" in done.stderr
    assert "OSError: [Errno 28]" in done.stderr
