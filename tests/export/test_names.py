"""What the rules and the documentation name is what is exported: a misspelt alert never fires."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from greend.export.exporter import on_loop
from tests.export import rules
from tests.export.fed import fed
from tests.export.text import Scrape

DOCUMENTATION = Path(__file__).parents[2] / "docs/metrics.md"


@pytest.fixture(scope="module")
def told() -> Iterator[Scrape]:
    with fed() as made:
        on_loop(made.loop, made.feed)
        yield Scrape(made.url)


def names(text: str) -> set[str]:
    """Metrics in it; a histogram's series under the histogram's name."""
    found = re.findall(r"\b(?:greend|process)_\w+", text)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_rules_ask_for_series_that_exist(told: Scrape) -> None:
    assert names(rules.expressions()) <= names(told.text)
    selectors = re.findall(r'\b(greend_\w+)\{(\w+)="(\w+)"\}', rules.expressions())
    assert {label for _, label, _ in selectors} == {"state", "booking"}
    for name, label, value in selectors:
        assert told.has(name, {label: value}), f'{name}{{{label}="{value}"}}'


def test_every_metric_of_ours_is_documented_and_no_other(told: Scrape) -> None:
    def ours(text: str) -> set[str]:
        return {name for name in names(text) if name.startswith("greend_")}

    assert ours(DOCUMENTATION.read_text()) == ours(told.text)


def test_no_alert_is_without_a_test_that_it_fires() -> None:
    assert rules.alerts() == rules.tested_alerts()
