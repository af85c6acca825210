"""The command as a program of its own, and a daemon on a socket."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.memory_daemon import MemoryDaemon, serving
from tests.daemon import Daemon
from tests.daemon import daemon as real_daemon

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "greend.sock"


@pytest.fixture
def daemon() -> MemoryDaemon:
    return MemoryDaemon()  # type: ignore[abstract]  # some RPCs stay unimplemented


@pytest.fixture
def address(daemon: MemoryDaemon, socket: Path) -> Iterator[str]:
    with serving(daemon, socket) as address:
        yield address


@pytest.fixture
def real() -> Iterator[Daemon]:
    """A real daemon, with a GPU that is simulated."""
    with real_daemon("--simulate", "h100x1", devices=1) as running:
        yield running


@pytest.fixture
def environment(socket: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GREEND_")}
    for variable in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        kept.pop(variable, None)
    return kept | {"GREEND_ADDRESS": f"unix://{socket}", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def command() -> list[str]:
    return [sys.executable, "-W", "error", "-m", "greenctl"]


@pytest.fixture
def greenctl(command: list[str], environment: dict[str, str]) -> Run:
    def run(*arguments: str, code: int = 0, **more: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            env=environment | more,
            timeout=60,
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    return run
