"""Desk: the batches of a relay: taken, put into the queue in turns, suspended, resumed, cancelled, completed."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine

from smarthost.compose.template_record import StoredTemplate, write_template
from smarthost.mail.record import Record, RecordKey
from smarthost.reception.batches.counting import Counting
from smarthost.reception.batches.expanding import Broken, Expander
from smarthost.reception.batches.parts import BatchParts
from smarthost.reception.batches.receiving import Receiving
from smarthost.reception.batches.record import (
    BATCH,
    DRAFT,
    FORM,
    PART,
    Batch,
    State,
    encode,
)
from smarthost.reception.batches.sweeping import sweep
from smarthost.reception.batches.tally import Tally
from smarthost.spool.store import Fault, Filter, Group

log = logging.getLogger(__name__)

PAGE = 200
AGAIN = 5.0  # seconds after which a batch is gone on with that failed


class Unwritten(Exception):
    """A batch could not be written: the disk is full."""


class Batches:
    """All batches. `start` when the spool and the queue run, `stop` before they end."""

    def __init__(self, parts: BatchParts) -> None:
        """Join the parts; nothing runs yet."""
        self.parts = parts
        self.counting = Counting(parts.spool, parts.clock, parts.keep)
        self.counting.finished = self._completed
        self._expander = Expander(parts)
        # Those whose parts are put into the queue, and from when on it is their turn.
        self._turns: dict[RecordKey, float] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Go on with what there is, and remove what no batch came of."""
        records = self.parts.spool.records
        for record in await records.all(DRAFT):
            await self._remove_parts(PART, record.tenant, record.id)
            records.write((), [record.key])
        await self.counting.resume()
        for record in await records.due(BATCH, math.inf, 100_000):
            tally = await self.counting.find(record.tenant, record.id)
            if tally is None:
                continue
            if tally.batch.state is State.CANCELLING:
                self._keep(self._clear_away(tally), "cancelled batch")
            elif tally.batch.state is State.ACTIVE:
                self._add(tally)
        self._keep(self._run(), "batches")

    async def stop(self) -> None:
        """Put nothing more into the queue; what has not been put there is gone on with after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.counting.stop()

    def receive(self, batch: Batch) -> Receiving:
        """Begin to store the recipients of a batch."""
        return Receiving(self.parts.spool, batch)

    async def take(
        self, batch: Batch, template: StoredTemplate, receiving: Receiving, more: tuple[Record, ...]
    ) -> None:
        """Make a batch durable whose recipients are, with more records, and go on with it; raises Unwritten.

        Who gives up waiting changes nothing: the batch is on its way to disk, and needs its recipients.
        """
        records = (
            self._record(batch),
            Record(FORM, batch.tenant, batch.id, write_template(template)),
            *self.counting.cursor_record(batch.tenant),
            *more,
        )
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()

        def taken(fault: Fault | None) -> None:
            receiving.is_given = fault is None
            if fault is None:
                self._add(self.counting.add(batch))
                self.counting.follow(batch.tenant)
            if not written.done():
                written.set_result(fault)

        receiving.is_given = True
        self.parts.spool.accept_group(Group(records=records, removed=(receiving.draft_key,)), taken)
        if await asyncio.shield(written) is not None:
            raise Unwritten

    async def find(self, tenant: str, name: str) -> Tally | None:
        """Give a tenant's batch, None when there is none."""
        return await self.counting.find(tenant, name)

    async def page(self, tenant: str, after: str, limit: int) -> list[Tally]:
        """Give a tenant's batches, newest first, behind an id."""
        records = await self.parts.spool.records.page(BATCH, tenant, after, limit, newest=True)
        found = [await self.counting.find(tenant, record.id) for record in records]
        return [tally for tally in found if tally is not None]

    async def suspend(self, tally: Tally) -> bool:
        """Put nothing more of a batch into the queue, and hold what waits there; False unless it is active."""
        batch = tally.batch
        if batch.state is not State.ACTIVE:
            return False
        await self._turn(tally, State.SUSPENDED)
        await self._finish(self._sweep(tally, lambda wanted: self.parts.operator.hold(wanted, False)))
        return True

    async def resume(self, tally: Tally) -> bool:
        """Go on with a batch that is suspended, and with its mail that is held; False for any other."""
        if tally.batch.state is not State.SUSPENDED:
            return False
        await self._turn(tally, State.ACTIVE)
        self._add(tally)
        await self._finish(self._sweep(tally, lambda wanted: self.parts.operator.release(wanted, False)))
        return True

    async def cancel(self, tally: Tally) -> bool:
        """Send nothing more of a batch, and delete what waits in the queue; False when it is over."""
        if tally.batch.is_over or tally.batch.state is State.CANCELLING:
            return False
        await self._turn(tally, State.CANCELLING)
        await self._finish(self._clear_away(tally))
        return True

    async def _turn(self, tally: Tally, state: State) -> None:
        """Change the state of a batch, at once and on disk."""
        batch = tally.batch
        batch.state = state
        if state is not State.ACTIVE:
            self._turns.pop(batch.record_key, None)
            self._expander.forget(batch)
        await self._write(batch)

    async def _finish(self, work: Coroutine[object, object, None]) -> None:
        """Do something to the end, whether or not somebody waits for it."""
        await asyncio.shield(self._keep(work, "batch"))

    def _keep(self, work: Coroutine[object, object, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def _sweep(self, tally: Tally, change: Callable[[Filter], Awaitable[dict[str, int]]]) -> None:
        """Change what waits in the queue of a batch, once no part of it is on its way there."""
        async with tally.turn:
            await sweep(tally, self.parts.spool.records, change)

    async def _clear_away(self, tally: Tally) -> None:
        """Remove what is left of a batch that is cancelled."""
        batch = tally.batch
        async with tally.turn:
            await self._remove_parts(PART, batch.tenant, batch.id)
            await sweep(tally, self.parts.spool.records, lambda wanted: self.parts.operator.delete(wanted, False))
        batch.state, batch.ended = State.CANCELLED, self.parts.clock()
        await self._write(batch)

    async def _remove_parts(self, kind: str, tenant: str, name: str) -> None:
        records, prefix = self.parts.spool.records, f"{name}-"
        after = prefix
        while page := await records.page(kind, tenant, after, PAGE):
            keys = [each.key for each in page if each.id.startswith(prefix)]
            if not keys:
                return
            records.write((), keys)
            after = keys[-1][2]

    def _completed(self, batch: Batch) -> None:
        if batch.state in (State.ACTIVE, State.SUSPENDED):
            batch.state, batch.ended = State.COMPLETED, self.parts.clock()
            self._keep(self._write(batch), "completed batch")
        self._turns.pop(batch.record_key, None)
        self._expander.forget(batch)

    def _record(self, batch: Batch) -> Record:
        """Write a batch: when its turn comes it is due, and once it is over it expires."""
        due = math.inf
        if batch.state in (State.ACTIVE, State.CANCELLING):
            due = batch.form.release
        expires = self.counting.expiry() if batch.is_over else math.inf
        return Record(*batch.record_key, encode(batch), due, expires)

    async def _write(self, batch: Batch) -> None:
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        removed = [(FORM, batch.tenant, batch.id)] if batch.is_over else []
        self.parts.spool.records.write(
            [self._record(batch)], removed, lambda fault: None if written.done() else written.set_result(fault)
        )
        await written

    def _add(self, tally: Tally) -> None:
        """Give a batch its turns."""
        self._turns[tally.batch.record_key] = tally.batch.form.release
        self._wake.set()

    async def _run(self) -> None:
        """Put parts of the active batches into the queue, one of each in turn."""
        while True:
            self._wake.clear()
            now = self.parts.clock()
            key = min(self._turns, key=self._turns.__getitem__, default=None)
            at = self._turns[key] if key is not None else math.inf
            if key is None or at > now:
                try:
                    async with asyncio.timeout(min(at - now, 60.0)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            tally = await self.counting.find(key[1], key[2])
            if tally is None:
                self._turns.pop(key, None)
                continue
            pause = await self._step(tally)
            if key not in self._turns:
                continue  # it was suspended or cancelled meanwhile
            if pause is None:
                del self._turns[key]
            else:
                self._turns[key] = self.parts.clock() + pause

    async def _step(self, tally: Tally) -> float | None:
        """Put the next part of a batch into the queue; gives when it comes again, in seconds, None for never."""
        batch = tally.batch
        try:
            async with tally.turn:
                if batch.state is not State.ACTIVE:
                    return None
                pause = await self._expander.expand(batch, self.counting.expiry())
        except Broken as fault:
            log.error("batch %s of %s is suspended: %s", batch.id, batch.tenant, fault)
            await self._turn(tally, State.SUSPENDED)
            return None
        except Exception:
            log.exception("batch %s could not go on", batch.id)
            return AGAIN
        if pause is None:
            self._expander.forget(batch)
            if tally.is_finished:
                self._completed(batch)
        return pause
