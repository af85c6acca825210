"""What a session was refused: its client hears of it at least once, whatever is cut or killed."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import msgspec

from greend.errors import GreendError, Internal
from greend.metering.kept import encode

# Of a session; of older ones nothing is known any more.
MOST_REFUSALS = 10_000

_ERRORS = {kind.__name__: kind for kind in GreendError.__subclasses__()}


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was refused, and why."""

    sequence: int
    error: GreendError


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    message: str


_KEPT = msgspec.msgpack.Decoder(_Kept)


class Refusals:
    """Those of one session, in the order of their numbers, and which of them were heard.

    An acknowledgement counts refused events, too: a client that hears of one believes what
    it was not told. So refusals are committed with it, and told again on the session's next
    stream, until the client tells by what it sends next that it has heard of them.
    """

    def __init__(self, known: Iterable[Refused] = ()) -> None:
        self._known = OrderedDict((refused.sequence, refused) for refused in known)
        self._unsaved: list[Refused] = []
        self._heard = self._heard_saved = 0

    def add(self, refused: Refused) -> None:
        """One more."""
        self._known[refused.sequence] = refused
        self._unsaved.append(refused)
        if len(self._known) > MOST_REFUSALS:
            sequence, _ = self._known.popitem(last=False)
            self.heard(sequence)

    def find(self, sequence: int) -> Refused | None:
        """The refusal of an event, heard or not."""
        return self._known.get(sequence)

    def heard(self, sequence: int) -> None:
        """The client has heard of those up to this number."""
        self._heard = max(self._heard, sequence)

    def all(self) -> list[Refused]:
        """Those that are known, the newest last."""
        return list(self._known.values())

    def unheard(self) -> list[Refused]:
        """Those of which nobody knows whether the client has heard."""
        return [refused for refused in self._known.values() if refused.sequence > self._heard]

    # The store

    @property
    def unsaved(self) -> bool:
        """Whether there are some that are not committed."""
        return bool(self._unsaved)

    def news(self) -> tuple[list[Refused], int]:
        """What is to be committed: new ones, and up to which number they were heard (0: as
        before)."""
        return list(self._unsaved), self._heard if self._heard > self._heard_saved else 0

    def saved(self, news: tuple[Sequence[Refused], int]) -> None:
        """`news` are committed."""
        refused, heard = news
        self._unsaved = list(islice(self._unsaved, len(refused), None))
        self._heard_saved = max(self._heard_saved, heard)


def to_kept(refusals: Iterable[Refused]) -> list[tuple[int, bytes]]:
    """As the store keeps them."""
    return [(one.sequence, encode(_Kept(_kind(one.error), str(one.error)))) for one in refusals]


def from_kept(kept: Iterable[tuple[int, bytes]]) -> list[Refused]:
    """As they were, but for those that another version wrote in another form."""
    refusals = []
    for sequence, body in kept:
        with suppress(msgspec.DecodeError):
            found = _KEPT.decode(body)
            refusals.append(Refused(sequence, _ERRORS.get(found.kind, Internal)(found.message)))
    return refusals


def _kind(error: GreendError) -> str:
    """Which of the error tree's branches it is of."""
    return next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
