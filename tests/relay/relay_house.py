"""A whole relay in the test's own process, on real sockets and a real disk, with the sink as its relayhost."""

import asyncio
import smtplib
from collections.abc import Callable
from pathlib import Path

import msgspec

from smarthost.config import Config
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import parse_id
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.admission import Auth, Listener, Submission, Tls
from smarthost.policy.backoff import Retry
from smarthost.server import Server
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink

FAST = Retry(schedule=(0.2,), lifetime=3600.0, report_lifetime=3600.0, delay_warning=())
SLOW = msgspec.structs.replace(FAST, schedule=(600.0,))  # nothing is in delivery while a test acts on the queue


class House:
    """A relay and its sink; tests send, wait for events, and look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sink = Sink(SinkSettings())
        self.events: list[Event] = []
        self.log_to: int | None = None
        self.changed = asyncio.Event()
        self.config = Config(
            hostname="relay.example.org",
            postmaster="postmaster@example.org",
            default_domain="example.org",
            data_directory=folder,
            listeners=(Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.NONE),),
            submission=Submission(min_free_space=0),
            retry=FAST,
            http_address="",
            shutdown_timeout=3.0,
        )

    async def open(self, **changes: object) -> None:
        """Start the sink, if it is not there, and the relay."""
        if not self.sink.address[1]:
            await self.sink.start()
        route = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", self.sink.address[1]),), TlsLevel.NONE)
        self.config = msgspec.structs.replace(self.config, **{"fallback": route, **changes})
        self.server = Server(self.config, log_to=self.log_to, listeners=(self._hear,))
        await self.server.start()
        host, port = self.server.listening[0].rsplit(":", 1)
        self.address = (host, int(port))

    async def close(self) -> None:
        """Stop the relay and the sink."""
        await self.server.stop()
        await self.sink.stop()

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    async def send(
        self,
        *recipients: str,
        sender: str = "app@example.org",
        content: str = "Subject: x\r\n\r\nhello\r\n",
        options: tuple[str, ...] = (),
        rcpt_options: tuple[str, ...] = (),
    ) -> int:
        """Send one message by smtplib in a thread; gives its id."""

        def talk() -> int:
            with smtplib.SMTP(*self.address, timeout=20) as client:
                client.ehlo()
                client.mail(sender, list(options))
                for recipient in recipients:
                    client.rcpt(recipient, list(rcpt_options))
                code, text = client.data(content.encode())
                assert code == 250, (code, text)
                number = parse_id(text.decode().rsplit(" ", 1)[1])
                assert number is not None
                return number

        return await asyncio.to_thread(talk)

    async def until(self, condition: Callable[[], bool], seconds: float = 15.0) -> None:
        """Wait until a condition holds; it is looked at after each event and each tenth of a second."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.1):
                        await self.changed.wait()
                except TimeoutError:
                    pass

    def kinds(self, message: int) -> list[Kind]:
        """Give what happened to a message, in order."""
        return [event.event for event in self.events if event.message == message]

    async def empty(self) -> None:
        """Wait until nothing is in the queue, on disk."""
        async with asyncio.timeout(15):
            while (await self.server.spool.count())["total"]:
                await asyncio.sleep(0.02)
