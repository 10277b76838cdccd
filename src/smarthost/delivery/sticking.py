"""Sticking: after an ambiguous end an entry goes to the host that may have its message and may recognise it."""

from collections.abc import Iterable
from itertools import islice

from smarthost.delivery.hall import Hall
from smarthost.delivery.opener import Opener
from smarthost.delivery.transfer import Transfer
from smarthost.mail.entry import Entry
from smarthost.queue.ready import ReadyQueue

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

    def _bring_fitting(self, host: str) -> Entry | None:
        """Bring the first entry that a session with a host may carry to the front, and give it."""
        ready, is_dead = self._ready, self._hall.connector.is_dead
        for entry in islice(ready.todo, LOOKED_AT):
            wanted = entry.sticks_to
            if not wanted or host in wanted:
                break
            if not any(each.name in wanted and not is_dead(ready.site, each) for each in ready.site.hosts):
                break
        else:
            return None
        ready.bring_forward(entry)
        return entry

    def _call_for(self, entry: Entry, other: Transfer, now: float) -> None:
        """Wake a session with an entry's host, or have one opened; where there is no room for it another one ends."""
        transfers, loop = list(self._transfers), self._hall.loop
        carrier = next((each for each in transfers if each.session.host.name in entry.sticks_to), None)
        if carrier is not None:
            loop.call_soon(carrier.wake)
        elif self._opener.opening:
            return
        elif len(transfers) >= self._ready.limits.max_connections:
            loop.call_soon(other.close)
        elif self._opener.may_open(now):
            self._opener.open(now, entry)
