"""Cut, slow, trickling, half-closed and repeated connections: nothing is lost, nothing doubled."""

import random
import time

from tests.faults.audit import (
    check_acknowledged,
    check_conserved,
    check_nothing_open,
    check_shares,
    rows_by_id,
)
from tests.faults.host import Host
from tests.faults.proxy import Misfortune, any_misfortune, proxy

LOAD_S = 15.0
RATE = 60.0


def check_bad_line(loaded: Host, load_s: float, seed: int) -> str:
    """Load over a bad line for so long; returns what was seen."""
    rng = random.Random(seed)
    before = loaded.descriptors()
    path = loaded.daemon.directory / "line.sock"
    over = False

    def fate() -> Misfortune:
        return Misfortune() if over else any_misfortune(rng)

    with proxy(path, loaded.daemon.directory / "greend.sock", fate) as line:
        tellers = [loaded.teller(RATE, line.address) for _ in range(3)]
        caller = loaded.caller(RATE, line.address)
        end = time.monotonic() + load_s
        while time.monotonic() < end:
            time.sleep(1)
            loaded.vary_power()
        over = True  # a client that ends has only so long
        told = [client.finish() for client in tellers]
        called = caller.finish()
    loaded.wait_until_settled()
    loaded.wait_for_descriptors(before + 2)
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    journals = [*told, called]
    check_acknowledged(loaded.daemon, journals)
    assert [journal.refusals for journal in told] == [{}] * len(told), "nothing was too late"
    arrived = rows_by_id(loaded.daemon).keys()
    assert arrived == {window_id for journal in journals for window_id in journal.windows}
    for journal in told:
        assert journal.finals.keys() == journal.windows.keys()
    check_nothing_open(loaded.daemon)
    check_shares(loaded.daemon, check_conserved(loaded.daemon))
    replayed = sum(fate.replays for fate in line.fates)
    return (
        f"{len(arrived)} windows over {len(line.fates)} connections, {replayed} of them told twice"
    )


def test_everything_arrives_once_over_a_bad_line(loaded: Host) -> None:
    print(check_bad_line(loaded, LOAD_S, seed=5))
