"""A spool with its event log, a receiver on loopback, and a clock that can be moved."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from http_peer import Asked, HttpPeer, answer

from smarthost.crypto.sealing import Sealer
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.event import Event, Kind, accepted_event
from smarthost.mail.message import Arrival, Message, format_id
from smarthost.mail.record import DEFAULT_TENANT, Record
from smarthost.network.dns import Resolver
from smarthost.network.http_client import HttpClient
from smarthost.outreach.webhooks import Webhooks
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Fault, Settlement

SEALER = Sealer(b"k" * 32, "webhooks")


class MovedClock:
    """The time of day, and more."""

    def __init__(self) -> None:
        """Start at now."""
        self.ahead = 0.0

    def __call__(self) -> float:
        """Give the Unix time."""
        return time.time() + self.ahead


class Post:
    """A spool that is fed with messages and their events, and the webhooks that tell of them."""

    def __init__(self, folder: Path) -> None:
        """Start with an empty spool."""
        self.clock, self.folder = MovedClock(), folder
        self.loop = asyncio.get_running_loop()
        resolver = Resolver(("127.0.0.1:1",), self.clock, lambda *_: None)
        self.client = HttpClient(resolver, lambda: None, connections=64, allow_private=True)
        self.spool, self.hooks = self.open()
        self._last = int(time.time() * 1_000_000)

    def open(self) -> tuple[SqliteSpool, Webhooks]:
        """Open the spool, as a relay does that starts."""
        spool = SqliteSpool.open(self.folder, loop=self.loop, clock=self.clock, on_fatal=print)
        return spool, Webhooks(spool, self.client.ask, lambda: SEALER, self.clock, Random(1))

    async def crash(self) -> None:
        """End without a word, and start anew: what was not committed is lost, like what only memory knew."""
        for runner, task in self.hooks._runners.values():
            task.cancel()
            for each in tuple(runner._tasks):
                each.cancel()
        await self.spool.close()
        self.spool, self.hooks = self.open()
        await self.hooks.start()

    async def accept(self, *tenants: str, client_id: str | None = "", envid: str = "") -> list[Message]:
        """Accept a message for each tenant, with its event, by HTTP; None for `client_id` is by SMTP."""
        made = []
        answers: list[asyncio.Future[Fault | None]] = []
        for tenant in tenants:
            self._last += 1
            recipients = (Recipient("b@d.example", "d.example"),)
            arrival, envelope = Arrival(self.clock(), identity=tenant), Envelope("a@b.example", recipients, envid=envid)
            message = Message(self._last << 4, arrival, envelope, 3)
            entry = Entry(message, 1, "mx/d.example", recipients, self.clock(), self.clock() + 99, self.clock() + 99)
            answers.append(self.loop.create_future())
            events = (accepted_event(message),)
            data = msgspec.json.encode({"id": message.id, "client_id": client_id})
            kept = Record("message", tenant or DEFAULT_TENANT, format_id(message.id), data)
            records = () if client_id is None else (kept,)
            self.spool.accept(
                Accepted(message, Content(b"x\r\n", "", 3), (entry,), events, records), answers[-1].set_result
            )
            made.append(message)
        assert set(await asyncio.gather(*answers)) == {None}
        return made

    async def tell(self, message: Message, *kinds: Kind) -> None:
        """Add events to a message, each in a commit of its own."""
        for kind in kinds:
            envid, user = message.envelope.envid, message.arrival.identity
            event = Event(self.clock(), kind, message.id, envid, recipient="b@d.example", user=user)
            entry = Entry(message, 1, "mx/d.example", message.envelope.recipients, self.clock(), 9e9, 9e9)
            told: asyncio.Future[Fault | None] = self.loop.create_future()
            self.spool.settle(Settlement(entry, (event,)), told.set_result)
            assert await told is None

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and have everybody look at the clock."""
        self.clock.ahead += seconds
        for runner, _ in self.hooks._runners.values():
            runner._wake.set()


class Receiver:
    """Takes webhooks; `status` may be changed, or `decide` looks at each."""

    def __init__(self) -> None:
        """Take everything."""
        self.status = 200
        self.decide: Callable[[dict[str, Any]], int | None] = lambda told: self.status
        self.headers: tuple[str, ...] = ()
        self.taken: list[dict[str, Any]] = []
        self.refused = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.peer = HttpPeer(self._answer)

    async def _answer(self, asked: Asked) -> bytes | None:
        told = {**json.loads(asked.body), "webhook-id": asked.headers["webhook-id"]}
        status = self.decide(told)
        await self.hang.wait()
        if status is None:
            self.refused += 1
            return None
        if status < 300:
            self.taken.append(told)
        else:
            self.refused += 1
        return answer(status, b"", *self.headers)

    def kinds_of(self, message: Message) -> list[str]:
        """Give the types that were taken of a message, in their order."""
        mine = [each for each in self.taken if each["data"]["id"] == format_id(message.id)]
        return [str(each["type"]).removeprefix("message.") for each in mine]


async def until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.01)
