"""kill -9 under load: what was acknowledged is there once, and the account is whole."""

from tests.faults.host import Host
from tests.faults.kills import RESTART_S, kill_again_and_again

CYCLES = 50


def test_what_was_acknowledged_survives_kills_at_random_moments(loaded: Host) -> None:
    seen = kill_again_and_again(loaded, CYCLES, seed=1)
    print(seen)
    assert seen.windows > 0
    assert max(seen.restarts_s) <= RESTART_S
