"""The sink as a part: starts and stops its ports, and lets tests wait for mail."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable

from smarthost.sink.counts import Counts
from smarthost.sink.desk import Desk, SinkSettings, TakenMail
from smarthost.sink.http import start_http
from smarthost.sink.session import Session

_BACKLOG = 1024


class Sink:
    """A test upstream that takes mail, and misbehaves by recipient.

    Everything happens on the loop that `start` runs on. `counts` and `messages` (the last `settings.keep`, oldest
    first) may be read at any time.
    """

    def __init__(
        self,
        settings: SinkSettings | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With a TLS context it offers STARTTLS, or speaks TLS on connect if the settings say so.

        Raises ValueError for implicit TLS without a context, and OSError when the Maildir cannot be made.
        """
        self.settings = settings or SinkSettings()
        if self.settings.implicit_tls and tls is None:
            raise ValueError("implicit TLS needs a TLS context")
        self._desk = Desk(self.settings, tls, self._wake)
        self._clock = clock
        self._sessions: set[Session] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.address = ("", 0)
        self.http_address = ("", 0)

    @property
    def counts(self) -> Counts:
        """What was seen since the start."""
        return self._desk.counts

    @property
    def messages(self) -> deque[TakenMail]:
        """The last messages that were taken, oldest first."""
        return self._desk.messages

    async def start(self) -> tuple[str, int]:
        """Open the ports; give host and port of the SMTP one. Raises OSError when a port cannot be had."""
        loop = asyncio.get_running_loop()
        host, port = split_address(self.settings.listen)
        server = await loop.create_server(
            lambda: Session(self._desk, self._sessions, self._clock),
            host,
            port,
            ssl=self._desk.tls if self.settings.implicit_tls else None,
            backlog=_BACKLOG,
        )
        self._servers.append(server)
        self.address = server.sockets[0].getsockname()[:2]
        if self.settings.http:
            try:
                http = await start_http(self._desk, *split_address(self.settings.http))
            except OSError:
                await self.stop()
                raise
            self._servers.append(http)
            self.http_address = http.sockets[0].getsockname()[:2]
        return self.address

    async def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Wait until so many messages were taken since the start; raises TimeoutError with what came instead."""
        if self.counts.messages >= count:
            return
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (count, arrived)
        self._waiting.append(waiter)
        try:
            await asyncio.wait_for(arrived, timeout)
        except TimeoutError:
            raise TimeoutError(f"{self.counts.messages} of {count} messages came in {timeout} s") from None
        finally:
            self._waiting.remove(waiter)

    async def stop(self) -> None:
        """Close the ports and cut every connection."""
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def _wake(self) -> None:
        for count, arrived in self._waiting:
            if self.counts.messages >= count and not arrived.done():
                arrived.set_result(None)


def split_address(text: str) -> tuple[str, int]:
    """Split "127.0.0.1:2525", "[::1]:2525" or ":2525" (every address); raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
