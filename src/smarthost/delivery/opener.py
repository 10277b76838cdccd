"""Opens the sessions of one site, in tasks of their own, and tells what became of each."""

import asyncio
import logging
from collections.abc import Callable

from smarthost.delivery.connect import Unreached
from smarthost.delivery.hall import Hall
from smarthost.mail.entry import Entry
from smarthost.network.session import Session
from smarthost.queue.ready import ReadyQueue

log = logging.getLogger(__name__)


class Opener:
    """Opens sessions while the window and the rate of connections allow. Mutable; `opening` counts what is under way.

    `opened` takes a session, `failed` the reason why there is none; the place in the window is still taken then.
    """

    def __init__(
        self,
        ready: ReadyQueue,
        hall: Hall,
        opened: Callable[[Session], None],
        failed: Callable[[Unreached], None],
    ) -> None:
        """Begin with nothing under way."""
        self.opening = 0
        self._ready, self._hall = ready, hall
        self._succeeded, self._failed = opened, failed
        self._tasks: set[asyncio.Task[None]] = set()

    def may_open(self, now: float) -> bool:
        """Whether one more may be opened now."""
        return not self._ready.opening_cells.wait(now) and self._ready.window.may_open(now)

    def open(self, now: float, entry: Entry | None = None) -> None:
        """Open one, for the sake of an entry if one is given: it says which hosts are tried first and last."""
        self._ready.opening_cells.take(now)
        self._ready.window.opened()
        self.opening += 1
        task = asyncio.ensure_future(self._open(entry))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def cut(self) -> None:
        """End all that is under way."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _open(self, entry: Entry | None) -> None:
        ready = self._ready
        avoids, first = (entry.avoids, entry.sticks_to) if entry is not None else ((), ())
        domain = entry.recipients[0].domain if entry is not None else ""
        try:
            session = await self._hall.connector.connect(ready.site, avoids, first, domain)
        except BaseException:
            self.opening -= 1
            ready.window.closed()
            raise
        self.opening -= 1
        if isinstance(session, Unreached):
            self._failed(session)
        else:
            ready.window.succeeded()
            self._succeeded(session)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery to %s failed", self._ready.site.name, exc_info=error)
