"""Reads the contents of waiting entries from the spool before a session asks for them."""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from smarthost.delivery.hall import Hall
from smarthost.mail.entry import Why
from smarthost.queue.ready import ReadyQueue
from smarthost.spool.store import Content

log = logging.getLogger(__name__)

PREFETCH = 32  # contents read from the spool at a time


class Loader:
    """Reads for one ready queue, once at a time. Mutable.

    `take_out` takes an entry out of the queue, `work` goes on with what has been read.
    """

    def __init__(
        self, ready: ReadyQueue, hall: Hall, take_out: Callable[[tuple[int, int]], bool], work: Callable[[], None]
    ) -> None:
        """Begin with nothing being read."""
        self._ready, self._hall, self._take_out, self._work = ready, hall, take_out, work
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Begin to read the contents of the first entries, unless that is being done."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._load())
            self._task.add_done_callback(self._loaded)

    def cut(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _load(self) -> None:
        """Read the contents of the first waiting entries; an entry whose content is gone is taken out and parked."""
        hall, contents = self._hall, self._hall.scheduler.contents
        wanted = [entry for entry in islice(self._ready.todo, PREFETCH) if contents.get(entry.message.id) is None]
        found: dict[int, Content] = await hall.spool.contents([entry.message.id for entry in wanted])
        for entry in wanted:
            content = found.get(entry.message.id)
            if content is not None:
                contents.keep(entry.message.id, content)
            elif self._take_out(entry.key):
                hall.settler.park(entry, Why.CONTENT_LOST, "the content is missing or damaged on disk")

    def _loaded(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("reading contents for %s failed", self._ready.site.name, exc_info=error)
        self._work()
