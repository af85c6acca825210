"""Prometheus itself scrapes the endpoint, runs the rules and the dashboard's queries."""

import math
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greend.export.exporter import on_loop
from tests.export import dashboard
from tests.export.fed import fed
from tests.export.prometheus import Prometheus, find_prometheus, running
from tests.export.real import served
from tests.export.rules import RULE_TESTS, RULES
from tests.export.text import scrape

DOCS = Path(__file__).parents[2] / "docs/metrics.md"
PATIENCE_S = 20.0


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The address (HOST:PORT) of an endpoint that has all there is to tell."""
    with served(directory) as address:
        yield address


@pytest.fixture(scope="module")
def scraping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    with serving(directory) as address, running(directory, address, RULES) as server:
        yield server


def promtool(*arguments: str, text: str | None = None) -> str:
    """Runs it; returns what it said."""
    done = subprocess.run(
        [find_prometheus().promtool, *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def until(found: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def numbers(scraping: Prometheus, expression: str) -> bool:
    """Whether a query gives any figures, and nothing but figures."""
    values = scraping.query(expression).values()
    return bool(values) and not any(math.isnan(value) for value in values)


def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    with fed() as made:
        on_loop(made.loop, made.feed)
        assert promtool("check", "metrics", text=scrape(made.url)) == ""


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(RULE_TESTS))


def test_prometheus_scrapes_without_an_error(scraping: Prometheus) -> None:
    def targets() -> list[tuple[str, str]]:
        found = scraping.get("targets")["activeTargets"]
        return [
            (item["health"], item["lastError"]) for item in found if item["health"] != "unknown"
        ]

    until(targets, "never scraped")
    assert targets() == [("up", "")]


def test_the_rate_of_the_joules_is_the_power(scraping: Prometheus) -> None:
    joules = "sum(rate(greend_device_energy_joules_total[5s]))"
    by_booking = "sum(rate(greend_device_booked_joules_total[5s]))"
    until(lambda: scraping.query(by_booking), "no rate")
    ((_, ratio),) = scraping.query(f"{joules} / {by_booking}").items()
    assert ratio == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("title", "expression"), dashboard.queries(), ids=lambda text: str(text)[:60]
)
def test_every_query_of_the_dashboard_gives_data(
    scraping: Prometheus, title: str, expression: str
) -> None:
    until(lambda: numbers(scraping, expression), f"{title}: {expression}")


def documented() -> list[str]:
    """The queries of the page, one a line, below their comments."""
    (block,) = re.findall(r"^```promql\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return [line for line in block.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("expression", documented(), ids=lambda text: str(text)[:60])
def test_every_query_of_the_docs_gives_data(scraping: Prometheus, expression: str) -> None:
    until(lambda: numbers(scraping, expression), expression)


def test_the_docs_have_the_queries_that_they_speak_of() -> None:
    text = DOCS.read_text()
    comments = re.findall(r"^# [A-Z0-9].*$", text[text.index("```promql") :], re.MULTILINE)
    assert len(documented()) == len(comments) >= 6


def test_while_all_is_well_no_alert_fires(scraping: Prometheus) -> None:
    def evaluated() -> bool:
        groups = scraping.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return bool(rules) and all(rule["health"] == "ok" for rule in rules)

    until(evaluated, "rules were not evaluated")
    assert scraping.get("alerts")["alerts"] == []
