"""Sticking: after an ambiguous end an entry goes to the host that may have its message and may recognise it."""

from collections.abc import Callable
from itertools import islice

from smarthost.mail.entry import Entry
from smarthost.mail.route import Host, Site
from smarthost.queue.ready import ReadyQueue

LOOKED_AT = 32  # entries among which one is looked for that another host may carry


def bring_fitting(ready: ReadyQueue, host: str, is_dead: Callable[[Site, Host], bool]) -> Entry | None:
    """Bring the first entry that a session with a host may carry to the front, and give it; None where none may.

    An entry is not kept for a host that is dead, or has left the site.
    """
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
