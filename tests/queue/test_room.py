"""Room in memory: who waits for it, who does not, and in what order it is given."""

import asyncio
from collections import Counter

import pytest
from queue_house import T0, House

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Priority
from smarthost.queue import room
from smarthost.queue.waiting import Lane

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have memory for few, so that a test fills it."""
    monkeypatch.setattr(room, "QUEUE_BOUND", 20)
    monkeypatch.setattr(room, "CROWDED_BOUND", 20)
    monkeypatch.setattr(room, "TOTAL_BOUND", 40)
    monkeypatch.setattr(room, "MOVING", 4)


async def filled(house: House, queues: int, each: int) -> None:
    """Have so many queues with so many entries on disk, and memory full of the first."""
    await house.put(*(house.make(f"mx/{n:02}.example") for _ in range(each) for n in range(queues)), admit=False)
    await house.scheduler.start()
    await house.until(lambda: house.scheduler.total >= 40)


def queues_of(entries: list[Entry]) -> list[str]:
    """Give the queues of entries, each once, in the order of the first of each."""
    return list(dict.fromkeys(entry.queue for entry in entries))


async def take_all(house: House) -> list[Entry]:
    """Settle everything that was offered."""
    taken, house.offered[:] = list(house.offered), []
    for entry in taken:
        entry.recipients = ()
    await asyncio.gather(*map(house.settle, taken))
    return taken


async def test_queues_get_room_in_turn_and_in_one_go(house: House) -> None:
    """While memory moves, the others wait in line and each is read with its whole share, none before its turn."""
    await filled(house, 8, 40)
    orders = []
    for _ in range(8):
        await house.until(lambda: len(house.offered) >= 40)
        await asyncio.sleep(0.12)
        assert house.scheduler.total == 40
        orders += queues_of(await take_all(house))
    assert orders == [f"mx/{n:02}.example" for n in range(8)] * 2
    await house.until(lambda: not house.scheduler.total)


async def test_memory_that_does_not_move_holds_nobody_up(house: House) -> None:
    """When it has been full for some seconds, each other lane has one entry in memory, and the next when that left."""
    await filled(house, 6, 30)
    await asyncio.sleep(0.12)
    assert house.scheduler.total == 40
    house.now += room.STUCK
    await house.until(lambda: house.scheduler.total == 44)
    late = house.offered[40:]
    assert [entry.queue for entry in late] == [f"mx/{n:02}.example" for n in (2, 3, 4, 5)]
    for entry in late:
        entry.recipients = ()
    await asyncio.gather(*map(house.settle, late))
    await house.until(lambda: len(house.offered) == 48)
    assert house.scheduler.total == 44


async def test_when_memory_moves_again_shares_are_whole_again(house: House) -> None:
    """Entries that were let in beside do not fill memory: once the others have left, queues are read as ever."""
    await filled(house, 6, 30)
    house.now += room.STUCK
    await house.until(lambda: house.scheduler.total == 44)
    await take_all(house)
    await house.until(lambda: len(house.offered) >= 40)
    assert house.scheduler.total == 40
    assert sorted(Counter(entry.queue for entry in house.offered).values()) == [10, 10, 20]


async def test_what_is_urgent_waits_for_nobody(house: House) -> None:
    """An urgent entry that becomes due on disk is read though memory is full and others stand in line."""
    await filled(house, 6, 30)
    urgent = house.make("mx/05.example", priority=Priority.HIGH)
    await house.put(urgent, admit=False)
    house.scheduler.note_due(urgent.entries[0])
    await house.until(lambda: len(house.offered) > 40)
    assert [entry.key for entry in house.offered[40:]] == [urgent.entries[0].key]


async def test_what_a_person_removes_makes_room(house: House) -> None:
    """When the last entries of a lane in memory are deleted, those on disk are read."""
    await house.put(*(house.make() for _ in range(25)), admit=False)
    await house.scheduler.start()
    await house.until(lambda: len(house.offered) == 20)
    removed = [entry.key for entry in house.offered]
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    house.spool.delete(removed, done.set_result)
    await done
    for key in removed:
        house.scheduler.forget(key, "relayhost")
    await house.until(lambda: len(house.offered) == 25)


async def test_a_clock_that_is_set_back_makes_nobody_wait() -> None:
    """Full memory counts as stuck after its seconds, however far back the clock went."""
    memory, lane = room.Room(), Lane("2app")
    for number in range(40):
        memory.enter(lane, (number, 1))
    assert memory.is_full(T0) and memory.is_full(T0 - 10.0)
    assert not memory.is_stuck(T0 - 10.0)
    assert memory.is_stuck(T0 - 10.0 + room.STUCK)
