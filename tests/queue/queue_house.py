"""A spool on disk and its scheduler, for the tests of what is read when."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Priority, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.queue.contents import Contents
from smarthost.queue.scheduler import Scheduler
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Fault, Settlement

T0 = 1_790_000_000.0


class House:
    """A spool on disk with a scheduler whose offers are collected; time stands still unless a test moves it."""

    def __init__(self, folder: Path) -> None:
        """Open an empty spool."""
        self.now = T0
        self.folder = folder
        self.serial = 0
        self.offered: list[Entry] = []
        self.open()

    def open(self) -> None:
        """Open the spool, and begin with nothing in memory."""
        loop = asyncio.get_running_loop()
        self.spool = SqliteSpool.open(self.folder, loop=loop, clock=self.clock, on_fatal=pytest.fail)
        self.scheduler = Scheduler(self.spool, Contents(), self.clock)
        self.offered.clear()
        self.scheduler.offer = self.scheduler.reoffer = self.offered.append

    def clock(self) -> float:
        """Give the time."""
        return self.now

    def make(self, queue: str = "relayhost", user: str = "", priority: Priority = Priority.MEDIUM) -> Accepted:
        """Make a message with one entry that is due."""
        self.serial += 1
        recipient = Recipient("b@example.net", "example.net")
        envelope = Envelope("a@example.org", (recipient,), priority=priority)
        message = Message(self.serial << 4, Arrival(at=T0, identity=user), envelope, 3)
        entry = Entry(message, 1, queue, (recipient,), T0, T0 + 86400, T0 + 14400)
        return Accepted(message, Content(b"x\r\n", "", 3), (entry,))

    async def put(self, *messages: Accepted, admit: bool = True) -> None:
        """Make messages durable and let the scheduler know, as intake does."""

        async def one(message: Accepted) -> None:
            done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
            self.spool.accept(message, done.set_result)
            assert await done is None
            if admit:
                self.scheduler.admit(message)

        await asyncio.gather(*map(one, messages))

    async def settle(self, entry: Entry) -> None:
        """Write an entry as it stands and tell the scheduler, as the settler does."""
        done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self.spool.settle(Settlement(entry), done.set_result)
        assert await done is None
        self.scheduler.settled(entry, entry.queue)

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """End both."""
        await self.scheduler.stop()
        await self.spool.close()
