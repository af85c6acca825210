"""Sessions that are over and yet known: what they say again is not applied twice."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from greend.metering.refusals import Refused

MOST_ENDED = 10_000
# Of all of them together; of the oldest only the number is kept then.
MOST_REFUSALS = 10_000


@dataclass(frozen=True, slots=True)
class Ended:
    """Up to which event everything of a session is committed, and what was refused of it."""

    acknowledged: int
    refusals: Sequence[Refused] = ()


class EndedSessions:
    """The last ones, by the digest of their secret."""

    def __init__(self) -> None:
        self._acknowledged: OrderedDict[bytes, int] = OrderedDict()
        self._refusals: OrderedDict[bytes, Sequence[Refused]] = OrderedDict()
        self._refusal_count = 0

    def add(self, digest: bytes, ended: Ended) -> None:
        """A session is over."""
        self.take(digest)
        self._acknowledged[digest] = ended.acknowledged
        if ended.refusals:
            self._refusals[digest] = ended.refusals[-MOST_REFUSALS:]
            self._refusal_count += len(self._refusals[digest])
        while self._refusal_count > MOST_REFUSALS:
            self._forget_refusals(next(iter(self._refusals)))
        if len(self._acknowledged) > MOST_ENDED:
            self.take(next(iter(self._acknowledged)))

    def take(self, digest: bytes) -> Ended | None:
        """What is known of a session, which is not kept here any more."""
        acknowledged = self._acknowledged.pop(digest, None)
        refusals = self._forget_refusals(digest)
        return None if acknowledged is None else Ended(acknowledged, refusals)

    def _forget_refusals(self, digest: bytes) -> Sequence[Refused]:
        refusals = self._refusals.pop(digest, ())
        self._refusal_count -= len(refusals)
        return refusals
