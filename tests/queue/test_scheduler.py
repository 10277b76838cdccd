"""The scheduler: what is in memory, what waits on disk, and that nothing is offered twice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.queue import room
from smarthost.queue import scheduler as scheduling
from smarthost.queue.contents import Contents
from smarthost.queue.scheduler import Scheduler
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import Accepted, Content, Settlement

T0 = 1_790_000_000.0


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


def accepted(number: int, queue: str = "relayhost", due: float = T0) -> Accepted:
    """Make a message with one entry."""
    recipient = Recipient("b@example.net", "example.net")
    envelope = Envelope("a@example.org", (recipient,))
    message = Message(number << 4, Arrival(at=T0), envelope, 3)
    entry = Entry(message, 1, queue, (recipient,), due, T0 + 86400, T0 + 14400)
    return Accepted(message, Content(b"x\r\n", "", 3), (entry,))


async def put(spool: MemorySpool, message: Accepted) -> None:
    """Make a message durable and wait for it."""
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    spool.accept(message, done.set_result)
    assert await done is None


async def settle(spool: MemorySpool, scheduler: Scheduler, entry: Entry) -> None:
    """Write an entry as it stands and tell the scheduler, as the settler does."""
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    spool.settle(Settlement(entry), done.set_result)
    await done
    scheduler.settled(entry, entry.queue)


async def until(condition: object, seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def make(spool: MemorySpool, clock: Clock) -> tuple[Scheduler, list[Entry]]:
    """Make a scheduler whose offers are collected."""
    scheduler = Scheduler(spool, Contents(), clock)
    offered: list[Entry] = []
    scheduler.offer = scheduler.reoffer = offered.append
    return scheduler, offered


async def make_spool(clock: Clock) -> MemorySpool:
    """Make an empty spool in memory."""
    return MemorySpool(asyncio.get_running_loop(), clock)


async def test_a_fresh_message_is_offered_at_once() -> None:
    """Admitting a due entry offers it in the same call and keeps its content."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, offered = make(spool, clock)
    message = accepted(1)
    await put(spool, message)
    scheduler.admit(message)
    assert offered == [message.entries[0]] and scheduler.total == 1
    assert scheduler.contents.get(message.message.id) == message.content


async def test_what_was_accepted_is_offered_after_a_restart() -> None:
    """Entries on disk are found by the heads of their queues."""
    clock = Clock()
    spool = await make_spool(clock)
    for number in range(1, 8):
        await put(spool, accepted(number, f"mx/{number % 3}.example"))
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    await until(lambda: len(offered) == 7)
    assert {entry.message.id >> 4 for entry in offered} == set(range(1, 8))
    await scheduler.stop()


async def test_a_delayed_entry_leaves_memory_and_comes_back_when_due() -> None:
    """After a settle with a later due time only the disk has the entry, until the clock gets there."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    message = accepted(1)
    await put(spool, message)
    scheduler.admit(message)
    entry = offered.pop()
    entry.due, entry.attempts = T0 + 0.3, 1
    await settle(spool, scheduler, entry)
    assert scheduler.total == 0
    clock.now = T0 + 0.2
    await asyncio.sleep(0.05)
    assert not offered
    clock.now = T0 + 0.4
    await until(lambda: offered)
    assert offered[0].attempts == 1
    await scheduler.stop()


async def test_memory_is_bounded_for_each_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue holds its bound in memory; the rest follows as entries are settled, each exactly once."""
    monkeypatch.setattr(room, "QUEUE_BOUND", 10)
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    for number in range(1, 101):
        message = accepted(number)
        await put(spool, message)
        scheduler.admit(message)
    assert scheduler.total == 10
    seen = []
    async with asyncio.timeout(10):
        while len(seen) < 100:
            await until(lambda: offered)
            entry = offered.pop(0)
            seen.append(entry.message.id >> 4)
            entry.recipients = ()
            await settle(spool, scheduler, entry)
            assert scheduler.total <= 10
    assert sorted(seen) == list(range(1, 101))
    await asyncio.sleep(0.3)
    assert not offered
    await scheduler.stop()


