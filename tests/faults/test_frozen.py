"""A daemon, then a client, that does not move for seconds, with its sockets open."""

import signal
import statistics
import time
from collections.abc import Iterable

import pytest

from tests.faults.audit import (
    check_acknowledged,
    check_conserved,
    check_nothing_open,
    check_shares,
)
from tests.faults.host import Host
from tests.faults.journal import Journal

RATE = 100.0
FROZEN_S = 5.0


def costs_ns(journal: Journal, spans_ns: Iterable[tuple[int, int]]) -> list[int]:
    """What windows cost their caller that began and ended within one of these spans."""
    spans = list(spans_ns)
    return [
        told.cost_ns + told.stop_cost_ns
        for told in journal.windows.values()
        if told.stop_ns is not None
        and any(begin <= told.start_ns and told.stop_ns <= end for begin, end in spans)
    ]


@pytest.mark.parametrize("frozen_s", [4.0, 8.0])
def test_a_frozen_daemon_slows_no_caller_and_results_come_afterwards(
    loaded: Host, frozen_s: float
) -> None:
    caller, teller = loaded.caller(RATE), loaded.teller(RATE)
    time.sleep(1)
    begun = time.monotonic_ns()
    time.sleep(3)
    assert loaded.daemon.process is not None
    loaded.daemon.process.send_signal(signal.SIGSTOP)
    frozen = time.monotonic_ns()
    time.sleep(frozen_s)
    thawed = time.monotonic_ns()
    loaded.daemon.process.send_signal(signal.SIGCONT)
    time.sleep(3)
    ended = time.monotonic_ns()
    called, told = caller.finish(), teller.finish()
    loaded.wait_until_settled()
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    usual = costs_ns(called, [(begun, frozen), (thawed, ended)])
    meanwhile = costs_ns(called, [(frozen, thawed)])
    print(
        f"a window costs {statistics.median(usual) / 1e3:.0f} µs, with a frozen daemon"
        f" {statistics.median(meanwhile) / 1e3:.0f} µs (medians)"
    )
    assert len(meanwhile) >= 0.8 * RATE * (frozen_s - 0.5), "callers went on"
    assert statistics.median(meanwhile) <= 2 * statistics.median(usual)
    assert called.unavailable == {}
    for journal in (called, told):
        assert journal.finals.keys() == journal.windows.keys()
        assert journal.refusals == {}
    check_acknowledged(loaded.daemon, [called, told])
    check_nothing_open(loaded.daemon)
    check_shares(loaded.daemon, check_conserved(loaded.daemon))


def test_a_frozen_client_costs_others_nothing_and_goes_on_where_it_was(loaded: Host) -> None:
    frozen, polite = [loaded.teller(RATE) for _ in range(2)], loaded.caller(RATE)
    time.sleep(2)
    begun = time.monotonic_ns()
    for client in frozen:
        client.send(signal.SIGSTOP)
    time.sleep(FROZEN_S)
    thawed = time.monotonic_ns()
    during = polite.journal
    for client in frozen:
        client.send(signal.SIGCONT)
    time.sleep(1)
    journals = [client.finish() for client in (*frozen, polite)]
    loaded.wait_until_settled()
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    # Those that ended a while before had their results meanwhile.
    early = [
        told.window_id
        for told in during.windows.values()
        if told.stop_ns is not None and begun <= told.stop_ns <= thawed - 2_000_000_000
    ]
    assert len(early) >= 0.8 * RATE * (FROZEN_S - 2.5)
    assert during.finals.keys() >= set(early)
    for journal in journals:
        assert journal.finals.keys() == journal.windows.keys()
        assert journal.refusals == {}
    check_acknowledged(loaded.daemon, journals)
    check_nothing_open(loaded.daemon)
    check_shares(loaded.daemon, check_conserved(loaded.daemon))
