"""The account itself: joules by minute, added up until they are taken away to be kept."""

from greend.energy.closed_step import ClosedStep
from greend.model import AMOUNTS, Booking


class Bookings:
    """Of one device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._minutes: dict[int, dict[str, float]] = {}

    def add(self, minute_unix_s: int, **amounts: float) -> None:
        """Books amounts (see `Booking`) in a minute."""
        booking = self._minutes.get(minute_unix_s)
        if booking is None:
            booking = self._minutes[minute_unix_s] = dict.fromkeys(AMOUNTS, 0.0)
        for name, amount in amounts.items():
            booking[name] += amount

    def move(self, step: ClosedStep, *, windows_mj: float, idle_mj: float) -> None:
        """Moves what is added to windows and idle from (or to) unattributed."""
        self.add(
            step.minute_unix_s,
            windows_mj=windows_mj,
            idle_mj=idle_mj,
            unattributed_mj=-(windows_mj + idle_mj),
        )

    def take(self) -> list[Booking]:
        """What was booked since the last call, by minute."""
        minutes, self._minutes = self._minutes, {}
        return [Booking(self._device, minute_s, **amounts) for minute_s, amounts in minutes.items()]
