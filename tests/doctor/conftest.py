"""The doctor as a process, on the double of the driver's library."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60.0


@dataclass
class Report:
    """What the doctor said with --json, and its exit status."""

    status: int
    document: dict[str, Any]

    def of(self, name: str) -> list[dict[str, str]]:
        """The findings of a check."""
        return [finding for finding in self.document["findings"] if finding["name"] == name]

    def one(self, name: str, words: str) -> dict[str, str]:
        """The one finding of a check that has these words."""
        found = [finding for finding in self.of(name) if words in finding["found"]]
        assert len(found) == 1, self.of(name)
        return found[0]

    def worst(self, name: str) -> str:
        """The worst level of a check."""
        order = ["ok", "info", "warning", "error"]
        return max((finding["level"] for finding in self.of(name)), key=order.index)


@dataclass
class Doctor:
    """Runs `greend doctor` with both directories in one of its own."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    as_user: dict[str, Any] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        places = ["--state-dir", str(self.directory), "--runtime-dir", str(self.directory)]
        usual = ["--config", os.devnull, *places, "--seconds", "1.5"]
        return [self.python, "-m", "greend", "doctor", *usual, *arguments]

    def full_environment(self) -> Mapping[str, str]:
        """This process's, without greend's variables, and what the test sets."""
        own = {name: text for name, text in os.environ.items() if not name.startswith("GREEND_")}
        return own | self.environment

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.full_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=self.directory,
            **self.as_user,
        )

    def report(self, *arguments: str) -> Report:
        """Runs it with --json; nothing is said but the document."""
        ended = self.run("--json", *arguments)
        assert ended.stderr == ""
        return Report(ended.returncode, json.loads(ended.stdout))


@pytest.fixture
def doctor() -> Iterator[Doctor]:
    # A short path: a socket's may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as directory:
        yield Doctor(Path(directory))
