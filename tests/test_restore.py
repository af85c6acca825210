"""`greend restore`: what a daemon left behind."""

import subprocess
import sys
from pathlib import Path

from greend.restore import INTENTS_NAME
from tests.test_imports import beyond_standard_library, loaded_by


def restore(state_dir: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, "-m", "greend", "restore"),
            *("--state-dir", str(state_dir), "--runtime-dir", str(state_dir)),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_nothing_was_left(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        done = restore(directory)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("nothing to restore")


def test_what_this_version_cannot_put_back_is_said_and_left_alone(tmp_path: Path) -> None:
    intents = tmp_path / INTENTS_NAME
    intents.write_text('{"version": 9}')
    done = restore(tmp_path)
    assert done.returncode == 1
    assert str(intents) in done.stderr
    assert "nvidia-smi --reset-gpu-clocks" in done.stderr
    assert intents.read_text() == '{"version": 9}'


def test_a_directory_that_cannot_be_looked_into_is_no_all_clear(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = restore(file)
    assert done.returncode == 1
    assert "--state-dir" in done.stderr


def test_it_needs_the_standard_library_only() -> None:
    assert beyond_standard_library(loaded_by("greend.restore")) == {"greend"}
