"""The Grafana file's queries, as Grafana would send them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana/greend.json"
# What Grafana puts there itself; short, as a test's history is.
GRAFANAS = {"__rate_interval": "5s", "__range": "30s", "__interval": "1s"}


def load() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def panels(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, also those in rows."""
    for panel in document["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries() -> list[tuple[str, str]]:
    """Each query with its panel's title; those that fill variables, too."""
    document = load()
    values = dict(GRAFANAS)
    found: list[tuple[str, str]] = []
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            metric = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert metric is not None
            found.append((f"${variable['name']}", metric[1]))
        values[variable["name"]] = ".*" if variable.get("includeAll") else variable.get("query", "")
    for panel in panels(document):
        found += [
            (panel.get("title", ""), _fill(target["expr"], values))
            for target in panel.get("targets", ())
        ]
    return [(title, _fill(expression, values)) for title, expression in found]


def _fill(expression: str, values: dict[str, Any]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: str(values[match[1]]), expression)
