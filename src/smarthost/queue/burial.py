"""Burial: forgets dead letters whose time is over."""

from smarthost.mail.entry import Why
from smarthost.spool.store import Fault, Filter, Spool

PAGE = 500


async def bury(spool: Spool, now: float) -> int:
    """Ask the spool to delete the dead letters that were to be kept until a Unix time or before; gives how many."""
    after, count = (0, 0), 0
    wanted = Filter(why=Why.DEAD_LETTER.value)
    while page := await spool.select(wanted, PAGE, after):
        after = page[-1].key
        over = [entry.key for entry in page if entry.expires <= now]
        if over:
            spool.delete(over, _ignore)
            count += len(over)
    return count


def _ignore(fault: Fault | None) -> None:
    """What was not deleted will be, the next time."""
