"""An event loop whose time jumps to the next timer when nothing is ready; it knows no sockets but simulated ones."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

MOST_TURNS = 100_000  # of the loop in a second; worlds are small
TURN = 1e-6  # seconds that one turn of the loop takes, so that no wait is too short to end


class Stuck(Exception):
    """Nothing is ready, no timer runs: nothing will ever happen again."""


class Clock:
    """The virtual time, in Unix seconds; shared by all loops of a run."""

    def __init__(self, now: float) -> None:
        """Begin at a time."""
        self.began = self.now = now

    def __call__(self) -> float:
        """Give the time."""
        return self.now

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now - self.began


class Network(Protocol):
    """What answers a loop's connections."""

    async def dial(self, address: str, port: int) -> None:
        """Return when the connection stands; raises OSError."""

    def connect(self, address: str, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Give the transport of a connection that was dialled."""

    async def shake_hands(
        self, transport: Any, context: ssl.SSLContext, name: str, timeout: float
    ) -> asyncio.Transport:
        """Give the transport behind a handshake; raises as asyncio does."""


class _Jump:
    """Stands where the selector is: instead of waiting, the clock jumps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second, self._turns = 0, 0

    def select(self, timeout: float | None) -> list[Any]:
        """Let the time pass that a real selector would have waited."""
        if timeout is None:
            raise Stuck("nothing is ready and no timer runs")
        self._clock.now += max(timeout, TURN)
        if int(self._clock.now) != self._second:
            self._second, self._turns = int(self._clock.now), 0
        self._turns += 1
        if self._turns > MOST_TURNS:
            raise Stuck(f"more than {MOST_TURNS} turns of the loop in one second: something goes round in circles")
        return []


class SimLoop(asyncio.BaseEventLoop):
    """Runs everything of one life of the relay. A connection is made of a socket that was never connected."""

    def __init__(self, clock: Clock, network: Network) -> None:
        """Begin with nothing to do; `errors` collects what was told to the exception handler."""
        super().__init__()
        self._selector = _Jump(clock)
        self._clock_resolution = TURN
        self._clock, self._network = clock, network
        self._peers: dict[int, str] = {}
        self.errors: list[str] = []
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        """Give the virtual time."""
        return self._clock.now

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing comes from a selector."""

    def _write_to_self(self) -> None:
        """There is no sleep to be woken from."""

    def run_in_executor(self, *_args: Any) -> NoReturn:
        """Threads would make the order random."""
        raise AssertionError("no threads in a simulation")

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect by the simulated network; the socket is only a token."""
        await self._network.dial(address[0], address[1])
        self._peers[sock.fileno()] = address[0]

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *, sock: socket.socket, **_: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Give the simulated transport of a socket that was dialled."""
        address = self._peers.pop(sock.fileno())
        sock.close()
        protocol = protocol_factory()
        return self._network.connect(address, protocol), protocol

    async def start_tls(  # type: ignore[override]
        self,
        transport: Any,
        _protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str,
        ssl_handshake_timeout: float | None = None,
        **_: Any,
    ) -> asyncio.Transport:
        """Have the simulated network say how a handshake ends."""
        return await self._network.shake_hands(transport, sslcontext, server_hostname, ssl_handshake_timeout or 60.0)

    def _note_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")
