"""greend, installed as a service under a directory of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from greend.service.places import Places

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GREEND_")}


def service(
    *arguments: str, python: str = sys.executable, answer: str = "", prefix: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Runs `greend service …` to its end."""
    done = subprocess.run(
        [*prefix, python, "-m", "greend", "service", *arguments],
        env=ENVIRONMENT,
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def places() -> Iterator[Places]:
    """Where nothing is installed yet. Short: a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as directory:
        yield Places(Path(directory))


@pytest.fixture
def installed(places: Places) -> Places:
    """Where it is."""
    done = service("install", "--root", str(places.root))
    assert done.returncode == 0, done.stderr
    return places
