"""kill -9 under load: what was acknowledged is there once, and the account is whole."""

import pytest

from tests.faults.host import Host
from tests.faults.kills import RESTART_S, check_went_on, kill_again_and_again

CYCLES = 50


@pytest.mark.timeout(300)
def test_what_was_acknowledged_survives_kills_at_random_moments(loaded: Host) -> None:
    seen = kill_again_and_again(loaded, CYCLES, seed=1)
    print(seen)
    assert seen.windows > 0
    assert max(seen.restarts_s) <= RESTART_S


@pytest.mark.xfail(strict=True, reason="of kills within seconds, windows lose shares")
def test_windows_go_on_over_kills_and_their_energy_adds_up(loaded: Host) -> None:
    check_went_on(loaded, kill_again_and_again(loaded, cycles=3, seed=2))
