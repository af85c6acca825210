"""A small engine with continuous batching, for benchmarks/shapley.py.

Each iteration takes a piece of the prompts that wait, and a token of each request that
decodes. Its power is that of greend/sim/physics.py: weights that are read once for a whole
batch make it far less than the sum of what its members would need alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.power import MS, S
from greend.sim.physics import A100, power_w

GAP_NS = MS
# An iteration (A100, 8B parameters): reading the weights, computing a prompt token or a
# decoded one (which uses the arithmetic units worse), reading a token's keys and values.
WEIGHTS_MS, PROMPT_MS, DECODE_MS, CONTEXT_MS = 12.0, 1 / 34, 0.5, 0.002
MOST_PROMPT_TOKENS = 512
IDLE_SM, BANDWIDTH = 0.3, 0.9


@dataclass(frozen=True, slots=True)
class Request:
    name: str
    start_ns: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Part:
    """What an iteration does for a request: prompt tokens, or one decoded with its context."""

    prompt_tokens: int = 0
    context_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens or 1

    @property
    def compute_ms(self) -> float:
        return self.prompt_tokens * PROMPT_MS if self.prompt_tokens else DECODE_MS


Batch = Mapping[str, Part]


def duration_ms(batch: Batch) -> float:
    """Computing and reading overlap: the longer one decides."""
    return max(_compute_ms(batch), _memory_ms(batch))


def energy_j(batch: Batch) -> float:
    """Above the floor, of an iteration."""
    length_ms = duration_ms(batch)
    busy = IDLE_SM + (1 - IDLE_SM) * _compute_ms(batch) / length_ms
    bandwidth = BANDWIDTH * _memory_ms(batch) / length_ms
    watts = power_w(A100, A100.max_sm_clock_mhz, busy, bandwidth) - A100.static_power_w
    return watts * length_ms / 1e3


def _compute_ms(batch: Batch) -> float:
    return sum(part.compute_ms for part in batch.values())


def _memory_ms(batch: Batch) -> float:
    return WEIGHTS_MS + CONTEXT_MS * sum(part.context_tokens for part in batch.values())


@dataclass
class Served:
    """What the engine did for a set of requests."""

    batches: list[tuple[int, int, Batch]] = field(default_factory=list)
    stops_ns: dict[str, int] = field(default_factory=dict)

    @property
    def energy_j(self) -> float:
        return sum(energy_j(batch) for _, _, batch in self.batches)


def serve(requests: Sequence[Request]) -> Served:
    """Serves these requests and no others."""
    served = Served()
    prompts = {one.name: one.prompt_tokens for one in requests}
    outputs = {one.name: one.output_tokens for one in requests}
    now_ns = min(one.start_ns for one in requests)
    while len(served.stops_ns) < len(requests):
        here = [one for one in requests if one.start_ns <= now_ns and outputs[one.name]]
        if not here:
            now_ns = min(one.start_ns for one in requests if one.start_ns > now_ns)
            continue
        batch: dict[str, Part] = {}
        room = MOST_PROMPT_TOKENS
        for one in here:
            if not prompts[one.name]:
                done = one.output_tokens - outputs[one.name]
                batch[one.name] = Part(context_tokens=one.prompt_tokens + done)
            elif room:
                batch[one.name] = Part(prompt_tokens=min(prompts[one.name], room))
                room -= batch[one.name].prompt_tokens
        stop_ns = now_ns + round(duration_ms(batch) * MS)
        served.batches.append((now_ns, stop_ns, batch))
        for name, part in batch.items():
            prompts[name] -= part.prompt_tokens
            outputs[name] -= not prompts[name]
            if not outputs[name]:
                served.stops_ns[name] = stop_ns
        now_ns = stop_ns + GAP_NS
    return served


def draw(rng: random.Random, count: int, begin_ns: int, label: str) -> list[Request]:
    """Requests that come within a quarter of a second."""
    return [
        Request(
            f"{label}-{number}",
            begin_ns + rng.randrange(S // 4),
            min(round(rng.lognormvariate(6.0, 0.6)), 2048),
            max(round(rng.lognormvariate(4.6, 0.5)), 2),
        )
        for number in range(count)
    ]
