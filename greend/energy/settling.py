"""What claims get of a step, settled when it ends (DESIGN.md, rule 5).

Within a step events only mark where they are: what they settle waits, in their order, until
the step's energy is placed.
"""

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from greend.energy.claims import Claim, Claimant, Phase, Tally
from greend.energy.closed_step import FACTS
from greend.energy.placing import PlacingErrors, StepErrors
from greend.energy.running import Mark, Rates, RunningSums
from greend.energy.saved import SavedSums
from greend.model import Flag, Source


class Settling:
    """The running sums of a device, and what is to be settled when its step ends."""

    def __init__(self) -> None:
        self.sums = RunningSums()
        self.placing = PlacingErrors()
        self.fact_counts = (0,) * len(FACTS)
        # Claimants that began in the step that goes on, and are there still.
        self._begun: dict[Claimant, None] = {}
        self._waiting: list[Callable[[], None]] = []

    def end_step(self, rates: Rates, errors: StepErrors, facts: frozenset[Flag | Source]) -> None:
        """The step is placed: gives to whom it belongs."""
        sums, placing = self.sums, self.placing
        placing.end_step(sums, errors)
        sums.end_step(rates)
        if facts:
            counts = zip(self.fact_counts, FACTS, strict=True)
            self.fact_counts = tuple(count + (fact in facts) for count, fact in counts)
        for settle in self._waiting:
            settle()
        self._waiting.clear()
        begun, self._begun = self._begun, {}
        for claimant in begun:
            claimant.variance += placing.of_part(claimant, sums.now, ended=False)
        placing.next_step()
        for claimant in begun:
            claimant.variance_since = placing.total_of(claimant)

    # What waits

    def begin(self, claimant: Claimant) -> None:
        """A claimant claims the rest from here on."""
        self._begun[claimant] = None

    def end(self, claimant: Claimant) -> None:
        """A claimant gets nothing more."""
        self._begun.pop(claimant, None)
        self._waiting.append(partial(self._end, claimant, self.sums.here()))

    def floor(self, claim: Claim) -> None:
        """A claim has had its share of the floor up to here."""
        assert claim.floor_since is not None
        here = self.sums.here()
        self._waiting.append(partial(add_floor, claim, claim.weight, claim.floor_since, here))

    def phase(self, claim: Claim, phase: Phase, rest_weight: int) -> None:
        """A phase ends here and the next begins; all together claim `rest_weight`."""
        claimants, here = tuple(claim.claimants), self.sums.here()
        self._waiting.append(partial(self._cut, claim, claimants, here, rest_weight, phase))

    def stop(self, claim: Claim) -> None:
        """A window ends here."""
        claim.stopped = self.sums.here()
        self._waiting.append(partial(self._seen, claim, claim.stopped))

    def fallen(self, claim: Claim) -> None:
        """The work of a window that had ended has fallen off by here."""
        self._waiting.append(partial(self._count_fall, claim, self.sums.here()))

    # Between steps

    @property
    def saved_sums(self) -> SavedSums:
        """The running sums, to be kept."""
        return SavedSums(self.sums.now, *self.placing.totals, self.fact_counts)

    def give(self, claimant: Claimant) -> None:
        """What a claimant got so far is its members'; it goes on from here."""
        now = self.sums.now
        self._give(claimant, now)
        claimant.begun, claimant.variance = now, 0.0
        claimant.variance_since = self.placing.total_of(claimant)

    def so_far(self, claim: Claim) -> Claim:
        """A claim with what it has got so far; the claim itself stays as it is."""
        so_far, now = claim.copy(), self.sums.now
        for tally in so_far.tallies:
            if claim.floor_since is not None:
                tally.add_floor(claim.weight, claim.floor_since, now)
            for claimant in claim.claimants:
                self._add_rest(tally, claimant, claimant.members[claim], now)
        if claim.stopped is not None:
            so_far.device_mj += now.work_mj - claim.stopped.work_mj
        elif claim.begun is not None:
            so_far.seen(now, self.fact_counts)
        return so_far

    # Inside

    def _seen(self, claim: Claim, until: Mark) -> None:
        claim.seen(until, self.fact_counts)

    def _count_fall(self, claim: Claim, until: Mark) -> None:
        """What the device used for a window that had ended."""
        assert claim.stopped is not None
        claim.device_mj += until.work_mj - claim.stopped.work_mj
        claim.note_facts(self.fact_counts)

    def _end(self, claimant: Claimant, until: Mark) -> None:
        last = self.placing.of_part(claimant, until, ended=True)
        self._give(claimant, until)
        for claim, part in claimant.members.items():
            for tally in claim.tallies:
                tally.variance += part * part * last

    def _give(self, claimant: Claimant, until: Mark) -> None:
        for claim, part in claimant.members.items():
            for tally in claim.tallies:
                self._add_rest(tally, claimant, part, until)

    def _add_rest(
        self, tally: Tally, claimant: Claimant, part: float, until: Mark, sign: int = 1
    ) -> None:
        tally.add_rest(sign * claimant.weight * part, claimant.begun, until)
        variance = claimant.variance
        if claimant.variance_since is not None:
            total = self.placing.total_of(claimant)
            variance += claimant.weight**2 * (total - claimant.variance_since)
        tally.variance += sign * part * part * variance

    def _cut(
        self,
        claim: Claim,
        claimants: tuple[Claimant, ...],
        here: Mark,
        rest_weight: int,
        phase: Phase,
    ) -> None:
        """Ends a phase and begins the next: what claimants got so far, and give when they end,
        is the former's."""
        if not claim.phases and phase.start_ns <= claim.start_ns:
            phase.tally = replace(claim.whole)
            claim.phases.append(phase)
            return
        if not claim.phases:
            claim.phases.append(Phase("", claim.start_ns, replace(claim.whole)))
        before = claim.phases[-1].tally
        claim.phases.append(phase)
        fraction = 0.0
        for claimant in claimants:
            part = claimant.members[claim]
            self._add_rest(before, claimant, part, here)
            self._add_rest(phase.tally, claimant, part, here, sign=-1)
            fraction += claimant.weight * part / rest_weight if rest_weight else 0.0
        variance = self.placing.of_cut(fraction, here)
        before.variance += variance
        phase.tally.variance += variance


def add_floor(claim: Claim, weight: int, since: Mark, until: Mark) -> None:
    """A claim takes its share of the floor of a time."""
    for tally in claim.tallies:
        tally.add_floor(weight, since, until)
