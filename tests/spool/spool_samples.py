"""Messages, entries and waiting for the spool's tests."""

import asyncio
from collections.abc import Callable, Iterable

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Fault, Settlement, Spool

Opener = Callable[..., SqliteSpool]
NOW = 1_800_000_000.25


def sample_id(serial: int) -> int:
    """Give the id of the serial-th sample, a microsecond apart."""
    return (int(NOW * 1_000_000) + serial) << 4


def sample_message(serial: int, recipients: int = 1, sender: str = "app@example.org", size: int = 2048) -> Message:
    """Make a message that looks like one from an application."""
    asked = tuple(Recipient(f"user{n}@d{n}.example.net", f"d{n}.example.net") for n in range(recipients))
    arrival = Arrival(NOW + serial / 1_000_000, "127.0.0.1:2587", "192.0.2.7", "app.example.org", "app", "ESMTPSA")
    return Message(sample_id(serial), arrival, Envelope(sender, asked), size)


def sample(serial: int, queue: str = "relayhost", content: bytes | None = None, due: float = NOW) -> Accepted:
    """Make a message with one entry."""
    octets = content if content is not None else b"Subject: %d\r\n\r\n" % serial + b"x" * 2000
    message = sample_message(serial, size=len(octets))
    entry = Entry(message, 1, queue, message.envelope.recipients, due, NOW + 432_000, NOW + 14_400)
    return Accepted(message, Content(octets, "", len(octets)), (entry,))


def split_sample(serial: int, queues: Iterable[str]) -> Accepted:
    """Make a message with an entry of one recipient in each queue."""
    names = list(queues)
    message = sample_message(serial, len(names))
    entries = tuple(
        Entry(message, number, queue, (recipient,), NOW + number, NOW + 432_000, NOW + 14_400)
        for number, (queue, recipient) in enumerate(zip(names, message.envelope.recipients, strict=True), 1)
    )
    return Accepted(message, Content(b"short\r\n", "", 7), entries)


def done_with(entry: Entry) -> Settlement:
    """Settle an entry whose recipients are all relayed."""
    entry.recipients = ()
    return Settlement(entry)


class Waiting:
    """Collects the answers of a spool and waits for them."""

    def __init__(self) -> None:
        """Start with none."""
        self.asked = 0
        self.faults: list[Fault | None] = []
        self._changed = asyncio.Event()

    def __call__(self, fault: Fault | None) -> None:
        """Take an answer."""
        self.faults.append(fault)
        self._changed.set()

    def more(self, count: int = 1) -> "Waiting":
        """Expect more answers."""
        self.asked += count
        return self

    async def all(self, seconds: float = 10.0) -> list[Fault | None]:
        """Wait until every answer is there."""
        async with asyncio.timeout(seconds):
            while len(self.faults) < self.asked:
                self._changed.clear()
                await self._changed.wait()
        return self.faults


async def accept(spool: Spool, *accepted: Accepted) -> None:
    """Accept and wait until all are durable."""
    waiting = Waiting()
    for one in accepted:
        spool.accept(one, waiting.more())
    assert set(await waiting.all()) == {None}


async def settle(spool: Spool, *settlements: Settlement) -> None:
    """Settle and wait until all are durable."""
    waiting = Waiting()
    for one in settlements:
        spool.settle(one, waiting.more())
    assert set(await waiting.all()) == {None}
