"""Opens the sessions of one site, in tasks of their own, and tells what became of each."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from smarthost.delivery.connect import Unreached
from smarthost.delivery.hall import Hall
from smarthost.delivery.places import SLOW, Place
from smarthost.delivery.transfer import Transfer
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import RANKS, Priority
from smarthost.network.session import Session
from smarthost.queue.ready import ReadyQueue

log = logging.getLogger(__name__)


class Opener:
    """Opens sessions while the window, the rate of connections and what others have of them allow. Mutable; `opening`
    counts what is under way.

    `opened` takes a session, `failed` the reason why there is none, whose place is given back behind it; `work` is
    called when a place has become free. `transfers` are the site's sessions, whichever they are at the time.
    """

    def __init__(
        self,
        ready: ReadyQueue,
        hall: Hall,
        transfers: Mapping[Transfer, None],
        opened: Callable[[Session], None],
        failed: Callable[[Unreached], None],
        work: Callable[[], None],
    ) -> None:
        """Begin with nothing under way."""
        self.opening = 0
        self.is_slow = False
        self._ready, self._hall, self._transfers = ready, hall, transfers
        self._succeeded, self._failed, self.work = opened, failed, work
        self._held: dict[Session, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waits_for_place(self) -> bool:
        """Whether one more session is only waiting for a connection that other sites have."""
        return self._hall.sharing.total.waits(self)

    @property
    def waits_for_hosts(self) -> bool:
        """Whether one more session is only waiting for a connection that sites on the same hosts have."""
        return self._hall.sharing.waits_for_hosts(self, self._ready.site.place)

    @property
    def rank(self) -> int:
        """How urgent the next message is, 0 at the most."""
        todo = self._ready.todo
        return RANKS[todo[0].message.envelope.priority if todo else Priority.MEDIUM]

    def may_open(self, now: float) -> bool:
        """Whether one more may be opened now, as far as the site is concerned."""
        return not self._ready.opening_cells.wait(now) and self._ready.window.may_open(now)

    def open(self, now: float, entry: Entry | None = None) -> bool:
        """Open one, for the sake of an entry if one is given: it says which hosts are tried first and last.

        False where others have all connections that there may be, to these hosts or in all: `work` is called when the
        site's turn comes.
        """
        place = self._hall.sharing.take(self, self._ready.site.place, self._ready.configured.max_connections)
        if place is None:
            return False
        self._ready.opening_cells.take(now)
        self._ready.window.opened()
        self.opening += 1
        place.task = asyncio.ensure_future(self._open(place, entry))
        self._tasks.add(place.task)
        place.task.add_done_callback(partial(self._ended, place))
        return True

    def closed(self, session: Session) -> None:
        """Give the place of a session back, whatever became of it."""
        self._ready.window.closed()
        if (place := self._held.pop(session, None)) is not None:
            place.give_back()

    def cut(self) -> None:
        """End all that is under way."""
        for task in tuple(self._tasks):
            task.cancel()

    def spare_idle(self, most: int) -> int:
        """End some sessions that rest, unless mail waits for them; gives how many."""
        resting = [] if self._ready.todo else [transfer for transfer in self._transfers if transfer.is_idle][:most]
        for transfer in resting:
            transfer.close()
        return len(resting)

    def spare_busy(self, before: float) -> int:
        """End a session that was begun before a loop time, once it has carried what it carries; gives how many."""
        for transfer in self._transfers:
            place = self._held[transfer.session]
            if place.since < before and not place.is_called_back:
                place.call_back()
                transfer.close()
                return 1
        return 0

    def cut_stalled(self, seconds: float) -> int:
        """End sessions whose peer has said nothing for some seconds, where no content may have arrived whole."""
        since = self._hall.clock() - seconds
        stalled = [transfer for transfer in self._transfers if transfer.is_stalled(since)]
        for transfer in stalled:
            self.is_slow = True
            transfer.abort()
        return len(stalled)

    async def _open(self, place: Place, entry: Entry | None) -> None:
        ready = self._ready
        avoids, first = (entry.avoids, entry.sticks_to) if entry is not None else ((), ())
        domain = entry.recipients[0].domain if entry is not None else ""
        try:
            session = await self._hall.connector.connect(ready.site, avoids, first, domain)
            self.opening -= 1
        except BaseException:
            self.opening -= 1
            ready.window.closed()
            place.give_back()
            raise
        self.is_slow = self._hall.loop.time() - place.since > SLOW
        if isinstance(session, Unreached):
            try:
                self._failed(session)
            finally:
                place.give_back()
        else:
            place.opened()
            self._held[session] = place
            ready.window.succeeded()
            self._succeeded(session)

    def _ended(self, place: Place, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            place.give_back()  # also where it was cancelled before it could begin
        elif (error := task.exception()) is not None:
            place.give_back()
            log.error("delivery to %s failed", self._ready.site.name, exc_info=error)
