"""The scheduler's bounds: what is urgent, one message of one user, and other destinations pass a crowd on disk."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from queue_house import T0, House

from smarthost.mail.envelope import Priority
from smarthost.queue import room
from smarthost.spool.store import Pulled

CROWD = 3000  # entries, about three times what one queue may have in memory


async def crowd(house: House, **kind: object) -> None:
    """Fill a queue beyond what memory holds of it."""
    await house.put(*(house.make(**kind) for _ in range(CROWD)))  # type: ignore[arg-type]
    assert len(house.offered) == room.QUEUE_BOUND


async def test_urgent_mail_passes_a_crowd_on_disk(house: House) -> None:
    """A fresh message of a higher priority is offered at once, though the queue's bound is reached and more waits."""
    await crowd(house, priority=Priority.LOW)
    urgent = house.make(priority=Priority.HIGH)
    await house.put(urgent)
    assert house.offered[-1] is urgent.entries[0]


async def test_another_user_passes_a_crowd_on_disk(house: House) -> None:
    """One message of one user is offered at once, whatever another user has in the same queue."""
    await crowd(house, user="a")
    one = house.make(user="b")
    await house.put(one)
    assert house.offered[-1] is one.entries[0]
    again = house.make(user="a")
    await house.put(again)
    assert house.offered[-1] is one.entries[0], "its own user's mail waits in line"


async def test_what_is_urgent_on_disk_passes_the_crowd(house: House) -> None:
    """After a restart, and when a retry is due, urgent mail and other users' mail come in with the first pull."""
    low = [house.make(priority=Priority.LOW, user="a") for _ in range(CROWD)]
    await house.put(*low, house.make(priority=Priority.HIGH, user="a"), house.make(user="b"), admit=False)
    await house.close()
    house.open()
    await house.scheduler.start()
    await house.until(lambda: len(house.offered) > 2)
    assert [entry.lane for entry in house.offered[:3]] == ["1a", "2b", "3a"]
    await house.until(lambda: len(house.offered) >= room.QUEUE_BOUND // 3 + 2)
    await asyncio.sleep(0.2)
    urgent = house.offered[0]
    urgent.due, urgent.attempts = T0 + 60, 1
    await house.settle(urgent)
    house.offered.clear()
    house.now = T0 + 61
    await house.until(lambda: house.offered)
    assert house.offered[0].key == urgent.key


async def test_a_crowd_is_offered_whole(house: House) -> None:
    """Lanes leave disk as memory empties: all of them, each entry once, in its lane's order."""
    kinds = [{"user": "a"}, {"user": "b", "priority": Priority.LOW}, {"user": "a", "priority": Priority.HIGH}]
    await house.put(*(house.make(**kind) for _ in range(700) for kind in kinds), admit=False)  # type: ignore[arg-type]
    await house.scheduler.start()
    seen: dict[str, list[int]] = {}
    async with asyncio.timeout(30):
        while sum(map(len, seen.values())) < 2100:
            await house.until(lambda: house.offered)
            taken, house.offered[:] = list(house.offered), []
            for entry in taken:
                seen.setdefault(entry.lane, []).append(entry.message.id)
                entry.recipients = ()
            await asyncio.gather(*map(house.settle, taken))
            assert house.scheduler.total <= room.QUEUE_BOUND
    assert [len(ids) for ids in seen.values()] == [700, 700, 700]
    assert all(ids == sorted(ids) for ids in seen.values())
    house.scheduler.tidy()
    assert not house.scheduler.queues


async def test_dead_destinations_that_fill_memory_delay_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred dead destinations whose mail fills all bounds: a fresh message to a healthy one is offered at once."""
    monkeypatch.setattr(room, "QUEUE_BOUND", 20)
    monkeypatch.setattr(room, "CROWDED_BOUND", 4)
    monkeypatch.setattr(room, "TOTAL_BOUND", 300)
    dead = [house.make(f"mx/dead{number}.example") for _ in range(30) for number in range(100)]
    await house.put(*dead, admit=False)
    await house.scheduler.start()
    await house.until(lambda: house.scheduler.total >= 300)
    await asyncio.sleep(0.2)
    assert house.scheduler.total <= 600
    fresh = house.make("mx/healthy.example")
    await house.put(fresh)
    assert house.offered[-1] is fresh.entries[0]
    other = house.make("mx/dead0.example", user="b")
    await house.put(other)
    assert house.offered[-1] is other.entries[0]


async def test_a_lane_is_not_forgotten_while_it_is_read(house: House) -> None:
    """Tidying in the middle of a pull loses nothing of what the pull finds."""
    await house.put(house.make(), admit=False)
    read: Callable[..., Awaitable[list[Pulled]]] = house.spool.pull

    async def tidily(*asked: object) -> list[Pulled]:
        found = await read(*asked)
        house.scheduler.tidy()
        return found

    house.spool.pull = tidily  # type: ignore[method-assign, assignment]
    await house.scheduler.start()
    await house.until(lambda: house.offered)
    assert house.scheduler.is_loaded(house.offered[0].key, "relayhost")
    house.offered[0].recipients = ()
    await house.settle(house.offered[0])
    assert house.scheduler.total == 0
