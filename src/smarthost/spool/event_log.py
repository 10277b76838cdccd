"""The event log: every event in the order of the commits, by a cursor that only grows; for what reads on and on."""

import asyncio
from collections.abc import Callable, Sequence

from smarthost.mail.event import Event
from smarthost.mail.record import DEFAULT_TENANT
from smarthost.spool.cursor import PLACES, cursor_at, end_of, number_at
from smarthost.spool.reader import Reader
from smarthost.spool.record import read_event, read_refs
from smarthost.spool.store import EventPage, LoggedEvent

_ROWS = 500  # that one question reads, so that a tenant's few events among many keep nobody waiting
_LOG = "SELECT number, refs FROM event_log WHERE number >= ? AND number <= ? ORDER BY number LIMIT ?"
_EVENT = "SELECT data FROM event WHERE message = ? AND sequence = ?"

Signal = Callable[[], None]


class Signals:
    """Who wants to hear, on the loop, that events were committed. Costs nothing while nobody does."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._listeners: tuple[Signal, ...] = ()

    def listen(self, listener: Signal) -> Callable[[], None]:
        """Call a listener after each commit of events; what is given back, when called, ends that."""
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return stop

    def tell(self) -> None:
        """Call every listener; they do not raise."""
        for listener in self._listeners:
            listener()

    async def wait(self, is_there: Callable[[], bool]) -> None:
        """Return when something is there; it is looked at now and after each commit."""
        told = asyncio.Event()
        stop = self.listen(told.set)
        try:
            while not is_there():
                told.clear()
                await told.wait()
        finally:
            stop()


class StoredEventLog:
    """A `store.EventLog` in the spool's database."""

    def __init__(self, reader: Reader, number: Callable[[], int], signals: Signals) -> None:
        """Read by the spool's thread; `number` gives the latest row's."""
        self._reader, self._number, self._signals = reader, number, signals

    @property
    def head(self) -> int:
        """The highest cursor that there can be now."""
        return end_of(self._number())

    def listen(self, listener: Signal) -> Callable[[], None]:
        """Call a listener on the loop after each commit that may have brought events."""
        return self._signals.listen(listener)

    async def beyond(self, cursor: int) -> None:
        """Return when there may be events behind a cursor."""
        await self._signals.wait(lambda: self.head > cursor)

    async def after(self, cursor: int, limit: int, tenant: str | None = None) -> EventPage:
        """Give at most `limit` events behind a cursor, a part of the log at a time."""
        return await self._reader.ask(self._after, cursor, limit, tenant)

    def _after(self, cursor: int, limit: int, tenant: str | None) -> EventPage:
        end = self._number()  # what is committed later is for the next question
        rows = self._reader.rows(_LOG, ((cursor + 1) // PLACES, end, _ROWS))
        found: list[LoggedEvent] = []
        for number, blob in rows:
            for place, (message, sequence, owner) in enumerate(read_refs(blob)):
                at, owner = number * PLACES + place, owner or DEFAULT_TENANT
                if at <= cursor or (tenant is not None and owner != tenant):
                    continue
                event = self._event(message, sequence)
                if event is not None:
                    found.append(LoggedEvent(at, owner, event))
                    if len(found) == limit:
                        return EventPage(found, at)
        last = rows[-1][0] if len(rows) == _ROWS else end
        return EventPage(found, max(cursor, end_of(last)))

    def _event(self, message: int, sequence: int) -> Event | None:
        """Read an event; None when the history has forgotten it."""
        rows = self._reader.rows(_EVENT, (message, sequence))
        return read_event(rows[0][0]) if rows else None


class MemoryEventLog:
    """A `store.EventLog` without a disk."""

    def __init__(self) -> None:
        """Start empty."""
        self._signals = Signals()
        self._events: list[LoggedEvent] = []
        self._number = 0

    @property
    def head(self) -> int:
        """The highest cursor that there can be now."""
        return end_of(self._number)

    def listen(self, listener: Signal) -> Callable[[], None]:
        """Call a listener after each commit that may have brought events."""
        return self._signals.listen(listener)

    async def beyond(self, cursor: int) -> None:
        """Return when there may be events behind a cursor."""
        await self._signals.wait(lambda: self.head > cursor)

    async def after(self, cursor: int, limit: int, tenant: str | None = None) -> EventPage:
        """Give at most `limit` events behind a cursor."""
        found = [each for each in self._events if each.cursor > cursor and (tenant is None or each.tenant == tenant)]
        return EventPage(found[:limit], found[limit - 1].cursor if len(found) >= limit else max(cursor, self.head))

    def add(self, events: Sequence[Event]) -> None:
        """Take the events of a transaction."""
        if not events:
            return
        self._number = max(self._number + 1, number_at(events[-1].time))
        for place, event in enumerate(events):
            self._events.append(LoggedEvent(self._number * PLACES + place, event.user or DEFAULT_TENANT, event))
        self._signals.tell()

    def forget(self, before: float) -> None:
        """Forget what is older than a Unix time."""
        self._events = [each for each in self._events if each.cursor > cursor_at(before)]
