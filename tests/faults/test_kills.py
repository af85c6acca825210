"""kill -9 under load: what was acknowledged is there once, and the account is whole."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.faults.host import Host, host
from tests.faults.kills import RESTART_S, Kills, check_went_on, kill_again_and_again
from tests.nvml_double import NvmlDouble

CYCLES = 50

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def killed() -> Iterator[tuple[Host, Kills]]:
    """A daemon that was killed and started again that often, and what was seen."""
    with (
        tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as path,
        NvmlDouble(Path(path), ["a100", "a100"]) as double,
        host(Daemon(Path(path), os.environ | double.environment), double) as running,
    ):
        yield running, kill_again_and_again(running, CYCLES, seed=1)


def test_what_was_acknowledged_survives_kills_at_random_moments(
    killed: tuple[Host, Kills],
) -> None:
    _, seen = killed
    print(seen)
    assert seen.windows >= 100 * CYCLES


def test_a_daemon_serves_soon_after_it_was_killed(killed: tuple[Host, Kills]) -> None:
    _, seen = killed
    assert max(seen.restarts_s) <= RESTART_S, str(seen)


def test_windows_go_on_over_kills_and_their_energy_adds_up(killed: tuple[Host, Kills]) -> None:
    check_went_on(*killed)
