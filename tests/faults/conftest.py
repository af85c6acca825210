"""A host of its own for each test."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.faults.host import Host, host
from tests.nvml_double import NvmlDouble


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: a socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def loaded(directory: Path) -> Iterator[Host]:
    """Two A100s and a daemon; the clients are up to the test."""
    with NvmlDouble(directory, ["a100", "a100"]) as double:
        daemon = Daemon(directory, os.environ | double.environment)
        with host(daemon, double) as running:
            yield running
