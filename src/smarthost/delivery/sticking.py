"""Sticking: an entry goes to the host that may have its message, or to another one than the host that put it off."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from smarthost.delivery.hall import Hall
from smarthost.delivery.opener import Opener
from smarthost.delivery.transfer import Transfer
from smarthost.mail.entry import Entry, Why
from smarthost.mail.outcome import Action, Outcome
from smarthost.queue.ready import ReadyQueue

if TYPE_CHECKING:
    from smarthost.delivery.dispatcher import Dispatcher
    from smarthost.delivery.pool import Pool

LOOKED_AT = 32  # entries among which one is looked for that another host may carry


class Sticking:
    """Finds what a session may carry while an entry is at the front of a site's queue that belongs to one host.

    An entry is not kept for a host that is dead, or has left the site.
    """

    def __init__(self, ready: ReadyQueue, hall: Hall, opener: Opener, transfers: Iterable[Transfer]) -> None:
        """Join the parts of one dispatcher; `transfers` are its sessions, whichever they are at the time."""
        self._ready, self._hall, self._opener, self._transfers = ready, hall, opener, transfers

    def entry_for(self, transfer: Transfer, front: Entry, now: float) -> Entry | None:
        """Give what a session carries next, None for nothing; and see to a session for the entry at the front."""
        entry = self._bring_fitting(transfer.session.host.name)
        if entry is not front:
            self._call_for(front, transfer, now)
        return entry

    def may_go_on(self, outcomes: Iterable[Outcome], host: str, pool: "Pool | None", here: "Dispatcher") -> bool:
        """Whether what a host has put off can be tried at another one, of its site or at another upstream of a pool."""
        if all(outcome.action is not Action.DELAYED for outcome in outcomes):
            return False
        return self._lives(lambda name: name != host) or (pool is not None and pool.has_other(here))

    def _bring_fitting(self, host: str) -> Entry | None:
        """Bring the first entry that a session with a host may carry to the front, and give it."""
        for entry in islice(self._ready.todo, LOOKED_AT):
            if self._fits(entry, host):
                self._ready.bring_forward(entry)
                return entry
        return None

    def _fits(self, entry: Entry, host: str) -> bool:
        """Whether a session with a host may carry an entry: it is the entry's own, or no such host is alive."""
        if wanted := entry.sticks_to:
            return host in wanted or not self._lives(lambda name: name in wanted)
        if entry.why is not Why.NEXT_HOST:
            return True
        avoided = entry.hosts_tried
        return host not in avoided or not self._lives(lambda name: name not in avoided)

    def _lives(self, is_meant: Callable[[str], bool]) -> bool:
        """Whether a host of the site that is meant may be reached."""
        site, is_dead = self._ready.site, self._hall.connector.is_dead
        return any(is_meant(host.name) and not is_dead(site, host) for host in site.hosts)

    def _call_for(self, entry: Entry, other: Transfer, now: float) -> None:
        """Wake a session with an entry's host, or have one opened; where there is no room for it another one ends."""
        transfers, loop = list(self._transfers), self._hall.loop
        carrier = next((each for each in transfers if self._fits(entry, each.session.host.name)), None)
        if carrier is not None:
            loop.call_soon(carrier.wake)
        elif self._opener.opening:
            return
        elif len(transfers) >= self._ready.limits.max_connections:
            loop.call_soon(other.close)
        elif self._opener.may_open(now):
            self._opener.open(now, entry)
