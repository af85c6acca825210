"""Who claims a device's energy, and what they have got."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import compress
from math import sqrt
from operator import itemgetter, lt

import msgspec
from msgspec import field
from msgspec.structs import replace

from greend.energy.closed_step import FACTS, KEPT_NS
from greend.energy.power_model import Kind
from greend.energy.running import Mark
from greend.energy.summation import between
from greend.model import Flag, PhaseShare, Share, Source

# Weights are counted in whole units of this, so that their sum never drifts.
WEIGHT_UNIT = 1e-12
# A 95 % bound is so many standard deviations.
BOUND_SIGMAS = 2.0


class Tally(msgspec.Struct, array_like=True):
    """What a window or a phase of it has got, in mJ.

    `floor_error_mj` is what it got too much if the floor is taken too high by its error;
    `other_error_mj` what else the same error does to all windows; `variance` (mJ²) that of
    errors that are independent.
    """

    idle_mj: float = 0.0
    active_mj: float = 0.0
    floor_error_mj: float = 0.0
    other_error_mj: float = 0.0
    variance: float = 0.0

    def add_floor(self, weight: int, since: Mark, until: Mark) -> None:
        """Takes its share of the floor of a time."""
        self.idle_mj += weight * between(since.floor, until.floor)
        self.floor_error_mj += weight * (until.floor_error_mj - since.floor_error_mj)

    def add_rest(self, weight: float, since: Mark, until: Mark) -> None:
        """Takes its share of the rest of a time."""
        self.active_mj += weight * between(since.rest, until.rest)
        self.floor_error_mj -= weight * (until.rest_error_mj - since.rest_error_mj)
        self.other_error_mj += weight * (until.other_error_mj - since.other_error_mj)

    @property
    def correlated_mj(self) -> float:
        """A 95 % bound on what floor and background do to it."""
        return abs(self.floor_error_mj) + abs(self.other_error_mj)

    @property
    def independent_mj(self) -> float:
        """A 95 % bound on all else."""
        return BOUND_SIGMAS * sqrt(max(self.variance, 0.0))


class Phase(msgspec.Struct, array_like=True):
    """A part of a window, from `start_ns` on."""

    name: str
    start_ns: int
    tally: Tally = field(default_factory=Tally)

    def share(self) -> PhaseShare:
        """The phase as a value."""
        return PhaseShare(
            name=self.name,
            start_ns=self.start_ns,
            idle_mj=self.tally.idle_mj,
            active_mj=self.tally.active_mj,
            correlated_mj=self.tally.correlated_mj,
            independent_mj=self.tally.independent_mj,
        )


class Claim(msgspec.Struct, eq=False):
    """A window's claim on one device and what it has got; weight in WEIGHT_UNIT."""

    window_id: str
    parent_id: str
    weight: int
    start_ns: int
    # Claims nothing above the floor outside iterations.
    iteration_driven: bool = False
    # Since when it takes part in the steps as they are closed.
    joined_ns: int = 0
    whole: Tally = field(default_factory=Tally)
    phases: list[Phase] = field(default_factory=list)
    device_mj: float = 0.0
    clock_mhz_ns: float = 0.0
    clock_ns: float = 0.0
    facts: set[Flag | Source] = field(default_factory=set)
    # The weight that it claimed with, from instants on; 0 while a child was open. As long
    # as late events can reach back.
    course: list[tuple[int, int]] = field(default_factory=list)
    # Where it stands in the running sums; None: it does not claim now.
    begun: Mark | None = None
    floor_since: Mark | None = None
    stopped: Mark | None = None
    fact_counts: tuple[int, ...] = ()
    # Through which it claims the rest: itself, iterations.
    own: "Claimant | None" = None
    claimants: "list[Claimant]" = field(default_factory=list)

    @property
    def tallies(self) -> Iterable[Tally]:
        """What it has got, and its present phase has got, grow together."""
        if self.phases:
            return self.whole, self.phases[-1].tally
        return (self.whole,)

    def weighs(self, at_ns: int, weight: int) -> None:
        """It claims with this weight from now on."""
        course = self.course
        course.append((at_ns, weight))
        # Half of it at once: a parent may have had a million children.
        if course[len(course) // 2][0] < at_ns - KEPT_NS:
            del course[: len(course) // 2]

    def weight_ns(self, begin_ns: int, end_ns: int) -> int:
        """The integral of its weight over an interval."""
        course = self.course
        first = max(bisect_right(course, begin_ns, key=itemgetter(0)) - 1, 0)
        total, since_ns, weight = 0, begin_ns, 0
        for place in range(first, len(course)):
            at_ns, after = course[place]
            if at_ns >= end_ns:
                break
            at_ns = max(at_ns, since_ns)
            total += weight * (at_ns - since_ns)
            since_ns, weight = at_ns, after
        return total + weight * (end_ns - since_ns)

    def share(self) -> Share:
        """The claim as a value."""
        source, flags = _told(frozenset(self.facts))
        whole = self.whole
        return Share(
            idle_mj=whole.idle_mj,
            active_mj=whole.active_mj,
            # Late events move means of whole steps.
            device_mj=max(self.device_mj, whole.idle_mj + whole.active_mj),
            floor_known=Flag.FLOOR_UNKNOWN not in flags,
            clock_mhz_ns=self.clock_mhz_ns,
            clock_ns=self.clock_ns,
            source=source,
            flags=flags,
            correlated_mj=whole.correlated_mj,
            independent_mj=whole.independent_mj,
            phases=tuple(phase.share() for phase in self.phases),
        )

    def seen(self, now: Mark, fact_counts: tuple[int, ...]) -> None:
        """Adds what happened to the device until `now` since it was counted last."""
        assert self.begun is not None
        self.device_mj += now.device_mj - self.begun.device_mj
        self.device_mj += now.work_mj - self.begun.work_mj
        self.clock_mhz_ns += now.clock_mhz_ns - self.begun.clock_mhz_ns
        self.clock_ns += now.clock_ns - self.begun.clock_ns
        self.note_facts(fact_counts)

    def note_facts(self, fact_counts: tuple[int, ...]) -> None:
        """What was true of steps that it saw."""
        self.facts.update(compress(FACTS, map(lt, self.fact_counts, fact_counts)))

    def copy(self) -> "Claim":
        """What it has got, to be added to; it stands where this one stands."""
        return replace(
            self,
            whole=replace(self.whole),
            phases=[replace(phase, tally=replace(phase.tally)) for phase in self.phases],
            facts=set(self.facts),
        )


@cache
def _told(facts: frozenset[Flag | Source]) -> tuple[Source | None, frozenset[Flag]]:
    """What facts say of a share: its source and flags."""
    sources = {fact for fact in facts if isinstance(fact, Source)}
    flags = {fact for fact in facts if isinstance(fact, Flag)}
    if Source.POWER in sources:
        flags.add(Flag.POWER_INTEGRATED)
    source = Source.MIXED if len(sources) > 1 else next(iter(sources), None)
    return source, frozenset(flags)


class Iteration(msgspec.Struct, eq=False):
    """A batch execution: the members' weights go by `costs` while it runs."""

    start_ns: int
    stop_ns: int
    costs: Mapping[str, float]
    kind: Kind
    claimant: "Claimant | None" = None


class Claimant(msgspec.Struct, eq=False):
    """Who claims the rest: a window, or an iteration for its members, by parts that sum to 1."""

    weight: int
    members: dict[Claim, float]
    begun: Mark
    kind: Kind = None
    variance: float = 0.0
    # The running sum of variances when it began; None in the step in which it began.
    variance_since: float | None = None
