"""Metrics of the daemon's own health; its CPU time and memory come from ProcessCollector."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from greend import __version__
from greend.export.host import Host


def daemon_families(host: Host) -> Iterator[Metric]:
    """How the daemon is."""
    yield InfoMetricFamily("greend_build", "The daemon's version.", {"version": __version__})
    gauges = (
        ("greend_devices", "Devices seen in this run.", len(host.devices)),
        (
            "greend_devices_ok",
            "Devices that answer.",
            sum(view.state == "ok" for view in host.devices),
        ),
        ("greend_open_windows", "Windows that run.", host.open_windows),
        (
            "greend_driver_error",
            "1 if there is no driver that answers, else 0.",
            host.driver_failed,
        ),
        ("greend_store_error", "1 if the store refused its last write, else 0.", host.store_failed),
    )
    for name, documentation, value in gauges:
        yield GaugeMetricFamily(name, documentation, value)
    yield CounterMetricFamily(
        "greend_client_lost_windows",
        "Windows that clients gave up before the daemon had them, as they told it.",
        host.lost_windows,
    )
