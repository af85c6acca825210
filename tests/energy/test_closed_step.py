"""Closed steps lose nothing by being packed."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from greend.energy.closed_step import FACTS, KEPT_NS, ClosedStep, Piece, pack, span, unpack
from greend.energy.history import History

START_NS = 86_400_000_000_000
MOST_NS = 4_000_000_000

rates = st.floats(1e-30, 1e3)
lengths = st.integers(1, MOST_NS)
times = st.tuples(st.integers(0, MOST_NS), st.integers(0, MOST_NS)).map(
    lambda ends: (START_NS + min(ends), START_NS + max(ends))
)
pieces = st.builds(
    lambda time, *rest: Piece(*time, *rest), times, rates, rates, st.integers(0, 60_000)
)
steps = st.builds(
    ClosedStep,
    start_ns=st.just(START_NS),
    end_ns=lengths.map(lambda length: START_NS + length),
    minute_unix_s=st.integers(0, 2**31),
    floor=rates,
    device=rates,
    unattributed_mj=st.floats(0, 1e9),
    power_limit_mw=st.none() | st.integers(0, 2_000_000),
    sm_clock_mhz=st.none() | st.floats(0, 5000),
    idle_times=st.lists(times, max_size=5),
    pieces=st.lists(pieces, max_size=64),
    facts=st.frozensets(st.sampled_from(FACTS)),
)


@given(steps)
def test_what_is_packed_comes_back(step: ClosedStep) -> None:
    packed = pack(step)
    assert packed is not None
    assert unpack(packed) == step
    assert span(packed) == (step.start_ns, step.end_ns)


@given(steps)
def test_pieces_that_gave_nothing_are_left_out(step: ClosedStep) -> None:
    nothing = Piece(step.start_ns, step.end_ns, 0.0, 0.0, 0)
    packed = pack(replace(step, pieces=[nothing, *step.pieces, nothing]))
    assert packed is not None
    assert unpack(packed) == step


def step(start_ns: int, length_ns: int) -> ClosedStep:
    end_ns = start_ns + length_ns
    idle = [(start_ns, end_ns)]
    return ClosedStep(start_ns, end_ns, 0, 1e-6, 1e-6, 0.0, None, None, idle, [], frozenset())


@given(st.lists(lengths | st.integers(2**32, 2**36), min_size=1, max_size=40))
def test_history_finds_every_step_however_it_is_kept(lengths_ns: list[int]) -> None:
    history = History()
    at_ns = START_NS
    kept: list[ClosedStep] = []
    for length_ns in lengths_ns:
        kept.append(step(at_ns, length_ns))
        history.append(step(at_ns, length_ns))
        at_ns += length_ns
    kept = [one for one in kept if one.end_ns >= at_ns - KEPT_NS]
    assert history.begin_ns == kept[0].start_ns
    assert list(history.overlapping(START_NS, at_ns)) == kept
    middle = kept[len(kept) // 2]
    (found,) = history.overlapping(middle.start_ns, middle.end_ns)
    found.unattributed_mj = 7.0  # what is taken of a step stays taken
    (again,) = history.overlapping(middle.start_ns, middle.end_ns)
    assert again.unattributed_mj == 7.0