async def test_one_full_queue_does_not_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many entries of a dead queue, all due, and one of a healthy one: the healthy one is offered."""
    monkeypatch.setattr(room, "QUEUE_BOUND", 5)
    clock = Clock()
    spool = await make_spool(clock)
    for number in range(1, 200):
        await put(spool, accepted(number, "mx/dead.example"))
    await put(spool, accepted(500, "mx/zzz.example"))
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    await until(lambda: any(entry.queue == "mx/zzz.example" for entry in offered))
    assert sum(1 for entry in offered if entry.queue == "mx/dead.example") == 5
    await scheduler.stop()


async def test_a_blocked_queue_is_not_read_before_its_time() -> None:
    """Unloaded entries of a blocked queue stay on disk, and come back when the block ends."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    message = accepted(1)
    await put(spool, message)
    scheduler.admit(message)
    scheduler.block("relayhost", T0 + 0.2, "dead")
    scheduler.unload([offered.pop()])
    assert scheduler.total == 0
    await asyncio.sleep(0.1)
    assert not offered
    clock.now = T0 + 0.3
    await until(lambda: offered)
    await scheduler.stop()


async def test_an_entry_in_memory_is_not_loaded_again() -> None:
    """A refresh reads rows whose entries are in delivery; they are not offered a second time."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    message = accepted(1)
    await put(spool, message)
    scheduler.admit(message)
    await scheduler.refresh()
    await asyncio.sleep(0.2)
    assert len(offered) == 1
    await scheduler.stop()


async def test_overdue_entries_are_handed_on() -> None:
    """An entry whose deadline has passed is shown to the one who warns and gives up."""
    clock = Clock()
    spool = await make_spool(clock)
    await put(spool, accepted(1, due=T0 + 80000))
    scheduler, _ = make(spool, clock)
    overdue: list[Entry] = []
    scheduler.overdue = overdue.extend
    clock.now = T0 + 15000
    await scheduler.start()
    await until(lambda: overdue)
    assert overdue[0].message.id == 1 << 4
    await scheduler.stop()


async def test_queues_without_mail_are_forgotten() -> None:
    """After the last entry of a queue has gone, tidying leaves no trace of its name."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, offered = make(spool, clock)
    await scheduler.start()
    for number in range(1, 4):
        message = accepted(number, f"mx/{number}.example")
        await put(spool, message)
        scheduler.admit(message)
    for entry in offered[:2]:
        entry.recipients = ()
        await settle(spool, scheduler, entry)
    scheduler.tidy()
    assert set(scheduler.queues) == {"mx/3.example"}
    await scheduler.stop()


async def test_an_entry_stays_until_a_part_of_it_is_on_disk() -> None:
    """An entry that leaves memory between two transactions does so when the first is written, and only then."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, _ = make(spool, clock)
    message = accepted(1)
    entry = message.entries[0]
    await put(spool, message)
    scheduler.admit(message)
    scheduler.partly_settled(entry)
    scheduler.partly_settled(entry)
    scheduler.unload([entry])
    scheduler.partly_written(entry)
    assert scheduler.is_loaded(entry.key, entry.queue) and scheduler.is_unwritten(entry.key)
    scheduler.partly_written(entry)
    assert not scheduler.is_loaded(entry.key, entry.queue) and not scheduler.is_unwritten(entry.key)
    assert (scheduler.total, len(scheduler.contents)) == (0, 0)


async def test_each_reader_hears_of_what_is_written_meanwhile() -> None:
    """Readers that have seen the same so far are still two: the end of one takes nothing from the other."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, _ = make(spool, clock)
    entry = accepted(1).entries[0]
    with scheduler.settles() as first:
        with scheduler.settles() as second:
            pass
        scheduler.settled(entry, entry.queue)
    assert (first, second) == ({entry.key}, set())


