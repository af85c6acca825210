"""The ledger of the workload's time: what it grew by, beside the truth."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from greend_client import Client, LedgerRow

CHANGE_S = 3.0
"""The ledger of a device that is watched grows far more often than this."""
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Mark:
    """A device's account, just when it had grown."""

    unix_ns: int
    row: LedgerRow


def mark(client: Client) -> Mapping[str, Mark]:
    """The account of each device, just when it grows, by UUID.

    It grows when a step of the counter closes, always about as long after the
    step's end. So between two marks at which the GPU rests, it grows by what
    the GPU drew between them, to a part of a step at rest.
    """
    before = {row.device: row.measured_j for row in client.ledger()}
    marks: dict[str, Mark] = {}
    deadline_s = time.monotonic() + CHANGE_S
    while True:
        rows = client.ledger()
        now_unix_ns = time.time_ns()
        late = time.monotonic() > deadline_s
        for row in rows:
            if row.device not in marks and (late or row.measured_j != before.get(row.device)):
                marks[row.device] = Mark(now_unix_ns, row)
        if late or (before and marks.keys() >= before.keys()):
            return marks
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Account:
    """What a device's ledger grew by, beside the truth of that time."""

    device: str
    measured_j: float
    windows_j: float
    idle_j: float
    unattributed_j: float
    gap_j: float
    truth_j: float


def growth(begin: Mark, end: Mark, truth_j: float) -> Account:
    """The account of the time between two marks."""
    return Account(
        device=end.row.device,
        measured_j=end.row.measured_j - begin.row.measured_j,
        windows_j=end.row.windows_j - begin.row.windows_j,
        idle_j=end.row.idle_j - begin.row.idle_j,
        unattributed_j=end.row.unattributed_j - begin.row.unattributed_j,
        gap_j=end.row.gap_j - begin.row.gap_j,
        truth_j=truth_j,
    )
