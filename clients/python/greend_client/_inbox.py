"""What callers hand over to the thread that delivers: a deque, and a bell."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from greend_client._record import Happening, Record


class Inbox:
    """Takes what happens, from any thread, signal handler or destructor, without a lock.

    ``called`` is called in the caller's path where appending is not enough: nobody looks
    into it by himself, or more than ``limit`` events wait there: then the caller does the
    work of the other side.
    """

    def __init__(self, called: Callable[[], None]) -> None:
        self.limit = 0
        self.asleep = True  # nobody looks into it by himself
        self._called = called
        self._items: deque[Happening] = deque()
        self._bell = threading.Lock()  # locked: it has not rung
        self._bell.acquire()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Happening) -> None:
        """Take what happened."""
        items = self._items
        items.append(item)
        if self.asleep or len(items) > self.limit:
            self._called()

    def take(self) -> Happening | None:
        """Give what came first; None if nothing is there."""
        return self._items.popleft() if self._items else None

    def windows(self) -> list[Record]:
        """Return the windows that something here happened to."""
        return [record for _, _, record, _ in self._items if record is not None]

    # For the one thread that looks into it.

    def sleep(self, timeout_s: float | None = None) -> None:
        """Wait until something comes, or the bell is rung; callers ring it meanwhile."""
        self.asleep = True
        if not self._items:  # or it came before anybody knew
            self._bell.acquire(timeout=-1 if timeout_s is None else timeout_s)
        self.asleep = False

    def doze(self, timeout_s: float) -> None:
        """Wait until the bell is rung; what comes from callers does not ring it."""
        self._bell.acquire(timeout=timeout_s)

    def ring(self) -> None:
        """Wake the thread, or have it look once more before it sleeps."""
        with contextlib.suppress(RuntimeError):  # it has rung already
            self._bell.release()
