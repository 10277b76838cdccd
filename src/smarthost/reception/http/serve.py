"""Serves an ASGI application by uvicorn on sockets that we opened, in the relay's own event loop."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

BACKLOG = 1024
KEEP_ALIVE = 75  # seconds for which a client may keep a connection open without a request
HANDSHAKE_TIMEOUT = 30.0  # seconds for a TLS handshake
FIRST_REQUEST = 30.0  # seconds in which a request's header must be complete
LOOK = 5.0  # seconds between two looks for clients that are slow to ask

_log = logging.getLogger(__name__)


class Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: the relay has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Cork:
    """A transport that writes at the end of the loop's round: uvicorn writes the head and the content of an answer
    apart, and uvloop each at once, which is a system call more for each of them and wakes the client twice.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before a transport."""
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """Give all else as the transport has it."""
        return getattr(self._transport, name)

    def write(self, octets: bytes) -> None:
        """Write with what else is written in this round."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(octets)

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held = self._held
        if held:
            self._held = []
            self._transport.write(b"".join(held))


def _corked(protocol: Any) -> Any:
    """Give uvicorn's protocol with a cork in its transport."""

    class Corked(protocol):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Cork(transport, self.loop))

    return Corked


class HttpServer:
    """One application on any number of sockets, each with or without TLS."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop, most_connections: int) -> None:
        """Be ready to listen; beyond `most_connections` at a time a request is answered 503."""
        self._app, self._loop, self._most = app, loop, most_connections
        self._servers: list[tuple[Uvicorn, asyncio.Task[None]]] = []
        self._plain: Uvicorn | None = None
        self._handed: set[asyncio.Task[None]] = set()
        self._since: dict[Any, tuple[object, float]] = {}
        # What it tells of its life, the relay's own log says; its access log would cost a line for each request.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._timer: asyncio.TimerHandle | None = loop.call_later(LOOK, self._look)

    async def open(self, listening: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """Serve a listening socket."""
        await self._start([listening], context)

    async def open_handed(self) -> None:
        """Serve connections that somebody else accepts: see `take`."""
        self._plain = await self._start([], None)

    async def _start(self, sockets: list[socket.socket], context: ssl.SSLContext | None) -> Uvicorn:
        config = uvicorn.Config(
            self._app,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            limit_concurrency=self._most,
        )
        config.load()
        config.http_protocol_class = _corked(config.http_protocol_class)
        config.ssl = context
        server = Uvicorn(config)
        task = self._loop.create_task(server.serve(sockets), name="http")
        task.add_done_callback(_tell)
        self._servers.append((server, task))
        while not server.started and not task.done():
            await asyncio.sleep(0)
        return server

    def take(self, accepted: socket.socket) -> None:
        """Serve a connection from which nothing was read. On the loop."""
        server = self._plain
        if server is None or server.should_exit:
            accepted.close()
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._connect(server, accepted))
        self._handed.add(task)
        task.add_done_callback(self._handed.discard)

    async def _connect(self, server: Uvicorn, accepted: socket.socket) -> None:
        config, state = server.config, server.server_state
        # uvicorn's protocols are made as its own server makes them.
        protocol: Any = config.http_protocol_class
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol(config=config, server_state=state, app_state={}, _loop=self._loop), accepted
            )
        except OSError:
            accepted.close()

    async def stop(self, patience: float) -> None:
        """Listen no more, let requests end within some seconds, close."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for server, _ in self._servers:
            server.config.timeout_graceful_shutdown = max(int(patience), 1)
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers), return_exceptions=True)
        self._servers.clear()

    def _look(self) -> None:
        """Close connections whose request does not come: uvicorn waits for it for ever."""
        now = self._loop.time()
        seen: dict[Any, tuple[object, float]] = {}
        for server, _ in self._servers:
            for connection in tuple(server.server_state.connections):
                cycle = getattr(connection, "cycle", None)
                if cycle is not None and not cycle.response_complete:
                    continue
                known, since = self._since.get(connection, (cycle, now))
                if known is not cycle:
                    since = now
                elif now - since > (FIRST_REQUEST if cycle is None else KEEP_ALIVE + FIRST_REQUEST):
                    connection.transport.close()
                    continue
                seen[connection] = cycle, since
        self._since = seen
        self._timer = self._loop.call_later(LOOK, self._look)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("the HTTP door failed", exc_info=error)
