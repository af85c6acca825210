"""What the daemon needs of a device, and of what finds devices."""

from collections.abc import Container, Sequence
from typing import Protocol

from greend.model import DeviceInfo, Sample


class DeviceLostError(Exception):
    """The device does not answer and has to be found again."""


class DriverError(Exception):
    """No driver, or it does not answer; says what to do."""


class Device(Protocol):
    """One energy-metered unit. Called by its worker's thread alone.

    Reading never changes anything on the device.
    """

    @property
    def info(self) -> DeviceInfo:
        """What was found when the device was opened, or by `renew`."""
        ...

    def read(self) -> Sample:
        """All that is sampled, in as few driver calls as possible.

        What the device cannot tell, or failed to tell this time, is None.
        Raises DeviceLostError when the device is gone.
        """
        ...

    def renew(self) -> DeviceInfo:
        """Looks again at what may change: how MIG splits the device. Raises DeviceLostError."""
        ...

    def context_alive(self) -> bool | None:
        """Whether a process has a compute context on the device; None: cannot tell.

        Costs milliseconds: not for the sampling loop. Raises DeviceLostError.
        """
        ...


class Driver(Protocol):
    """Finds devices."""

    def open(self, known: Container[str] = ()) -> tuple[Sequence[Device], Sequence[str]]:
        """The devices that are there now, but for those whose UUIDs are known.

        And what is there but does not answer, for people. May be called again after
        a loss: devices that work are left in peace.
        Raises DriverError when there is no driver.
        """
        ...

    def close(self) -> None:
        """Ends the use of the driver; may be called twice."""
        ...
