"""Sweeping: changes what waits in the queue of one batch."""

from collections.abc import Awaitable, Callable

import msgspec

from smarthost.reception.batches.record import PART_SIZE, SENT, number_of
from smarthost.reception.batches.tally import Tally
from smarthost.spool.store import Filter, RecordStore

PAGE = 20  # parts whose messages are changed at a time

_ids = msgspec.json.Decoder(list[int])


async def sweep(tally: Tally, records: RecordStore, change: Callable[[Filter], Awaitable[dict[str, int]]]) -> None:
    """Have messages changed that may still wait, some parts at a time."""
    batch = tally.batch
    prefix = f"{batch.id}-"
    after = prefix
    while page := await records.page(SENT, batch.tenant, after, PAGE):
        mine = [record for record in page if record.id.startswith(prefix)]
        ids = []
        for record in mine:
            for place, number in enumerate(_ids.decode(record.data), number_of(record) * PART_SIZE):
                if number and not await tally.is_done(place):
                    ids.append(number)
        if ids:  # without ids all messages would be meant
            await change(Filter(ids=tuple(ids)))
        if len(mine) < PAGE:
            return
        after = mine[-1].id
