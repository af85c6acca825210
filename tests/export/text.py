"""Scrapes, taken apart by prometheus-client's own parser."""

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


def scrape(url: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        body: bytes = response.read()
    return body.decode()


class Scrape:
    """The samples of one scrape, by name and labels."""

    def __init__(self, url: str) -> None:
        self.text = scrape(url)
        self.samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(self.text):
            for item in family.samples:
                series = self.samples.setdefault(item.name, {})
                labels = frozenset(item.labels.items())
                assert labels not in series, f"{item.name} twice with {item.labels}"
                series[labels] = item.value

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """The one series that has these labels (and maybe others)."""
        wanted = (labels or {}).items()
        found = [value for given, value in self.samples[name].items() if given >= frozenset(wanted)]
        assert len(found) == 1, f"{name}{dict(wanted)}: {len(found)} series"
        return found[0]

    def has(self, name: str, labels: Mapping[str, str] | None = None) -> bool:
        wanted = frozenset((labels or {}).items())
        return any(given >= wanted for given in self.samples.get(name, {}))
