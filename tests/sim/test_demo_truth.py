import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.demo.truth import Interval, fair_shares, pieces
from greend.sim.history import FJ_PER_J, UW_PER_W, History, Load

SPANS = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 300)), min_size=1, max_size=12)


def energy_of_100_w(start_ns: int, stop_ns: int) -> float:
    return 100.0 * (stop_ns - start_ns)


def intervals_of(spans: list[tuple[int, int]]) -> dict[str, Interval]:
    return {str(n): Interval(start, start + length) for n, (start, length) in enumerate(spans)}


def test_a_lone_request_has_all_the_energy_of_its_time() -> None:
    shares = fair_shares(pieces({"a": Interval(10, 30)}), energy_of_100_w)
    assert shares == {"a": 2000.0}


def test_overlapping_requests_split_what_is_drawn_while_both_run() -> None:
    spans = {"a": Interval(0, 20), "b": Interval(10, 40)}
    assert fair_shares(pieces(spans), energy_of_100_w) == {"a": 1500.0, "b": 2500.0}


def test_time_in_which_nothing_runs_is_nobodys() -> None:
    found = pieces({"a": Interval(0, 10), "b": Interval(20, 30)})
    assert [(piece.start_ns, piece.stop_ns) for piece in found] == [(0, 10), (20, 30)]


@given(SPANS)
def test_pieces_cover_each_request_exactly(spans: list[tuple[int, int]]) -> None:
    intervals = intervals_of(spans)
    found = pieces(intervals)
    for name, interval in intervals.items():
        mine = [piece for piece in found if name in piece.members]
        length = sum(piece.stop_ns - piece.start_ns for piece in mine)
        assert length == interval.stop_ns - interval.start_ns


@given(SPANS, st.lists(st.tuples(st.integers(0, 1300), st.integers(0, 700)), max_size=10))
def test_shares_sum_to_the_energy_of_the_occupied_time(
    spans: list[tuple[int, int]], loads: list[tuple[int, int]]
) -> None:
    history = History(0, Load(0.0, 0.0, 120 * UW_PER_W))
    for start_ns, power_w in loads:
        history.set_load(start_ns, Load(0.5, 0.5, power_w * UW_PER_W))

    def energy_j(start_ns: int, stop_ns: int) -> float:
        return history.energy_between_fj(start_ns, stop_ns) / FJ_PER_J

    found = pieces(intervals_of(spans))
    occupied_j = sum(energy_j(piece.start_ns, piece.stop_ns) for piece in found)
    assert sum(fair_shares(found, energy_j).values()) == pytest.approx(occupied_j, rel=1e-12)
