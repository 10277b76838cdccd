"""The event log as several readers read it: those who stand at the same place share one question to the disk."""

import asyncio
from collections.abc import Callable

from smarthost.spool.store import EventLog, EventPage

PAGE = 200  # events a question
GATHER = 0.05  # seconds after a commit before readers are told, so that a busy relay is read in portions
_KEPT = 8  # pages that are remembered


class Tail:
    """Gives pages of every tenant's events, and calls its listeners some moments after there are more.

    The log is not listened to while nobody listens here.
    """

    def __init__(self, log: EventLog) -> None:
        """Read a log; nothing is asked yet."""
        self._log = log
        self._pages: dict[tuple[int, int], asyncio.Task[EventPage]] = {}
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._stop: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def head(self) -> int:
        """The highest cursor that there can be now."""
        return self._log.head

    async def after(self, cursor: int) -> EventPage:
        """Give the page behind a cursor; readers who ask the same at one time read it once."""
        place = (cursor, self._log.head)
        task = self._pages.get(place)
        if task is None:
            while len(self._pages) >= _KEPT:
                del self._pages[next(iter(self._pages))]
            task = self._pages[place] = asyncio.create_task(self._log.after(cursor, PAGE), name="event log")
        try:
            return await asyncio.shield(task)
        except Exception:
            self._pages.pop(place, None)
            raise

    async def one(self, cursor: int) -> EventPage:
        """Give the event that has a cursor, none when it was forgotten."""
        page = await self._log.after(cursor - 1, 1)
        return EventPage([each for each in page.events if each.cursor == cursor], page.end)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call a listener when there may be more; what is given back ends that."""
        self._listeners = (*self._listeners, listener)
        if self._stop is None:
            self._stop = self._log.listen(self._committed)

        def stop() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)
            if not self._listeners and self._stop is not None:
                self._stop()
                self._stop = None
                self._pages.clear()

        return stop

    def _committed(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._tell)

    def _tell(self) -> None:
        self._timer = None
        for listener in self._listeners:
            listener()
