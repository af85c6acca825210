"""Laws of what is summed."""

import math
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.errors import InvalidArgument
from greend.export.recorder import AMOUNTS, Recorder
from greend.export.tag_groups import FEWEST_SERIES, OTHER
from greend.export.totals import HeldCounter, Histogram
from greend.export.window_families import window_families
from tests.export.fed import booking, device_uuid, window

amounts = st.integers(-(10**9), 10**9).map(float)
# Small alphabets, so that tag sets meet again.
values = st.sampled_from(["", "a", "b", "c", "d", OTHER])
requests = st.lists(
    st.tuples(
        values, values, st.none() | st.integers(0, 10**9).map(float), st.none() | st.integers(0, 9)
    ),
    max_size=60,
)


@given(st.lists(amounts))
def test_a_counter_never_falls_and_is_held_back_only_until_made_up_for(
    deltas: list[float],
) -> None:
    counter = HeldCounter()
    told = [counter.read()]
    total = highest = 0.0
    for delta in deltas:
        counter.add(delta)
        total += delta
        highest = max(highest, total)
        told.append(counter.read())
        assert told[-1] == highest
    assert all(later >= earlier for earlier, later in pairwise(told))


@given(st.lists(amounts))
def test_what_falls_between_two_scrapes_and_rises_again_is_told_exactly(
    deltas: list[float],
) -> None:
    counter = HeldCounter()
    for delta in deltas:
        counter.add(delta)
    assert counter.read() == max(0.0, sum(deltas))


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(AMOUNTS, amounts))))
def test_accounts_never_fall(bookings: list[dict[str, float]]) -> None:
    recorder = Recorder()
    before = dict.fromkeys(AMOUNTS, 0.0)
    for given_amounts in bookings:
        recorder.booked(booking(0, **given_amounts))
        account = recorder.read().accounts[device_uuid(0)]
        now = {name: getattr(account, name) for name in AMOUNTS}
        assert all(now[name] >= before[name] for name in AMOUNTS)
        before = now


@given(requests, st.integers(FEWEST_SERIES, 60))
def test_series_stay_within_the_bound_and_their_sums_are_those_of_all_windows(
    drawn: list[tuple[str, str, float | None, int | None]], max_series: int
) -> None:
    recorder = Recorder(("model", "tenant"), max_series)
    for model, tenant, energy_mj, tokens in drawn:
        recorder.window_final(window(energy_mj, tokens, model=model, tenant=tenant))

    recorded = recorder.read()
    by_tags = [
        sample for family in list(window_families(recorded))[:3] for sample in family.samples
    ]
    assert len(by_tags) <= max_series
    sums: defaultdict[str, float] = defaultdict(float)
    for sample in by_tags:
        sums[sample.name + sample.labels.get("kind", "")] += sample.value
    assert sums["greend_windows_total"] == len(drawn)
    assert math.isclose(
        sums["greend_window_energy_joules_total"], sum(item[2] or 0 for item in drawn) / 1e3
    )
    assert sums["greend_window_tokens_totaloutput"] == sum(item[3] or 0 for item in drawn)


@given(requests, st.integers(FEWEST_SERIES, 60))
def test_every_window_without_series_of_its_own_is_counted_as_dropped(
    drawn: list[tuple[str, str, float | None, int | None]], max_series: int
) -> None:
    recorder = Recorder(("model", "tenant"), max_series)
    for model, tenant, *_ in drawn:
        recorder.window_final(window(model=model, tenant=tenant))
    recorded = recorder.read()
    own = {group.values for group in recorded.groups} - {(OTHER, OTHER)}
    in_other = sum((model, tenant) not in own for model, tenant, *_ in drawn)
    said_other = sum((model, tenant) == (OTHER, OTHER) for model, tenant, *_ in drawn)
    assert in_other - said_other <= recorded.folded_windows <= in_other


@given(st.lists(st.floats(0, 1e6)))
def test_a_histogram_counts_every_value_once_at_or_below_its_bound(seen: list[float]) -> None:
    histogram = Histogram((1, 10, 100))
    for value in seen:
        histogram.observe(value)
    totals = histogram.read()
    expected = [sum(value <= bound for value in seen) for bound in (1, 10, 100)]
    assert list(totals.cumulative) == [*expected, len(seen)]
    assert math.isclose(totals.sum, math.fsum(seen))


def test_without_tag_keys_there_is_one_group_and_nothing_is_dropped() -> None:
    recorder = Recorder()
    for model in "abc":
        recorder.window_final(window(model=model))
    recorded = recorder.read()
    assert [(group.values, group.windows) for group in recorded.groups] == [((), 3)]
    assert recorded.folded_windows == 0


def test_a_window_of_unknown_energy_counts_as_a_window_and_in_no_sum_of_joules() -> None:
    recorder = Recorder()
    recorder.window_final(window(None))
    recorded = recorder.read()
    assert recorded.groups[0].windows == 1
    assert recorded.groups[0].energy_mj is None
    assert recorded.request_energy_j.count == recorded.output_token_energy_j.count == 0


@pytest.mark.parametrize(
    ("tag_keys", "max_series", "told"),
    [
        (["Model"], 1000, "tag_keys: key 'Model' is not of the form"),
        (["kind"], 1000, "'kind' is a label of greend's own: use another tag key"),
        (["a.b", "a_b"], 1000, "'a_b' and 'a.b' would both be the label 'a_b': leave one out"),
        (["model"], 9, "max_series: 9 is less than 10"),
    ],
)
def test_wrong_settings_are_refused_with_key_and_remedy(
    tag_keys: list[str], max_series: int, told: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Recorder(tag_keys, max_series)
    assert told in str(refused.value)
    assert str(refused.value).startswith("[metrics] ")
