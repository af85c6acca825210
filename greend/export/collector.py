"""A scrape: one snapshot, turned into metric families."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greend.export.daemon_families import daemon_families
from greend.export.device_families import energy_families, reading_families, state_families
from greend.export.host import Host
from greend.export.recorder import Recorded
from greend.export.window_families import window_families


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one scrape tells, taken at one instant."""

    host: Host
    recorded: Recorded


class SnapshotCollector(Collector):
    """Takes a snapshot for each scrape; `take` is called in the scrape's thread."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def collect(self) -> Iterator[Metric]:
        """All families; one without a sample is left out."""
        snapshot = self._take()
        for family in _families(snapshot):
            if family.samples:
                yield family


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    yield from energy_families(snapshot.recorded.accounts)
    yield from state_families(snapshot.host.devices)
    yield from reading_families(snapshot.host.devices)
    yield from window_families(snapshot.recorded)
    yield from daemon_families(snapshot.host)


def make_registry(take: Callable[[], Snapshot]) -> CollectorRegistry:
    """The daemon's metrics and those of its process (process_*)."""
    registry = CollectorRegistry(support_collectors_without_names=True)
    registry.register(SnapshotCollector(take))
    ProcessCollector(registry=registry)
    return registry
