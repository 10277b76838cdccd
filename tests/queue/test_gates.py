"""Gates in front of a long queue on disk: few of it in memory, first in first out, and little read for each."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.policy.ledger import Ledger
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.restraints import Restraints
from smarthost.queue.contents import Contents
from smarthost.queue.gates import LINE_HELD, Gates
from smarthost.queue.room import QUEUE_BOUND
from smarthost.queue.scheduler import Scheduler
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import Accepted, Content, Settlement

pytestmark = pytest.mark.asyncio

COUNT = 5000
USERS = {"app1": "relayhost/ user=app1", "app2": "relayhost/ user=app2"}


class Reading(MemorySpool):
    """Counts the rows that are read."""

    rows = 0

    async def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Give what is due."""
        found = await super().due(queue, lane, before, limit)
        self.rows += len(found)
        return found


def accepted(number: int, user: str, now: float) -> Accepted:
    """Make a message of a user, whose entry has been due for a while."""
    recipients: Sequence[Recipient] = (Recipient("a@b.example", "b.example"),)
    at = now - 100.0 + number / COUNT
    message = Message((number + 1) << 4, Arrival(at, identity=user), Envelope("", tuple(recipients)), 1)
    entry = Entry(message, 1, USERS[user], tuple(recipients), at, now + 9e6, now + 9e6)
    return Accepted(message, Content(b"x", "", 1), (entry,))


async def test_a_long_queue_stays_on_disk_and_in_order() -> None:
    """Five thousand of a limited user wait on disk but for what a queue may have in memory; they leave in their order,
    and the other user's three pass them.
    """
    loop, now = asyncio.get_running_loop(), time.time()
    spool, ledger = Reading(loop, time.time), Ledger()
    for number in range(COUNT):
        spool.accept(accepted(number, "app1", now), lambda fault: None)
    for number in range(COUNT, COUNT + 3):
        spool.accept(accepted(number, "app2", now), lambda fault: None)
    scheduler = Scheduler(spool, Contents(), time.time)
    gates = Gates(scheduler, ledger, time.time, loop)
    gone: list[Entry] = []
    most = 0

    def send(entry: Entry) -> None:
        nonlocal most
        most = max(most, scheduler.total)
        if not gates.may_go(entry, 1):
            gates.turn_back(entry)
            return
        gone.append(entry)
        queue, entry.recipients = entry.queue, ()
        spool.settle(Settlement(entry), lambda fault: scheduler.settled(entry, queue))

    gates.admit = send
    scheduler.offer = scheduler.reoffer = lambda entry: None if gates.holds(entry) else send(entry)

    def write() -> None:
        _, kept = ledger.write(time.time())
        kept()

    ledger.ask = lambda: loop.call_soon(write)  # type: ignore[assignment]
    gates.follow(Restraints([Limit(LimitMatch(user="*"), message_rate=("20000/s,max_burst=200",), number=1)]))
    await scheduler.start()
    async with asyncio.timeout(60):
        while len(gone) < COUNT + 3:
            await asyncio.sleep(0.01)
    gates.close()
    await scheduler.stop()
    users = [entry.message.arrival.identity for entry in gone]
    order = [entry.message.id >> 4 for entry in gone]
    assert [number for number in order if number <= COUNT] == list(range(1, COUNT + 1))
    assert users.index("app2") <= QUEUE_BOUND + LINE_HELD
    assert most <= QUEUE_BOUND + LINE_HELD
    assert spool.rows <= 6 * COUNT


async def test_who_was_let_in_before_a_reload_is_asked_again() -> None:
    """An entry that was let in and is in no session yet is held to the limits of the configuration that rules now."""
    loop, now = asyncio.get_running_loop(), time.time()
    scheduler = Scheduler(MemorySpool(loop, time.time), Contents(), time.time)
    gates = Gates(scheduler, Ledger(), time.time, loop)
    gates.follow(Restraints([Limit(LimitMatch(user="*"), max_connections=2, number=1)]))
    first, second, third = (accepted(number, "app1", now).entries[0] for number in range(3))
    assert [gates.holds(entry) for entry in (first, second)] == [False, False]
    assert gates.may_go(first, 1) == 1
    gates.follow(Restraints([Limit(LimitMatch(user="*"), max_connections=1, number=1)]))
    assert gates.may_go(second, 1) == 0, "the first is still in delivery"
    gates.turn_back(second)
    gates.landed(first)
    assert gates.may_go(second, 1) == 1
    assert gates.holds(third) is True
    gates.landed(second)
    gates.close()


async def test_a_queue_that_was_given_back_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long line whose site goes away and comes back has its place among those that a crowded gate leaves on disk."""
    monkeypatch.setattr("smarthost.queue.gates.LINE_HELD", 2)
    monkeypatch.setattr("smarthost.queue.gates.GATE_HELD", 3)
    loop, now = asyncio.get_running_loop(), time.time()
    scheduler = Scheduler(MemorySpool(loop, time.time), Contents(), time.time)
    gates = Gates(scheduler, Ledger(), time.time, loop)
    gates.follow(Restraints((Limit(LimitMatch(destination="b.example"), message_rate=("1/h",)),)))

    def made(number: int, queue: str) -> Entry:
        (entry,) = accepted(number, "app1", now).entries
        entry.queue = queue
        assert scheduler.claim(entry)
        return entry

    long = [made(number, "a") for number in range(3)]
    assert all(gates.holds(entry) for entry in long)
    gates.drain({"a"})
    assert all(gates.holds(made(number, "b" if number < 12 else "c")) for number in range(10, 14))
    assert scheduler.claim(long[0]) and gates.holds(long[0])
    assert [name for gate in gates._gates.values() for _, name in gate.on_disk] == ["a"]
    gates.close()
