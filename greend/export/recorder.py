"""What the event loop tells of while it measures, summed for whoever scrapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from greend.export.tag_groups import GroupTotals, TagGroups
from greend.export.totals import HeldCounter, Histogram, HistogramTotals
from greend.model import Booking, Window, own_energy_mj

USUAL_MAX_SERIES = 1000

REQUEST_BOUNDS_J = (
    *(0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000),
)
OUTPUT_TOKEN_BOUNDS_J = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class Account:
    """What was booked of one device in this run, in mJ and ns; see model.Booking."""

    measured_mj: float
    windows_mj: float
    idle_mj: float
    unattributed_mj: float
    gap_mj: float
    unknown_ns: float


AMOUNTS = tuple(field.name for field in fields(Account))


@dataclass(frozen=True, slots=True)
class Recorded:
    """All sums of this run; accounts by device UUID."""

    accounts: Mapping[str, Account]
    label_names: tuple[str, ...]
    groups: tuple[GroupTotals, ...]
    folded_windows: int
    request_energy_j: HistogramTotals
    output_token_energy_j: HistogramTotals


class Recorder:
    """Sums bookings and final windows. Every method runs on the event loop.

    Nothing grows without a bound: accounts are one a device, tag sets are bounded by
    `max_series`, and neither window nor request ids are kept.
    """

    def __init__(self, tag_keys: Sequence[str] = (), max_series: int = USUAL_MAX_SERIES) -> None:
        """Raises InvalidArgument for tag keys that cannot be labels, or too small a bound."""
        self._accounts: dict[str, dict[str, HeldCounter]] = {}
        self._groups = TagGroups(tag_keys, max_series)
        self._request_j = Histogram(REQUEST_BOUNDS_J)
        self._output_token_j = Histogram(OUTPUT_TOKEN_BOUNDS_J)

    def booked(self, booking: Booking) -> None:
        """A ledger has booked; amounts may be negative."""
        account = self._accounts.get(booking.device)
        if account is None:
            account = {name: HeldCounter() for name in AMOUNTS}
            self._accounts[booking.device] = account
        for name, counter in account.items():
            counter.add(getattr(booking, name))

    def window_final(self, window: Window) -> None:
        """A window is final. Own energy only, so that nothing counts twice.

        A window of which no energy is known counts as a window, and in no sum of joules.
        """
        energy = own_energy_mj(window)
        energy_mj = None if energy is None else energy.total_mj
        self._groups.add(window.tags, window.usage, energy_mj)
        if energy_mj is None:
            return
        self._request_j.observe(energy_mj / 1e3)
        if window.usage.output_tokens:
            self._output_token_j.observe(energy_mj / 1e3 / window.usage.output_tokens)

    def read(self) -> Recorded:
        """The sums so far."""
        return Recorded(
            accounts={
                uuid: Account(**{name: counter.read() for name, counter in account.items()})
                for uuid, account in self._accounts.items()
            },
            label_names=self._groups.label_names,
            groups=self._groups.read(),
            folded_windows=self._groups.folded,
            request_energy_j=self._request_j.read(),
            output_token_energy_j=self._output_token_j.read(),
        )
