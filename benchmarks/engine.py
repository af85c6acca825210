"""An engine's iterations: continuous batching, as an inference server does it."""

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

from benchmarks import power
from benchmarks.power import MS, RAMP_NS, Noise, Piece, S
from benchmarks.scenarios import LEAD_NS, TAIL_NS, Device, Iteration, Scenario, TrueWindow

SLOTS = 64
WARM_NS = 6 * S
# What iterations draw above the floor (FACTS.md, physics).
PREFILL_W = {"a100": 309.0, "h100": 602.0}
DECODE_W = {"a100": 207.0, "h100": 382.0}
PREFILL_COST = 0.05  # of a prompt token; that of a decoded one is 1
PREFILL_TOKENS = 2048  # in one iteration, at most
PREFILL_TOKENS_PER_MS = 34
LONGEST_PREFILL = 4


@dataclass(slots=True)
class _Request:
    name: str
    start_ns: int
    prompt_tokens: int
    tokens_left: int
    stop_ns: int = 0
    work_j: float = 0.0


@dataclass(slots=True)
class _Batch:
    """An iteration and what it draws."""

    iteration: Iteration
    members: list[_Request]
    watts: float


@dataclass
class _Engine:
    """Runs until so many requests have been served after it was warm."""

    device: Device
    requests: int
    arriving: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[_Request] = field(default_factory=list)
    running: list[_Request] = field(default_factory=list)
    served: list[_Request] = field(default_factory=list)
    batches: list[_Batch] = field(default_factory=list)

    @property
    def rng(self) -> random.Random:
        return self.device.rng

    def run(self) -> None:
        numbers = count()
        # The first ones come one after the other, else all would end together.
        self.arriving = [(LEAD_NS + self.rng.randrange(4 * S), next(numbers)) for _ in range(SLOTS)]
        heapq.heapify(self.arriving)
        now_ns, left = LEAD_NS, self.requests
        while self.arriving or self.waiting or self.running:
            self._admit(now_ns)
            if not self.waiting and not self.running:
                now_ns = self.arriving[0][0]
                continue
            batch = self._prefill(now_ns) if self.waiting else self._decode(now_ns)
            self.batches.append(batch)
            now_ns = batch.iteration.stop_ns
            for request in self._finish(batch):
                next_ns = request.stop_ns + round(self.rng.expovariate(20) * S)
                left -= next_ns >= LEAD_NS + WARM_NS
                if left >= 0:
                    heapq.heappush(self.arriving, (next_ns, next(numbers)))
            now_ns += self.rng.randint(MS // 2, 2 * MS)

    def _admit(self, now_ns: int) -> None:
        while self.arriving and self.arriving[0][0] <= now_ns:
            start_ns, number = heapq.heappop(self.arriving)
            self.waiting.append(
                _Request(
                    f"r{number}",
                    start_ns,
                    # Medians of 400 and 100 tokens.
                    min(round(self.rng.lognormvariate(6.0, 0.6)), PREFILL_TOKENS),
                    max(round(self.rng.lognormvariate(4.6, 0.5)), 2),
                )
            )

    def _prefill(self, now_ns: int) -> _Batch:
        members: list[_Request] = []
        tokens = 0
        while self.waiting and len(members) < LONGEST_PREFILL:
            tokens += self.waiting[0].prompt_tokens
            if members and tokens > PREFILL_TOKENS:
                break
            members.append(self.waiting.pop(0))
        self.running += members
        length_ns = max(15 * MS, tokens * MS // PREFILL_TOKENS_PER_MS)
        costs = {member.name: member.prompt_tokens * PREFILL_COST for member in members}
        iteration = Iteration(now_ns, now_ns + length_ns, costs)
        return _Batch(iteration, members, PREFILL_W[self.device.kind])

    def _decode(self, now_ns: int) -> _Batch:
        members = list(self.running)
        length_ns = round((15 + 0.2 * len(members)) * self.rng.uniform(0.9, 1.1) * MS)
        costs = {member.name: 1.0 for member in members}
        iteration = Iteration(now_ns, now_ns + length_ns, costs)
        return _Batch(iteration, members, DECODE_W[self.device.kind])

    def _finish(self, batch: _Batch) -> list[_Request]:
        """Each member has got a token; returns those that have all."""
        done = []
        for member in batch.members:
            member.tokens_left -= 1
            if not member.tokens_left:
                member.stop_ns = batch.iteration.stop_ns + self.rng.randint(MS // 10, MS // 2)
                self.running.remove(member)
                done.append(member)
        self.served += done
        return done


def engine(device: Device, windows: int) -> Scenario:
    """Iterations that prefill and iterations that decode draw different power."""
    served = _Engine(device, windows + SLOTS)
    served.run()
    works = _book(served.batches, Noise(device.rng))
    spans = [(one.start_ns, one.stop_ns) for one in served.served]
    end_ns = max(stop_ns for _, stop_ns in spans) + TAIL_NS
    floor = power.floor(device.rng, device.profile.idle_w, end_ns)
    floor_j, idle_j = power.shared_j(power.curve(power.script(floor)), spans, end_ns)
    iterations = [batch.iteration for batch in served.batches]
    busy = [(one.start_ns, one.stop_ns, 1.0) for one in iterations]
    last_starts = sorted(start_ns for start_ns, _ in spans)[-SLOTS]
    return Scenario(
        kind=device.kind,
        power=power.script([*floor, *works]),
        utilization=power.utilization(device.rng, busy, end_ns),
        windows=[
            TrueWindow(
                one.name,
                one.start_ns,
                one.stop_ns,
                one.work_j + open_j,
                iteration_driven=True,
                counted=LEAD_NS + WARM_NS <= one.start_ns < last_starts,
            )
            for one, open_j in zip(served.served, floor_j, strict=True)
        ],
        end_ns=end_ns,
        idle_j=idle_j,
        iterations=iterations,
    )


def _book(batches: list[_Batch], noise: Noise) -> list[Piece]:
    """What iterations draw: each member's part is booked by its cost.

    What falls off after an iteration is its own, until the next one begins.
    """
    works: list[Piece] = []
    begin_w = 0.0
    for number, batch in enumerate(batches):
        start_ns, stop_ns = batch.iteration.start_ns, batch.iteration.stop_ns
        plateau = power.steady(noise, start_ns + RAMP_NS, stop_ns, batch.watts)
        level_w = plateau[-1].begin_w
        fallen_ns = stop_ns + RAMP_NS
        if number + 1 < len(batches):
            fallen_ns = min(fallen_ns, batches[number + 1].iteration.start_ns)
        end_w = level_w * (1 - (fallen_ns - stop_ns) / RAMP_NS)
        pieces = [
            Piece(start_ns, start_ns + RAMP_NS, begin_w, plateau[0].begin_w),
            *plateau,
            Piece(stop_ns, fallen_ns, level_w, end_w),
        ]
        begin_w = end_w
        each_j = power.energy_j(pieces) / sum(batch.iteration.costs.values())
        for member in batch.members:
            member.work_j += each_j * batch.iteration.costs[member.name]
        works += pieces
    return works
