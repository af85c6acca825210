"""What kinds of work draw, learnt from mixtures."""

import random

import pytest

from greend.energy.power_model import MOST_KINDS, Kind, PowerModel, kind_of


def test_kinds_are_told_apart_by_what_was_mixed_how_much() -> None:
    """Two kinds that draw 300 and 200, in steps of which each holds some of both."""
    rng = random.Random(1)
    model = PowerModel()
    for _ in range(200):
        first = rng.randrange(1, 100)
        times: dict[Kind, int] = {0: first, 1: 100 - first}
        model.learn(times, (300 * first + 200 * (100 - first)) / 100, 1.0, 0.0)
    factors = model.factors({0: 50, 1: 50}, 250.0, 1e9)
    assert factors[0] / factors[1] == pytest.approx(1.5, rel=0.02)
    assert (factors[0] + factors[1]) / 2 == pytest.approx(1.0, rel=1e-12)
    assert model.variation(0.0) == pytest.approx(0.12, abs=0.02)


def test_one_kind_takes_all_of_its_step_whatever_was_learnt() -> None:
    model = PowerModel()
    model.learn({0: 100}, 300.0, 1.0, 0.0)
    assert model.factors({0: 100}, 250.0, 1e9).get(0, 1.0) == 1.0


def test_no_kind_draws_more_than_the_device_can() -> None:
    model = PowerModel()
    for _ in range(50):
        model.learn({0: 100}, 400.0, 1.0, 0.0)
        model.learn({1: 100}, 100.0, 1.0, 0.0)
    assert model.factors({0: 50, 1: 50}, 250.0, highest=300.0) == {}


def test_iterations_are_of_a_kind_by_what_they_cost_a_member() -> None:
    decode = kind_of(dict.fromkeys("abcdefgh", 1.0))
    assert decode == kind_of(dict.fromkeys("ab", 1.0))
    assert decode != kind_of({"a": 20.0})
    assert kind_of({"a": 0.0}) is None


def test_a_step_of_more_kinds_than_are_remembered_is_learnt_from_all_the_same() -> None:
    model = PowerModel()
    model.learn({None: 100}, 100.0, 1.0, 0.0)
    many: dict[Kind, int] = dict.fromkeys(range(MOST_KINDS), 10)
    model.learn({None: 10, **many}, 100.0, 1.0, 0.0)
    model.learn({None: 10, MOST_KINDS: 10}, 100.0, 1.0, 0.0)
    factors = model.factors({None: 10, MOST_KINDS: 10}, 100.0, 1e9)
    assert factors == pytest.approx({None: 1.0, MOST_KINDS: 1.0})
