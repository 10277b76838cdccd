"""Counting: reads the event log for the tenants that have batches, and keeps the tallies of these."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from smarthost.mail.record import Record, RecordKey
from smarthost.reception.batches.record import BATCH, CURSOR, TALLY, Batch, TallyRecord, place_of
from smarthost.reception.batches.tally import Tally
from smarthost.spool.store import EventPage, Fault, Spool

log = logging.getLogger(__name__)

PAGE = 500  # events that are read at a time
GATHER = 0.2  # seconds after a commit before the log is read, so that a busy relay is read in portions
AGAIN = 5.0  # seconds after a failure
MOST_KEPT = 64  # tallies in memory of batches that are over
LOG = "log"  # the id of a tenant's cursor

_batch = msgspec.json.Decoder(Batch)
_tally = msgspec.json.Decoder(TallyRecord)


class Counting:
    """The batches that are known in memory, with their tallies.

    What was read of the log, and what came of it, is one transaction, so that each event counts once. `finished` is
    called when all recipients of a batch are done with.
    """

    def __init__(self, spool: Spool, clock: Callable[[], float], keep: Callable[[], float]) -> None:
        """Know nothing; `keep` is for how many seconds what is written now is kept."""
        self._spool, self._clock, self._keep = spool, clock, keep
        self._known: dict[RecordKey, Tally] = {}
        self._cursors: dict[str, int] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self.finished: Callable[[Batch], None] = lambda batch: None

    def cursor_record(self, tenant: str) -> tuple[Record, ...]:
        """Give what has to be written with a tenant's first batch: from where its events are read.

        It is given until `follow` says that one of those was written: without it nothing is counted after a restart.
        """
        if tenant in self._readers:
            return ()
        self._cursors.setdefault(tenant, self._spool.event_log.head)
        return (self._record(tenant),)

    def follow(self, tenant: str) -> None:
        """Read a tenant's events from now on."""
        if tenant not in self._readers:
            task = asyncio.create_task(self._read(tenant), name=f"batches of {tenant}")
            self._readers[tenant] = task
            task.add_done_callback(_tell)

    async def resume(self) -> None:
        """Go on with every tenant that has a cursor and batches."""
        records, after = self._spool.records, ("", "")
        while page := await records.all(CURSOR, after):
            for record in page:
                if not await records.count(BATCH, record.tenant):
                    records.write((), [record.key])
                    continue
                self._cursors[record.tenant] = int(record.data)
                self.follow(record.tenant)
            after = page[-1].tenant, page[-1].id

    async def stop(self) -> None:
        """Read no more."""
        for task in self._readers.values():
            task.cancel()
        await asyncio.gather(*self._readers.values(), return_exceptions=True)

    def add(self, batch: Batch) -> Tally:
        """Know a batch that has just been made."""
        tally = self._known[batch.record_key] = Tally(batch, TallyRecord(), self._spool.records)
        return tally

    async def find(self, tenant: str, name: str) -> Tally | None:
        """Give a batch of a tenant, None when there is none."""
        key = (BATCH, tenant, name)
        known = self._known.get(key)
        if known is not None:
            return known
        stored = (TALLY, tenant, name)
        found = await self._spool.records.find([key, stored])
        if key not in found:
            return None
        if key not in self._known:
            self._make_room()
            tally = _tally.decode(found[stored].data) if stored in found else TallyRecord()
            self._known[key] = Tally(_batch.decode(found[key].data), tally, self._spool.records)
        return self._known[key]

    def expiry(self) -> float:
        """Give until when what is written now is kept."""
        return self._clock() + self._keep()

    def _make_room(self) -> None:
        """Forget the tallies of batches that are over, the oldest first."""
        over = [key for key, each in self._known.items() if each.batch.is_over and not each.is_changed]
        for key in over[: max(len(over) - MOST_KEPT, 0)]:
            del self._known[key]

    async def _read(self, tenant: str) -> None:
        event_log, wake = self._spool.event_log, asyncio.Event()
        stop = event_log.listen(wake.set)
        try:
            while True:
                wake.clear()
                try:
                    await self._catch_up(tenant)
                except Exception:
                    # What was not written is read again.
                    log.exception("the events of batches could not be counted")
                    await asyncio.sleep(AGAIN)
                    wake.set()
                await wake.wait()
                await asyncio.sleep(GATHER)
        finally:
            stop()

    async def _catch_up(self, tenant: str) -> None:
        event_log = self._spool.event_log
        while self._cursors[tenant] < event_log.head:
            cursor = self._cursors[tenant]
            page = await event_log.after(cursor, PAGE, tenant)
            touched = await self._count(tenant, page)
            self._cursors[tenant] = page.end
            if touched:
                await self._write(tenant, touched)
            if page.end <= cursor:
                return

    async def _count(self, tenant: str, page: EventPage) -> list[Tally]:
        touched: dict[str, Tally] = {}
        for logged in page.events:
            place = place_of(logged.event.envid)
            if place is None:
                continue
            tally = touched.get(place[0]) or await self.find(tenant, place[0])
            if tally is not None:
                await tally.take(logged.event, place[1])
                touched[place[0]] = tally
        return [each for each in touched.values() if each.is_changed]

    async def _write(self, tenant: str, touched: list[Tally]) -> None:
        expires = self.expiry()
        records = [self._record(tenant)]
        for tally in touched:
            records += tally.take_records(expires)
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._spool.records.write(records, done=lambda fault: None if written.done() else written.set_result(fault))
        await written
        for tally in touched:
            tally.written()
            if tally.is_finished and not tally.batch.is_over:
                self.finished(tally.batch)

    def _record(self, tenant: str) -> Record:
        return Record(CURSOR, tenant, LOG, b"%d" % self._cursors[tenant])


def _tell(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s are not counted any more", task.get_name(), exc_info=error)
