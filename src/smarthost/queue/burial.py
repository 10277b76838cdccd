"""Burial: forgets dead letters and records whose time is over."""

import asyncio

from smarthost.mail.entry import Why
from smarthost.spool.store import Fault, Filter, RecordStore, Spool

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


async def forget_records(records: RecordStore, now: float) -> None:
    """Have the records deleted that expired at a Unix time or before, some at a time."""
    while await records.has_expired(now):
        forgotten: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        records.forget_expired(now, lambda fault: None if forgotten.done() else forgotten.set_result(fault))  # noqa: B023
        if await forgotten is not None:
            return


def _ignore(fault: Fault | None) -> None:
    """What was not deleted will be, the next time."""
