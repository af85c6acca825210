"""The demo's workload: two engines with continuous batching, one a GPU. Pure.

Each engine repeats: admit what waits, prefill it, then decode a token for
every request of the batch per iteration until somebody finishes or arrives.
Load depends on the batch (FACTS.md, "Physics for a simulated GPU", assumed).
"""

import math
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MODELS = ("llama-3-8b", "mistral-7b")
"""The model that each GPU serves."""
MAX_BATCH = 8
"""Requests at once on one GPU."""

_PREFILL_TOKENS_PER_S = 16_000.0
_ITERATION_S = 0.014
_ITERATION_S_PER_REQUEST = 0.0004
_ARRIVALS_SHARE = 0.75  # of the workload's time; the rest is for finishing


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and when it reaches its engine."""

    request_id: str
    model: str
    gpu: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What a GPU does: SMs and memory bandwidth, 0 to 1."""

    sm: float
    memory: float


IDLE = Activity(0.0, 0.0)
PREFILL = Activity(1.0, 0.4)


def decode_activity(batch: int) -> Activity:
    """Decoding: SM activity 0.3 for one request, growing to 0.5 for a full batch."""
    return Activity(0.3 + 0.2 * (batch - 1) / (MAX_BATCH - 1), 0.9)


@dataclass(frozen=True, slots=True)
class Event:
    """An instant at which a GPU's work changes, and what it does from then on."""

    at_s: float
    gpu: int
    activity: Activity
    stops: tuple[Request, ...] = ()
    first_tokens: tuple[Request, ...] = ()
    starts: tuple[Request, ...] = ()


def draw_requests(count: int, seconds: float, seed: int = 8) -> Sequence[Request]:
    """Requests of different lengths arriving at random over most of `seconds`."""
    rng = random.Random(seed)
    arrivals_s = sorted(rng.uniform(0.0, _ARRIVALS_SHARE * seconds) for _ in range(count))
    requests = []
    for number, arrival_s in enumerate(arrivals_s, start=1):
        gpu = rng.randrange(len(MODELS))
        requests.append(
            Request(
                request_id=f"req-{number:02d}",
                model=MODELS[gpu],
                gpu=gpu,
                arrival_s=arrival_s,
                # Lengths of real prompts and answers spread over orders of magnitude.
                prompt_tokens=round(math.exp(rng.uniform(math.log(64), math.log(2048)))),
                output_tokens=round(math.exp(rng.uniform(math.log(24), math.log(192)))),
            )
        )
    return requests


def plan(requests: Iterable[Request]) -> Sequence[Event]:
    """Everything that happens on all GPUs, in order of time."""
    by_gpu: dict[int, list[Request]] = {}
    for request in requests:
        by_gpu.setdefault(request.gpu, []).append(request)
    events = [event for gpu in by_gpu for event in _serve(gpu, by_gpu[gpu])]
    return sorted(events, key=lambda event: event.at_s)


def peak(events: Iterable[Event]) -> int:
    """The highest number of requests that run at once, on all GPUs together."""
    running = highest = 0
    for event in events:
        running += len(event.starts) - len(event.stops)
        highest = max(highest, running)
    return highest


def _serve(gpu: int, requests: Iterable[Request]) -> Iterable[Event]:
    waiting = deque(sorted(requests, key=lambda request: request.arrival_s))
    left: dict[Request, int] = {}  # tokens that each request of the batch still needs
    now_s = 0.0
    stops: tuple[Request, ...] = ()
    while waiting or left:
        if not left and waiting[0].arrival_s > now_s:
            if stops:
                yield Event(now_s, gpu, IDLE, stops=stops)
                stops = ()
            now_s = waiting[0].arrival_s
        admitted = _admit(waiting, now_s, MAX_BATCH - len(left))
        if admitted:
            yield Event(now_s, gpu, PREFILL, stops=stops, starts=admitted)
            stops = ()
            now_s += sum(request.prompt_tokens for request in admitted) / _PREFILL_TOKENS_PER_S
            left.update((request, request.output_tokens - 1) for request in admitted)
        activity = decode_activity(len(left))
        yield Event(now_s, gpu, activity, stops=stops, first_tokens=admitted)
        iteration_s = _ITERATION_S + _ITERATION_S_PER_REQUEST * len(left)
        iterations = min(left.values())
        if waiting and len(left) < MAX_BATCH:
            until_arrival = math.ceil((waiting[0].arrival_s - now_s) / iteration_s)
            iterations = min(iterations, max(1, until_arrival))
        now_s += iterations * iteration_s
        left = {request: tokens - iterations for request, tokens in left.items()}
        stops = tuple(request for request, tokens in left.items() if tokens == 0)
        left = {request: tokens for request, tokens in left.items() if tokens > 0}
    if stops:
        yield Event(now_s, gpu, IDLE, stops=stops)


def _admit(waiting: deque[Request], now_s: float, room: int) -> tuple[Request, ...]:
    admitted: list[Request] = []
    while waiting and waiting[0].arrival_s <= now_s and len(admitted) < room:
        admitted.append(waiting.popleft())
    return tuple(admitted)
