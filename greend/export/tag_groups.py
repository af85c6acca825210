"""Windows by their allow-listed tags, within a hard bound on time series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from greend.errors import InvalidArgument
from greend.export.totals import HeldCounter
from greend.metering.checks import check_key
from greend.model import Usage

OTHER = "other"
# A group's windows, its joules, and its tokens of each kind.
KINDS = ("prompt", "cached", "output")
SERIES_A_GROUP = 2 + len(KINDS)
FEWEST_SERIES = 2 * SERIES_A_GROUP
# Labels that the metrics have already.
_TAKEN = {"kind"}


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """Final windows with the same tag values. What no window told is absent."""

    values: tuple[str, ...]
    windows: int
    energy_mj: float | None
    tokens: Mapping[str, int]


@dataclass(slots=True)
class _Group:
    windows: int = 0
    energy: HeldCounter | None = None
    tokens: dict[str, int] = field(default_factory=dict)


class TagGroups:
    """Sums over windows by tag values.

    The first tag sets that come get series of their own; when as many are there as
    `max_series` allows, every other one is summed under the label value "other", and
    `folded` counts its windows. Owned by the event loop.
    """

    def __init__(self, tag_keys: Sequence[str], max_series: int) -> None:
        """Raises InvalidArgument, naming the setting and the remedy."""
        if max_series < FEWEST_SERIES:
            raise InvalidArgument(
                f"[metrics] max_series: {max_series} is less than {FEWEST_SERIES}, which one tag"
                " set and the rest need"
            )
        self.label_names = _label_names(tag_keys)
        self.folded = 0
        self._keys = tuple(tag_keys)
        self._most = max_series // SERIES_A_GROUP
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._other = (OTHER,) * len(self._keys)

    def add(self, tags: Mapping[str, str], usage: Usage, energy_mj: float | None) -> None:
        """Takes a final window; its energy is its own, in mJ, None if not known."""
        group = self._group(tuple(tags.get(key, "") for key in self._keys))
        group.windows += 1
        if energy_mj is not None:
            group.energy = group.energy or HeldCounter()
            group.energy.add(energy_mj)
        for kind in KINDS:
            tokens = getattr(usage, f"{kind}_tokens")
            if tokens is not None:
                group.tokens[kind] = group.tokens.get(kind, 0) + tokens

    def read(self) -> tuple[GroupTotals, ...]:
        """The sums so far."""
        return tuple(
            GroupTotals(
                values,
                group.windows,
                None if group.energy is None else group.energy.read(),
                dict(group.tokens),
            )
            for values, group in self._groups.items()
        )

    def _group(self, values: tuple[str, ...]) -> _Group:
        if values not in self._groups:
            if self._full:
                self.folded += 1
                values = self._other
            return self._groups.setdefault(values, _Group())
        return self._groups[values]

    @property
    def _full(self) -> bool:
        # The last place is for all the others.
        return len(self._groups) >= self._most - 1


def _label_names(tag_keys: Sequence[str]) -> tuple[str, ...]:
    """Label names have no dots: `gen_ai.model` becomes `gen_ai_model`."""
    names: dict[str, str] = {}
    for key in tag_keys:
        check_key("[metrics] tag_keys", key)
        name = key.replace(".", "_")
        if name in _TAKEN:
            raise InvalidArgument(
                f"[metrics] tag_keys: {key!r} is a label of greend's own: use another tag key"
            )
        if name in names:
            raise InvalidArgument(
                f"[metrics] tag_keys: {key!r} and {names[name]!r} would both be the label"
                f" {name!r}: leave one out"
            )
        names[name] = key
    return tuple(names)
