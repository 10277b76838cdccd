"""A TCP proxy that holds every octet for a time on its way, without blocking later ones: a link with distance.

usage: latency_proxy.py LISTEN_PORT TARGET_PORT [--one-way-ms 25] [--host 127.0.0.1]

Unlike a slow server it delays connects too: the target is asked at once, but nothing that it says comes early, and
what is sent in one piece arrives in one piece. Order is kept. With 25 ms each way a pipelined round trip costs 50 ms.
"""

import argparse
import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

try:
    import uvloop
except ImportError:
    uvloop = None

HIGH_WATER = 4 << 20  # octets on their way in one direction, above which the sender is not read; a window of TCP


class Lane:
    """One direction of a link: what goes in at one time comes out later, in order."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.held: deque[tuple[float, bytes]] = deque()
        self.octets = 0
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.ended = False
        self.other = self
        self.loop = asyncio.get_running_loop()

    def put(self, data: bytes) -> None:
        """Hold octets; b"" is the end of the stream."""
        self.held.append((self.loop.time() + self.delay, data))
        self.octets += len(data)
        if self.octets > HIGH_WATER and self.source is not None:
            self.source.pause_reading()
        if self.timer is None:
            self.timer = self.loop.call_at(self.held[0][0], self.release)

    def release(self) -> None:
        """Send on all that has been held long enough."""
        self.timer = None
        if self.target is None:  # the connection to the target is still being made
            self.timer = self.loop.call_later(0.001, self.release)
            return
        due = self.loop.time() + 0.0002
        ready = []
        while self.held and self.held[0][0] <= due:
            data = self.held.popleft()[1]
            self.octets -= len(data)
            ready.append(data)
            self.ended = self.ended or not data
        if not self.target.is_closing():
            if any(ready):
                self.target.write(b"".join(ready))
            if self.ended and (self.other.ended or self.source is None or self.source.is_closing()):
                self.target.close()
            elif self.ended:
                self.target.write_eof()
        if self.octets <= HIGH_WATER and self.source is not None and not self.source.is_closing():
            self.source.resume_reading()
        if self.held:
            self.timer = self.loop.call_at(self.held[0][0], self.release)


class End(asyncio.Protocol):
    """One end of a link: feeds the lane that leads away from it."""

    def __init__(self, away: Lane, towards: Lane, opened: Callable[[], None] | None = None) -> None:
        self.away, self.towards, self.opened = away, towards, opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        with contextlib.suppress(OSError):
            plain.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.away.source = self.towards.target = plain
        if self.opened is not None:
            self.opened()

    def data_received(self, data: bytes) -> None:
        self.away.put(data)

    def eof_received(self) -> bool:
        self.away.put(b"")
        return True  # the other direction may still have something to say

    def connection_lost(self, exc: Exception | None) -> None:
        self.away.put(b"")


async def run(listen: int, target: int, delay: float, host: str) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    def accept() -> End:
        out, back = Lane(delay), Lane(delay)
        out.other, back.other = back, out

        async def connect() -> None:
            try:
                await loop.create_connection(lambda: End(back, out), host, target)
            except OSError:
                back.put(b"")

        def opened() -> None:
            task = loop.create_task(connect())
            connecting.add(task)
            task.add_done_callback(connecting.discard)

        return End(out, back, opened)

    server = await loop.create_server(accept, host, listen, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("listen", type=int)
    parser.add_argument("target", type=int)
    parser.add_argument("--one-way-ms", type=float, default=25.0)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    if uvloop is not None:
        uvloop.install()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(arguments.listen, arguments.target, arguments.one_way_ms / 1000, arguments.host))


if __name__ == "__main__":
    main()
