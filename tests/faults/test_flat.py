"""The memory of daemon and client at 1000 windows/s; hours of it: scripts/soak."""

import pytest

from tests.faults.host import Host
from tests.faults.steady import FLAT, RATE, Steady

LENGTH_S = 300.0


@pytest.mark.timeout(LENGTH_S + 120)
def test_neither_daemon_nor_client_grows(loaded: Host) -> None:
    watched = Steady(loaded, LENGTH_S)
    watched.watch()
    print(watched)
    assert watched.end() >= 0.8 * RATE * LENGTH_S
    assert watched.growth("daemon") <= FLAT
    assert watched.growth("client") <= FLAT
