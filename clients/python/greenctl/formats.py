"""Figures and instants as people read them. What is unknown is a dash, never 0."""

import time
from collections.abc import Sequence
from datetime import datetime

UNKNOWN = "–"


def joules(value: float | None) -> str:
    """Format an energy in J: three decimals, fewer where it is large, more where small."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    if size < 1e-9:  # what is left of rounding
        return "0.000"
    if size >= 100_000:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.1 else f"{value:.3g}"


def energy(value: float | None, uncertainty: float | None = None) -> str:
    """Format an energy with its unit, and its uncertainty where there is one."""
    bound = "" if value is None or uncertainty is None else f" ± {joules(uncertainty)} J"
    return with_unit(joules(value), "J") + bound


def with_unit(figure: str, unit: str) -> str:
    """Return a figure with its unit; what is unknown has none."""
    return figure if figure == UNKNOWN else f"{figure} {unit}"


def number(value: float | None, digits: int = 0) -> str:
    """Format a figure with this many decimals."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def count(figure: int, thing: str) -> str:
    """Format how many there are of a thing: "1 window", "12 345 windows"."""
    return f"{figure:_} {thing}{'' if figure == 1 else 's'}".replace("_", " ")


def duration(seconds: float | None) -> str:
    """Format a length of time, with its unit."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 600:
        return f"{seconds:.3f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{days:.0f} d"


def instant(unix_ns: int | None, *, whole: bool = False) -> str:
    """Format an instant in local time: the clock alone for one of today, unless ``whole``."""
    if unix_ns is None:
        return UNKNOWN
    moment = datetime.fromtimestamp(unix_ns / 1e9)
    if whole:
        return moment.isoformat(" ", "milliseconds")
    today = moment.date() == datetime.fromtimestamp(time.time()).date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%m-%d %H:%M}"


def minute(unix_ns: int) -> str:
    """Format an instant in local time, with its date, to the minute."""
    return datetime.fromtimestamp(unix_ns / 1e9).isoformat(" ", "minutes")


def plain(text: str) -> str:
    """Return text with what is not printable replaced: it came from other people."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def short_ids(ids: Sequence[str], shortest: int = 12, longest: int = 20) -> dict[str, str]:
    """Return each id's beginning, as long as it takes to tell them all apart.

    Where they differ only further on than ``longest``, their ends.
    """
    distinct = set(ids)
    for length in range(shortest, longest + 1):
        if len({uuid[:length] for uuid in distinct}) == len(distinct):
            return {uuid: uuid[:length] for uuid in distinct}
    return {uuid: f"…{uuid[-8:]}" for uuid in distinct}