async def test_a_row_that_is_settled_while_deadlines_are_read_is_left_alone() -> None:
    """What was relayed between the reading of a row and its end is neither warned about nor given up."""
    clock = Clock()
    spool = await make_spool(clock)
    scheduler, _ = make(spool, clock)
    message = accepted(1)
    entry = message.entries[0]
    await put(spool, message)
    clock.now = T0 + 90_000
    overdue: list[Entry] = []
    scheduler.overdue = overdue.extend
    scheduler.admit(message)
    read = spool.deadlines

    async def slowly(before: float, limit: int) -> list[Entry]:
        rows = await read(before, limit)
        entry.recipients = ()
        await settle(spool, scheduler, entry)
        return rows

    spool.deadlines = slowly  # type: ignore[method-assign]
    await scheduler.start()
    await asyncio.sleep(0.05)
    await scheduler.stop()
    assert overdue == []


class FailingSpool(MemorySpool):
    """A spool whose next reads fail, as on a disk with a bad block or for want of a descriptor."""

    failures = 0

    async def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Fail while failures are left."""
        self._fail()
        return await super().due(queue, lane, before, limit)

    async def deadlines(self, before: float, limit: int) -> list[Entry]:
        """Fail while failures are left."""
        self._fail()
        return await super().deadlines(before, limit)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the disk does not answer")


@pytest.mark.parametrize("expires", [False, True])
async def test_a_read_that_fails_once_stops_nothing(
    expires: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be read is read again a moment later, be it what is due or what expires; the fault is told."""
    monkeypatch.setattr(scheduling, "READ_AGAIN", 0.02)
    clock = Clock()
    spool = FailingSpool(asyncio.get_running_loop(), clock)
    scheduler, offered = make(spool, clock)
    expired: list[Entry] = []
    scheduler.overdue = expired.extend
    message = accepted(1, due=T0 + 7200 if expires else T0)
    message.entries[0].deadline = T0 - 1 if expires else T0 + 14400
    await put(spool, message)
    spool.failures = 2
    await scheduler.start()

    def came() -> list[Entry]:
        clock.now += 0.01
        return expired if expires else offered

    await until(came)
    assert any("does not answer" in str(record.exc_info) for record in caplog.records)
    await scheduler.stop()


async def test_many_queues_without_room_leave_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at thousands of queues, again and again, takes turns with whatever else the program does."""
    monkeypatch.setattr(room, "SURE", 0)
    monkeypatch.setattr(room, "TOTAL_BOUND", 0)
    looks = 0

    def clock() -> float:
        """Give a time in which each look takes its time, as on a slow machine."""
        nonlocal looks
        looks += 1
        return T0 + looks * 0.001

    spool = MemorySpool(asyncio.get_running_loop(), clock)
    for number in range(1, 501):
        await put(spool, accepted(number, f"mx/{number}.example"))
    scheduler, offered = make(spool, clock)  # type: ignore[arg-type]
    monkeypatch.setattr(scheduling, "heappop", counted(scheduling.heappop, 50_000))
    await scheduler.start()
    for _ in range(30):
        await asyncio.sleep(0)
    assert looks < 20_000 and not offered
    await scheduler.stop()


def counted(call: Callable[..., Any], most: int) -> Callable[..., Any]:
    """Let something be called so many times and no more."""
    left = most

    def limited(*given: Any) -> Any:
        nonlocal left
        left -= 1
        assert left, "nobody else came to a turn"
        return call(*given)

    return limited


async def test_an_entry_that_finds_a_fault_in_us_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong with one entry is told, and the rest of the disk is read as before."""
    clock = Clock()
    spool = await make_spool(clock)
    for number in range(1, 4):
        await put(spool, accepted(number))
    scheduler, offered = make(spool, clock)

    def offer(entry: Entry) -> None:
        if entry.message.id >> 4 == 1:
            raise RuntimeError("a fault of ours")
        offered.append(entry)

    scheduler.reoffer = offer
    await scheduler.start()
    await until(lambda: len(offered) == 2)
    assert "a fault of ours" in caplog.text
    await scheduler.stop()
