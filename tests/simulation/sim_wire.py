"""One simulated connection: octets take time, come in pieces, and may be cut at any one of them, either way."""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

COMMANDS = (b"EHLO", b"STARTTLS", b"HELO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET")


class Listener(Protocol):
    """The peer's end of a connection."""

    def hear(self, octets: bytes) -> None:
        """Take octets from the relay."""

    def gone(self) -> None:
        """The relay's end is closed."""


class Line:
    """How a connection behaves: latency in seconds one way, chance of pieces, and where it is cut (-1: nowhere)."""

    def __init__(self, latency: float, split: float, cut_up: int = -1, cut_down: int = -1) -> None:
        """Keep the facts."""
        self.latency, self.split, self.cut_up, self.cut_down = latency, split, cut_up, cut_down


class Wire(asyncio.Transport):
    """The relay's transport; `send` and `hang_up` are the peer's. `closed` is called once the relay's end is gone."""

    def __init__(self, protocol: asyncio.Protocol, line: Line, rng: Random, closed: Callable[[], None]) -> None:
        """Stand; the peer is joined next."""
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.peer: Listener
        self._protocol: asyncio.BaseProtocol = protocol
        self._line, self._rng, self._closed = line, rng, closed
        self._is_closing = self._is_dead = self._peer_is_gone = False
        self._up_at = self._down_at = 0.0
        self._up = self._down = 0  # octets that arrived
        self._sent_down = 0
        self._under_way: deque[bytes] = deque()
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()
        self.tls: Any = None  # what a handshake has left, as the ssl module's objects look
        self.commands = self.replies = 0  # that the relay has written, and read
        self.blame: Callable[[], None] | None = None  # told when a command did not wait for the reply before it

    # The relay's side, as asyncio.Transport has it.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell of TLS; there is no socket."""
        if self.tls is not None and name in ("ssl_object", "sslcontext"):
            return self.tls if name == "ssl_object" else self.tls.context
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Change who hears."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Say who hears."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether the relay's end is closed."""
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """The network takes everything."""
        return 0

    def pause_reading(self) -> None:
        """The relay never pauses here."""

    def resume_reading(self) -> None:
        """The relay never pauses here."""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        """Send octets to the peer."""
        if self._is_closing or self._is_dead or not data:
            return
        if data.startswith(COMMANDS):
            self.commands += 1
        if data.endswith(b".\r\n") and not data.startswith(COMMANDS):
            self.commands += 1
        if self.blame is not None and self.commands > self.replies:
            self.blame()
        for piece in self._pieces(data):
            self._under_way.append(piece)
            self._up_at = max(self._up_at + 2e-6, self.loop.time() + self._delay())
            self.loop.call_at(self._up_at, self._arrive)

    def close(self) -> None:
        """Close the relay's end; what was written arrives."""
        if not self._is_closing:
            self._shut(None)
            self.loop.call_at(max(self._up_at, self.loop.time()) + self._line.latency, self._part)

    def abort(self) -> None:
        """Close at once; what is under way may or may not arrive."""
        if not self._is_closing:
            self._shut(None)
            self._drop()
            self.loop.call_at(max(self._up_at, self.loop.time()) + self._line.latency, self._part)

    def vanish(self) -> None:
        """The relay's machine is gone: what is under way may or may not arrive, and nobody hears anything."""
        if self._is_dead:
            return
        was_closing, self._is_closing = self._is_closing, True
        self._drop()
        while self._under_way and not self._peer_is_gone:
            self._arrive()
        self._part()
        self._is_dead = True
        if not was_closing:
            self._closed()

    # The peer's side.

    def send(self, octets: bytes, delay: float, read: Callable[[], None]) -> None:
        """Answer after a delay in seconds; `read` is called when the relay has all of it."""
        if self._peer_is_gone:
            return
        self._sent_down += len(octets)
        self._marks.append((self._sent_down, read))
        start = max(self._down_at, self.loop.time() + delay + self._delay())
        for piece in self._pieces(octets):
            self._down_at = start = max(start, self._down_at) + 2e-6
            self.loop.call_at(self._down_at, self._heard, piece)
            start += self._rng.uniform(0.0, self._line.latency)

    def hang_up(self, *, reset: bool, after: float = 0.0) -> None:
        """Close the peer's end after a delay, with or without manners; without, what is under way may be lost."""
        if not self._peer_is_gone:
            at = max(self._down_at if self._rng.random() < 0.5 or not reset else 0.0, self.loop.time() + after)
            self._peer_is_gone = True
            self.loop.call_at(at, self._hung_up, reset)

    def _pieces(self, octets: bytes) -> list[bytes]:
        if len(octets) < 2 or self._rng.random() >= self._line.split:
            return [octets]
        places = sorted(self._rng.randrange(1, len(octets)) for _ in range(self._rng.choice((1, 1, 2, 5))))
        return [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True) if a < b]

    def _delay(self) -> float:
        return self._line.latency * self._rng.uniform(1.0, 1.5)

    def _arrive(self) -> None:
        if not self._under_way or self._peer_is_gone:
            return
        octets, cut = self._under_way.popleft(), self._line.cut_up
        if cut >= 0 and self._up + len(octets) >= cut:
            octets = octets[: cut - self._up]
            self._under_way.clear()
            if octets:
                self.peer.hear(octets)
            self.hang_up(reset=True)
            return
        self._up += len(octets)
        self.peer.hear(octets)

    def _heard(self, octets: bytes) -> None:
        if self._is_closing or self._is_dead:
            return
        cut = self._line.cut_down
        is_cut = cut >= 0 and self._down + len(octets) >= cut
        if is_cut:
            octets = octets[: cut - self._down]
        self._down += len(octets)
        while self._marks and self._marks[0][0] <= self._down:
            self.replies += 1
            self._marks.popleft()[1]()
        if octets and isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(octets)
        if is_cut and not self._is_closing:
            self._peer_is_gone = True
            self._hung_up(True)

    def _hung_up(self, reset: bool) -> None:
        if self._is_closing or self._is_dead:
            return
        if reset:
            self._shut(ConnectionResetError(104, "connection reset by peer"))
        elif not (isinstance(self._protocol, asyncio.Protocol) and self._protocol.eof_received()):
            self.close()

    def _shut(self, error: Exception | None) -> None:
        self._is_closing = True
        self.loop.call_soon(self._lost, error)
        self._closed()

    def _lost(self, error: Exception | None) -> None:
        if not self._is_dead:
            self._protocol.connection_lost(error)

    def _drop(self) -> None:
        """Lose the end of what is under way to the peer, at any octet."""
        if self._under_way and self._rng.random() < 0.5:
            octets = b"".join(self._under_way)
            self._under_way.clear()
            self._under_way.append(octets[: self._rng.randrange(len(octets) + 1)])

    def _part(self) -> None:
        if not self._peer_is_gone and not self._is_dead:
            while self._under_way and not self._peer_is_gone:
                self._arrive()
            self._peer_is_gone = True
            self.peer.gone()
