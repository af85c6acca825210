"""What another version kept of a claim."""

from greend.energy.claims import Tally
from greend.energy.saved import SavedClaim
from greend.model import Flag, Source


def test_a_fact_that_nobody_knows_here_is_left_out() -> None:
    facts = ["gap", "energy_counter", "of_tomorrow"]
    saved = SavedClaim(1, 0, False, 0.0, 0.0, 0.0, facts, Tally(), [])
    assert saved.at("window", "", None).facts == {Flag.GAP, Source.ENERGY_COUNTER}
