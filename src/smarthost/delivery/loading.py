"""Reads the contents of waiting entries from the spool before a session asks for them."""

from collections.abc import Callable, Iterable
from itertools import islice

from smarthost.delivery.hall import Hall
from smarthost.mail.entry import Entry, Why
from smarthost.spool.store import Content

PREFETCH = 32  # contents read from the spool at a time


async def load_contents(hall: Hall, todo: Iterable[Entry], take_out: Callable[[tuple[int, int]], bool]) -> None:
    """Read the contents of the first waiting entries; an entry whose content is gone is taken out and parked."""
    contents = hall.scheduler.contents
    wanted = [entry for entry in islice(todo, PREFETCH) if contents.get(entry.message.id) is None]
    found: dict[int, Content] = await hall.spool.contents([entry.message.id for entry in wanted])
    for entry in wanted:
        content = found.get(entry.message.id)
        if content is not None:
            contents.keep(entry.message.id, content)
        elif take_out(entry.key):
            hall.settler.park(entry, Why.CONTENT_LOST, "the content is missing or damaged on disk")
