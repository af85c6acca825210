"""Metrics of final windows: by tags, and as histograms."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from greend.export.recorder import Recorded
from greend.export.totals import HistogramTotals


def window_families(recorded: Recorded) -> Iterator[Metric]:
    """Sums and histograms over the windows that became final in this run."""
    yield from _by_tags(recorded)
    yield CounterMetricFamily(
        "greend_series_dropped_total",
        'Windows that were summed under the tag value "other", because as many tag sets as'
        " [metrics] max_series allows were there before them.",
        recorded.folded_windows,
    )
    yield _histogram(
        "greend_request_energy_joules",
        "Energy of a window, usually one request: its own, without its children's.",
        recorded.request_energy_j,
    )
    yield _histogram(
        "greend_output_token_energy_joules",
        "Energy per output token of a window: its own energy by its output tokens; one"
        " observation a window.",
        recorded.output_token_energy_j,
    )


def _by_tags(recorded: Recorded) -> Iterator[Metric]:
    labels = list(recorded.label_names)
    windows = CounterMetricFamily(
        "greend_windows_total", "Windows that became final.", labels=labels
    )
    energy = CounterMetricFamily(
        "greend_window_energy_joules_total",
        "Energy of final windows: their own, without their children's.",
        labels=labels,
    )
    tokens = CounterMetricFamily(
        "greend_window_tokens_total",
        "Tokens of final windows: prompt, cached (the part of the prompt that a cache supplied)"
        " and output.",
        labels=[*labels, "kind"],
    )
    for group in recorded.groups:
        windows.add_metric(group.values, group.windows)
        if group.energy_mj is not None:
            energy.add_metric(group.values, group.energy_mj / 1e3)
        for kind, count in group.tokens.items():
            tokens.add_metric([*group.values, kind], count)
    yield from (windows, energy, tokens)


def _histogram(name: str, documentation: str, totals: HistogramTotals) -> Metric:
    bounds = [*(str(float(bound)) for bound in totals.bounds), "+Inf"]
    buckets = list(zip(bounds, map(float, totals.cumulative), strict=True))
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=totals.sum)
