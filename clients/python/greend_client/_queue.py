"""Events that the daemon has not acknowledged, in the order in which they happened."""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from greend_client._record import Event, Kind, Record


class EventQueue:
    """Keeps about ``capacity`` events; whoever adds one makes room for it first.

    Not thread-safe: its owner has a lock.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._finished: OrderedDict[str, Record] = OrderedDict()  # those that may be given up
        self._last = 0  # number of the latest event
        self._sent = 0  # number of the latest one that was sent, on whatever connection

    def __len__(self) -> int:
        return len(self._events)

    @property
    def last(self) -> int:
        """Number of the latest event that is kept; 0: there is none."""
        return next(reversed(self._events), 0)

    def add(self, kind: Kind, at_ns: int, record: Record | None, value: object = None) -> None:
        """Take an event."""
        self._last += 1
        self._events[self._last] = Event(self._last, kind, at_ns, record, value)
        if record is None:
            return
        if record.kept is None:
            record.kept = set()
        record.kept.add(self._last)
        if kind == "start":
            record.first = self._last
        elif kind == "stop" and record.first > self._sent:
            self._finished[record.window_id] = record

    def make_room(self) -> Record | None:
        """Give up the window that finished first; return it, None if there is none.

        Not one whose start the daemon may have: without its stop it would stay open
        there. Those are few, as events go in order.
        """
        while self._finished:
            record = next(iter(self._finished.values()))
            if record.first > self._sent:
                self.drop(record)
                return record
            del self._finished[record.window_id]
        return None

    def drop(self, record: Record) -> None:
        """Forget all events of a window."""
        for sequence in record.kept or ():
            self._events.pop(sequence, None)
        record.kept = None
        self._finished.pop(record.window_id, None)

    def after(self, sequence: int, most: int) -> list[Event]:
        """Return the first events after the one of this number, at most so many."""
        later = (event for number, event in self._events.items() if number > sequence)
        return list(islice(later, most))

    def sent(self, sequence: int) -> None:
        """Note that what is kept, up to this number, was sent."""
        self._sent = max(self._sent, sequence)

    def find(self, sequence: int) -> Event | None:
        """Return an event by its number."""
        return self._events.get(sequence)

    def discard(self, event: Event) -> None:
        """Forget an event that cannot be sent."""
        self._events.pop(event.sequence, None)
        if event.record is not None and event.record.kept is not None:
            event.record.kept.discard(event.sequence)

    def acknowledge(self, sequence: int) -> Iterator[Event]:
        """Forget the events up to this number, one after the other."""
        while self._events and (event := next(iter(self._events.values()))).sequence <= sequence:
            self.discard(event)
            yield event

    def windows(self) -> list[Record]:
        """Return the windows that have events here."""
        records = {id(event.record): event.record for event in self._events.values()}
        return [record for record in records.values() if record is not None]

    def clear(self) -> list[Record]:
        """Forget everything; return the windows that lose events by it."""
        records = self.windows()
        self._events.clear()
        self._finished.clear()
        return records
