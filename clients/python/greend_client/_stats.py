"""What became of a client's windows so far."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Windows of one client, since it was made.

    ``delivered``: the daemon has the whole window, on disk. ``kept``: started, and some of
    it is still to be delivered. ``lost``: given up by the client, as more happened than the
    daemon took in time, or as it was closed before; the daemon counts them, too, once it is
    told. ``refused``: wrong in themselves, here or for the daemon.
    """

    delivered: int
    kept: int
    lost: int
    refused: int
