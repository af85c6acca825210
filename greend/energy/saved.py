"""What of a ledger is kept on disk, so that the next run of the daemon goes on with it.

Saved between two steps. What steps give to a claim that nothing happens to is told by the
running sums alone: a claim is saved again only when something happened to it. Most windows
are saved once at least, so by places and not by names (`array_like`).
"""

import msgspec

from greend.energy.claims import Claim, Phase, Tally
from greend.energy.running import Mark
from greend.energy.timeline import TimelinePlace
from greend.model import Flag, Source

_FACTS: dict[str, Flag | Source] = {str(fact): fact for fact in (*Flag, *Source)}


class SavedSums(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A device's running sums at the end of a step; the totals are those of `PlacingErrors`,
    the counts those of the facts of steps."""

    mark: Mark
    total: float
    split_total: float
    fact_counts: tuple[int, ...]


class SavedLedger(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where a ledger was; `last_mean` is the device's mean power then, in mJ/ns."""

    place: TimelinePlace
    last_mean: float
    sums: SavedSums


class SavedClaim(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A claim with what it had got when the sums were `sums`; None: it is settled.

    From then on it gets so much of the sums' growth: `floor_weight` of the floor's,
    `rest_weight` of the rest's, `squares` of the variances', `split_squares` of those that
    come from splitting. `present`: it sees what happens to the device; `falling`: only what
    falls off of its work.
    """

    weight: int
    start_ns: int
    iteration_driven: bool
    device_mj: float
    clock_mhz_ns: float
    clock_ns: float
    facts: list[str]
    whole: Tally
    phases: list[Phase]
    sums: SavedSums | None = None
    present: bool = False
    falling: bool = False
    floor_weight: int = 0
    rest_weight: float = 0.0
    squares: float = 0.0
    split_squares: float = 0.0

    def at(self, window_id: str, parent_id: str, now: SavedSums | None) -> Claim:
        """The claim with what it had got when the sums were `now`."""
        claim = Claim(
            window_id,
            parent_id,
            self.weight,
            self.start_ns,
            self.iteration_driven,
            whole=self.whole,
            phases=self.phases,
            device_mj=self.device_mj,
            clock_mhz_ns=self.clock_mhz_ns,
            clock_ns=self.clock_ns,
            # Another version may have known of more.
            facts={_FACTS[fact] for fact in self.facts if fact in _FACTS},
        )
        since = self.sums
        if since is None or now is None:
            return claim.copy()
        variance = self.squares * (now.total - since.total)
        variance += self.split_squares * (now.split_total - since.split_total)
        for tally in claim.tallies:
            tally.add_floor(self.floor_weight, since.mark, now.mark)
            tally.add_rest(self.rest_weight, since.mark, now.mark)
            tally.variance += variance
        if self.present:
            claim.begun, claim.fact_counts = since.mark, since.fact_counts
            claim.seen(now.mark, now.fact_counts)
            claim.begun = None
        elif self.falling:
            claim.device_mj += now.mark.work_mj - since.mark.work_mj
        return claim


def save(claim: Claim, got: Claim, sums: SavedSums | None) -> SavedClaim:
    """A claim, with what it has `got` at `sums`; None: it is settled."""
    parts = [(item.kind, item.weight * item.members[claim]) for item in claim.claimants]
    return SavedClaim(
        claim.weight,
        claim.start_ns,
        claim.iteration_driven,
        got.device_mj,
        got.clock_mhz_ns,
        got.clock_ns,
        list(got.facts),
        got.whole,
        got.phases,
        sums,
        present=claim.begun is not None and claim.stopped is None,
        falling=claim.stopped is not None,
        floor_weight=0 if claim.floor_since is None else claim.weight,
        rest_weight=sum(part for _, part in parts),
        squares=sum(part * part for _, part in parts),
        split_squares=sum(part * part for kind, part in parts if kind is None),
    )
