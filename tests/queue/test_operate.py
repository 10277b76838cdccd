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
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import Key
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


def hold_back(desk: Desk) -> tuple[asyncio.Event, asyncio.Event]:
    """Let the answer to the next `select` wait; gives when it was read, and what lets it go on."""
    reached, gate = asyncio.Event(), asyncio.Event()
    select, is_first = desk.spool.select, [True]

    async def slowly(wanted: Filter, limit: int, after: Key = (0, 0)) -> list[Entry]:
        found = await select(wanted, limit, after)
        if is_first.pop() if is_first else False:
            reached.set()
            await gate.wait()
        return found

    desk.spool.select = slowly  # type: ignore[method-assign]
    return reached, gate


async def test_two_commands_at_once() -> None:
    """That one of them ends takes nothing away from the other, which hears of the attempt that ended meanwhile."""
    desk = Desk()
    entry = await desk.deliver()
    reached, gate = hold_back(desk)
    holding = asyncio.ensure_future(desk.operator.hold(Filter(), False))
    await reached.wait()
    await desk.operator.hold(Filter(sender="nobody@*"), False)
    await settle(desk.spool, desk.scheduler, entry)
    gate.set()
    assert await holding == {"entries": 1, "messages": 1}
    (row,) = await desk.rows()
    assert (row.recipients, row.why) == ((ONE,), Why.HELD)


async def test_a_flush_does_not_undo_a_hold() -> None:
    """The flush has read the entry before it was held, and writes after it: it stays held."""
    desk = Desk()
    await settle(desk.spool, desk.scheduler, await desk.deliver())
    reached, gate = hold_back(desk)
    flushing = asyncio.ensure_future(desk.operator.flush(Filter()))
    await reached.wait()
    await desk.operator.hold(Filter(), False)
    gate.set()
    assert await flushing == {"entries": 0, "messages": 0}
    assert [row.why for row in await desk.rows()] == [Why.HELD]


async def test_other_entries_of_a_message_are_changed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one entry of a message is in delivery, the other one is not released again and again."""
    monkeypatch.setattr(operate, "PATIENCE", 0.3)
    desk = Desk()
    one = Entry(desk.message, 1, "relayhost", (ONE,), T0, T0 + 86400, T0 + 14400)
    two = Entry(desk.message, 2, "other", (TWO,), LATER, T0 + 86400, T0 + 14400)
    accepted = Accepted(desk.message, Content(b"x\r\n", "", 3), (one, two))
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    desk.spool.accept(accepted, done.set_result)
    await done
    desk.scheduler.admit(accepted)
    assert await desk.operator.retry_now(Filter(), False) == {"entries": 1, "messages": 1, "in_delivery": 1}
    assert len(await desk.spool.events_of(desk.message.id)) == 1


async def test_a_dry_run_wakes_nobody() -> None:
    """No pause ends because somebody asked what would happen."""
    desk = Desk()
    await desk.deliver()
    desk.operator.awake = lambda queues: pytest.fail("woken")
    await desk.operator.retry_now(Filter(), True)
    await desk.operator.flush(Filter(), True)


async def test_the_scheduler_does_not_load_a_row_that_has_changed() -> None:
    """What was read from disk before a person held it, or its attempt ended, is not offered to delivery."""
    for ends in (True, False):
        desk = Desk()
        entry = await desk.deliver()
        if not ends:
            await settle(desk.spool, desk.scheduler, entry)
            row = (await desk.rows())[0]
            row.due = T0
            desk.spool.settle(Settlement(row), None)  # type: ignore[arg-type]
        due = desk.spool.due

        async def meanwhile(
            queue: str,
            lane: str,
            before: float,
            limit: int,
            desk: Desk = desk,
            entry: Entry = entry,
            ends: bool = ends,
            due: object = due,
        ) -> list[Entry]:
            found: list[Entry] = await due(queue, lane, before, limit)  # type: ignore[operator]
            assert found
            if ends:
                await settle(desk.spool, desk.scheduler, entry)
            else:
                await desk.operator.hold(Filter(), False)
            return found

        desk.spool.due = meanwhile  # type: ignore[method-assign, assignment]
        queue = desk.scheduler.queues["relayhost"]
        desk.scheduler._note(queue, queue.lane(entry.lane), T0 - 1)
        await desk.scheduler._pull(queue, is_turn=True)
        assert desk.offered == [] and desk.scheduler.total == 0
        assert queue.disk_due == (LATER if ends else float("inf"))


async def test_what_a_pull_has_loaded_is_not_admitted_again() -> None:
    """A row can be read from disk before its commit is told of: it is offered once, and counted once."""
    desk = Desk()
    entry = await desk.deliver()
    accepted = Accepted(desk.message, Content(b"x\r\n", "", 3), (entry,))
    desk.scheduler.admit(accepted)
    assert desk.offered == [] and desk.scheduler.total == 1


async def test_what_was_held_meanwhile_does_not_expire() -> None:
    """The watch over deadlines has read an entry that a person then holds: it is not given up."""
    desk = Desk()
    await settle(desk.spool, desk.scheduler, await desk.deliver())
    overdue: list[Entry] = []
    desk.scheduler.overdue = overdue.extend
    deadlines, looks = desk.spool.deadlines, []

    async def meanwhile(before: float, limit: int) -> list[Entry]:
        found = await deadlines(T0 + 1e6, limit)
        looks.append(len(found))
        await desk.operator.hold(Filter(), False)
        return found

    desk.spool.deadlines = meanwhile  # type: ignore[method-assign]
    watching = asyncio.ensure_future(desk.scheduler._watch_deadlines())
    await asyncio.sleep(0.05)
    watching.cancel()
    assert looks == [1] and overdue == []
