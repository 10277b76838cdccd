"""An HTTP server on loopback for tests: answers what it is told to, or hangs, or closes, and knows what was asked."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import msgspec


class Asked(msgspec.Struct):
    """One question: method, target, headers by their names in lower case, and body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[Asked], "Awaitable[bytes | None]"]


def answer(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    """Write an answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


class HttpPeer:
    """Listens on loopback. `answers` gives the octets of each answer, None to close without one; it may wait."""

    def __init__(self, answers: Answering) -> None:
        """Answer by a function."""
        self.answers = answers
        self.asked: list[Asked] = []
        self.open = self.most_open = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        """Listen; `url` tells where."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def stop(self) -> None:
        """Stop listening, and end what hangs."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    octets = await self.answers(asked)
                finally:
                    self.open -= 1
                if octets is None:
                    return
                writer.write(octets)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)
