"""Operations on the suppression list, for a person or a program: choosing, adding, removing."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence

from smarthost.control_verbs import Refusal, Row, Suppress, SuppressionChoice, Unsuppress
from smarthost.mail.suppression import Key, Origin, Suppression, read_suppression_address
from smarthost.queue.suppression import SuppressionList
from smarthost.report.rows import suppression_row
from smarthost.spool.store import Done, Fault, Spool

PAGE = 500  # rows read at a time, so that others who read do not wait
PROBLEMS = 20  # addresses that are none of which an answer tells


class ListOperations:
    """Implements `control_verbs.SuppressionOperations`. It works while suppression is disabled, too: on the disk."""

    def __init__(self, spool: Spool, suppression: SuppressionList, clock: Callable[[], float]) -> None:
        """Join the parts."""
        self._store, self._list, self._clock = spool.suppressions, suppression, clock

    async def rows(self, chosen: SuppressionChoice) -> AsyncIterator[Row]:
        """Give the rows that are meant."""
        left = chosen.limit or -1
        async for page in self._pages(chosen):
            for row in page:
                yield suppression_row(row)
                left -= 1
                if left == 0:
                    return

    async def put(self, asked: Suppress) -> Row:
        """Put addresses on the list; one that is there already gets the new reason and expiry, unless it is kept."""
        now = self._clock()
        rows: dict[Key, Suppression] = {}
        wrong: list[str] = []
        for each in asked.addresses:
            address = read_suppression_address(each.address)
            if address is None:
                wrong.append(each.address)
                continue
            expires = math.inf if each.expires is None else each.expires
            if expires <= now:
                raise Refusal(400, "Already over", f"the suppression of {address} would end in the past")
            rows[each.user, address] = Suppression(each.user, address, 0, now, expires, Origin.MANUAL, each.reason)
        known = {key for key, row in (await self._store.find(list(rows))).items() if row.is_suppressed}
        chosen = [row for key, row in rows.items() if not (asked.keeps and key in known)]
        if chosen and not asked.dry_run:
            await _written(lambda done: self._list.put(chosen, done))
        counts: Row = {"added": len(rows) - len(known), "known": len(known), "invalid": len(wrong)}
        return counts | ({"problems": wrong[:PROBLEMS]} if wrong else {})

    async def remove(self, asked: Unsuppress) -> Row:
        """Take addresses off the list, with the failures that were counted of them."""
        if bool(asked.addresses) == (asked.choice is not None):
            raise Refusal(400, "No addresses", "give addresses, or which are meant, and not both")
        if asked.choice is not None:
            removed = 0
            async for page in self._pages(asked.choice):
                removed += len(page)
                await self._remove([row.key for row in page], asked.dry_run)
            return {"removed": removed, "unknown": 0}
        keys = {(asked.user, read_suppression_address(text) or text) for text in asked.addresses}
        found = await self._store.find(sorted(keys))
        await self._remove(list(found), asked.dry_run)
        return {"removed": len(found), "unknown": len(keys) - len(found)}

    async def _remove(self, keys: Sequence[Key], dry_run: bool) -> None:
        if keys and not dry_run:
            await _written(lambda done: self._list.remove(keys, done))

    async def _pages(self, chosen: SuppressionChoice) -> AsyncIterator[list[Suppression]]:
        after = ("", "") if chosen.user is None else (chosen.user, "")
        while page := await self._store.page(after, PAGE):
            after = page[-1].key
            yield [row for row in page if chosen.means(row, self._clock())]
            if chosen.user is not None and after[0] != chosen.user:
                return


async def _written(write: Callable[[Done], None]) -> None:
    """Wait until what is written is on disk; raises Refusal when it is full."""
    finished: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
    write(lambda fault: None if finished.done() else finished.set_result(fault))
    if await finished is not None:
        raise Refusal(503, "The disk is full", "the suppression list could not be written")
