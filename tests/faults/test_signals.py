"""Signals under load: the daemon ends in time, or goes on, and keeps what it acknowledged."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.audit import check_acknowledged, check_conserved, check_nothing_open
from tests.faults.host import Host, serves

RATE = 120.0
END_S = 2.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_end_does_in_2_s_and_clients_go_on_with_the_next(
    loaded: Host, number: signal.Signals
) -> None:
    clients = [loaded.teller(RATE) for _ in range(3)]
    for _ in range(2):
        time.sleep(1.5)
        loaded.vary_power()
        begun = time.monotonic()
        assert loaded.daemon.stop(number) == 0
        assert time.monotonic() - begun <= END_S
        journals = [client.journal for client in clients]
        assert check_acknowledged(loaded.daemon, journals) > 0
        check_conserved(loaded.daemon)
        loaded.daemon.start()
    journals = [client.finish() for client in clients]
    loaded.wait_until_settled()
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    check_acknowledged(loaded.daemon, journals)
    check_nothing_open(loaded.daemon)
    check_conserved(loaded.daemon)


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """Under nohup, what is started here would ignore a terminal that is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def _hang_up(loaded: Host) -> None:
    """As a terminal does that is closed."""
    os.kill(loaded.daemon.pid, signal.SIGHUP)


def _end_twice(loaded: Host) -> None:
    """As an impatient operator does."""
    os.kill(loaded.daemon.pid, signal.SIGINT)
    time.sleep(0.05)
    os.kill(loaded.daemon.pid, signal.SIGTERM)


@pytest.mark.parametrize("told", [_hang_up, _end_twice])
def test_whatever_ends_it_nothing_acknowledged_is_lost(
    loaded: Host, told: Callable[[Host], None]
) -> None:
    client = loaded.teller(RATE)
    time.sleep(2)
    begun = time.monotonic()
    told(loaded)
    assert loaded.daemon.process is not None
    loaded.daemon.process.wait(END_S)
    assert time.monotonic() - begun <= END_S
    assert check_acknowledged(loaded.daemon, [client.journal]) > 0
    check_conserved(loaded.daemon)
    assert not serves(loaded.daemon)
    loaded.daemon.start()
    journal = client.finish()
    loaded.wait_until_settled()
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    check_acknowledged(loaded.daemon, [journal])
    check_nothing_open(loaded.daemon)
