"""Tables of groups of windows."""

from collections.abc import Callable, Sequence

from greenctl.formats import UNKNOWN, instant, joules, number, plain
from greenctl.tables import Column
from greend_client import Group


def columns(groups: Sequence[Group], by: Sequence[str]) -> list[Column]:
    """Return the columns of a table of groups by these tag keys."""

    def column(title: str, cell: Callable[[Group], str], rank: int = 0) -> Column:
        return Column(title, [cell(group) for group in groups], rank)

    # Long enough to tell models apart: figures go first.
    keys = [
        Column(plain(key), [plain(group.tags.get(key) or UNKNOWN) for group in groups], least=24)
        for key in by
    ]
    buckets = [column("from", lambda g: instant(g.start_unix_ns))]
    return [
        *keys,
        *(buckets if any(group.start_unix_ns is not None for group in groups) else []),
        column("requests", lambda g: str(g.count)),
        column("energy J", lambda g: joules(g.energy_j)),
        column("± J", lambda g: joules(g.uncertainty_j), 1),
        column("output\ntokens", lambda g: number(g.output_tokens), 5),
        column("J/request\nmean", lambda g: joules(g.joules_per_request.mean), 1),
        column("\np50", lambda g: joules(g.joules_per_request.p50), 3),
        column("\np95", lambda g: joules(g.joules_per_request.p95), 3),
        column("\np99", lambda g: joules(g.joules_per_request.p99), 4),
        column("J/token\nmean", lambda g: joules(g.joules_per_output_token.mean), 2),
        column("\np50", lambda g: joules(g.joules_per_output_token.p50), 6),
        column("\np95", lambda g: joules(g.joules_per_output_token.p95), 7),
        column("\np99", lambda g: joules(g.joules_per_output_token.p99), 8),
    ]


def notes(idle: str) -> list[str]:
    """Return what is to be said below the table."""
    return ["Without the share of the idle power."] if idle == "exclude" else []
