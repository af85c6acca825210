"""Windows in groups: sums, means, quantiles."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from greend.model import NS_PER_S, Bound
from greend.store.reader import MeasuredWindow

NO_ERROR = Bound()


@dataclass(frozen=True, slots=True)
class Statistics:
    """Over the windows of a group for which the figure is known."""

    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Group:
    """Final windows with the same tag values in the same time bucket; energies in J."""

    tags: dict[str, str]
    start_unix_ns: int | None
    count: int
    energy_j: float
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    joules_per_request: Statistics | None
    joules_per_output_token: Statistics | None
    uncertainty_j: float | None


@dataclass(slots=True)
class _Sums:
    count: int = 0
    # Compact: there may be millions.
    energies_j: "array[float]" = field(default_factory=lambda: array("d"))
    per_token_j: "array[float]" = field(default_factory=lambda: array("d"))
    tokens: dict[str, int] = field(default_factory=dict)
    # On the sum of the energies; None where one of them has none.
    bound: Bound | None = NO_ERROR


def summarize(
    windows: Iterable[MeasuredWindow],
    by: Sequence[str],
    *,
    bucket_s: float | None,
    include_idle: bool,
) -> list[Group]:
    """Groups by tag values and time bucket, the most energy first, buckets in order.

    A window whose energy is not known (all of it in a gap, or no floor to take off)
    counts as a window, and in no sum of joules.
    """
    bucket_ns = None if bucket_s is None else round(bucket_s * NS_PER_S)
    groups: defaultdict[tuple[int | None, tuple[str | None, ...]], _Sums] = defaultdict(_Sums)
    for window in windows:
        start = None if bucket_ns is None else window.start_unix_ns // bucket_ns * bucket_ns
        sums = groups[start, window.tags]
        sums.count += 1
        for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
            count = getattr(window, name)
            if count is not None:
                sums.tokens[name] = sums.tokens.get(name, 0) + count
        energy_mj = window.own_mj if include_idle else window.own_active_mj
        if energy_mj is None:
            continue
        sums.energies_j.append(energy_mj / 1e3)
        bound = window.bound if include_idle else None  # nothing bounds the active part alone
        sums.bound = sums.bound and bound and sums.bound.plus(bound)
        if window.output_tokens:
            sums.per_token_j.append(energy_mj / 1e3 / window.output_tokens)
    made = [
        Group(
            tags={key: value for key, value in zip(by, values, strict=True) if value is not None},
            start_unix_ns=start,
            count=sums.count,
            energy_j=sum(sums.energies_j),
            prompt_tokens=sums.tokens.get("prompt_tokens"),
            cached_tokens=sums.tokens.get("cached_tokens"),
            output_tokens=sums.tokens.get("output_tokens"),
            joules_per_request=_statistics(sums.energies_j),
            joules_per_output_token=_statistics(sums.per_token_j),
            uncertainty_j=sums.bound.total_mj / 1e3 if sums.bound and sums.energies_j else None,
        )
        for (start, values), sums in groups.items()
    ]
    return sorted(made, key=lambda group: (group.start_unix_ns or 0, -group.energy_j))


def _statistics(values: "array[float]") -> Statistics | None:
    """Quantiles are nearest-rank: values that occurred."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95, 99))
    return Statistics(fmean(ordered), p50, p95, p99)
