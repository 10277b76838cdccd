"""What a person does to entries that are just then in delivery, or come out of it while they are being read."""

import asyncio
from collections.abc import Sequence

import pytest

from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.policy.backoff import Retry
from smarthost.queue import operate
from smarthost.queue.contents import Contents
from smarthost.queue.operate import Operator
from smarthost.queue.scheduler import Key, Scheduler
from smarthost.report.feed import Feed
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import Accepted, Content, Filter, Settlement

T0 = 1_790_000_000.0
LATER = T0 + 600.0
ONE, TWO = (Recipient(f"{name}@example.net", "example.net") for name in ("one", "two"))


class Spool(MemorySpool):
    """A spool whose answer to `select` is on its way while something happens, once."""

    happens: Entry | None = None
    scheduler: Scheduler

    async def select(self, wanted: Filter, limit: int, after: Key = (0, 0)) -> list[Entry]:
        """Read, and let the entry's attempt end before the answer arrives: TWO was accepted, ONE was delayed."""
        found = await super().select(wanted, limit, after)
        entry, self.happens = self.happens, None
        if entry is not None:
            await settle(self, self.scheduler, entry)
        return found


async def settle(spool: MemorySpool, scheduler: Scheduler, entry: Entry) -> None:
    """End an attempt as the settler does: TWO is done, ONE waits for its next attempt."""
    entry.recipients, entry.attempts, entry.due, entry.why = (ONE,), 1, LATER, Why.RETRY
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    spool.settle(Settlement(entry), done.set_result)
    await done
    scheduler.settled(entry, entry.queue)


class Desk:
    """An operator over a spool with one message for ONE and TWO that is in delivery."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.spool = Spool(loop, lambda: T0)
        self.spool.scheduler = self.scheduler = Scheduler(self.spool, Contents(), lambda: T0)
        self.offered: list[Entry] = []
        self.scheduler.offer = self.scheduler.reoffer = self.offered.append
        self.operator = Operator(self.spool, self.scheduler, Feed(()), Retry(), lambda: T0)
        envelope = Envelope("a@example.org", (ONE, TWO))
        self.message = Message(1 << 4, Arrival(at=T0), envelope, 3)

    async def deliver(self) -> Entry:
        """Put the message into the queue, from where it goes into delivery at once."""
        entry = Entry(self.message, 1, "relayhost", (ONE, TWO), T0, T0 + 86400, T0 + 14400)
        accepted = Accepted(self.message, Content(b"x\r\n", "", 3), (entry,))
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.spool.accept(accepted, done.set_result)
        await done
        self.scheduler.admit(accepted)
        return self.offered.pop()

    async def rows(self) -> Sequence[Entry]:
        """Read what is on disk."""
        return await MemorySpool.select(self.spool, Filter(), 10)


async def test_what_is_in_delivery_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is deleted during its attempt is gone after it, and not tried again."""
    desk = Desk()
    entry = await desk.deliver()
    deleting = asyncio.ensure_future(desk.operator.delete(Filter(), False))
    await asyncio.sleep(0.1)
    assert not deleting.done()
    await settle(desk.spool, desk.scheduler, entry)
    assert await deleting == {"entries": 1, "messages": 1}
    assert await desk.rows() == []


async def test_what_stays_in_delivery_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that does not end within some seconds is left alone, and said so; a dry run waits for nothing."""
    monkeypatch.setattr(operate, "PATIENCE", 0.2)
    desk = Desk()
    await desk.deliver()
    assert await desk.operator.hold(Filter(), True) == {"entries": 1, "messages": 1}
    assert await desk.operator.hold(Filter(), False) == {"entries": 0, "messages": 0, "in_delivery": 1}
    assert await desk.operator.fail(Filter(), False) == {"entries": 0, "messages": 0, "in_delivery": 1}


async def test_an_attempt_that_ends_while_rows_are_read() -> None:
    """A hold that read an entry before its attempt ended must not bring back a recipient that was accepted."""
    desk = Desk()
    desk.spool.happens = await desk.deliver()
    assert await desk.operator.hold(Filter(), False) == {"entries": 1, "messages": 1}
    (row,) = await desk.rows()
    assert (row.recipients, row.attempts, row.why, row.due) == ((ONE,), 1, Why.HELD, float("inf"))


async def test_nobody_loads_what_a_person_changes() -> None:
    """While a change is being written, the entry is not read from disk and not given to delivery."""
    desk = Desk()
    entry = await desk.deliver()
    await settle(desk.spool, desk.scheduler, entry)
    loaded: list[bool] = []
    change = desk.spool.change

    def look(*arguments: object) -> None:
        loaded.append(desk.scheduler.is_loaded(entry.key, entry.queue))
        change(*arguments)  # type: ignore[arg-type]

    desk.spool.change = look  # type: ignore[method-assign]
    assert await desk.operator.hold(Filter(), False) == {"entries": 1, "messages": 1}
    assert loaded == [True]
    assert desk.scheduler.total == 0 and not desk.scheduler.is_loaded(entry.key, entry.queue)


async def test_a_disk_that_fails_leaves_nothing_claimed() -> None:
    """A change that cannot be written raises, and the entry, which waited in its ready queue, is known to be due."""
    desk = Desk()
    await desk.deliver()
    desk.operator.withdraw = lambda queue, key: True
    desk.spool.change = lambda change, done: done("disk")  # type: ignore[method-assign, assignment, arg-type]
    with pytest.raises(OSError, match="could not be changed"):
        await desk.operator.hold(Filter(), False)
    assert desk.scheduler.total == 0
    assert desk.scheduler.queues["relayhost"].disk_due == T0
