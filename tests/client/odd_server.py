"""An HTTP server that does to each request what a test has planned for it, and remembers what was asked."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

Act = Callable[[asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; says whether the connection stays open."""


class Seen(NamedTuple):
    """One request that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


def says(status: int, body: object = None, **headers: str) -> Act:
    """Answer with a status and JSON, or with octets as they are; `Retry_After` is a header."""
    octets = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(octets))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    async def act(writer: asyncio.StreamWriter) -> bool:
        writer.write(head.encode() + b"\r\n" + octets)
        return fields.get("Connection") != "close"

    return act


def sent(identity: str = "0EH9T6WF1P8G") -> Act:
    """Answer as to a message that was accepted."""
    return says(202, {"id": identity, "status": "accepted", "recipients": []})


def streams(*octets: bytes) -> Act:
    """Answer with a stream of events, and close."""

    async def act(writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for each in octets:
            writer.write(each)
            await writer.drain()
        return False

    return act


async def resets(writer: asyncio.StreamWriter) -> bool:
    """Reset the connection."""
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def hangs_up(writer: asyncio.StreamWriter) -> bool:
    """Close without a word."""
    return False


async def breaks_off(writer: asyncio.StreamWriter) -> bool:
    """Close in the midst of an answer."""
    writer.write(b'HTTP/1.1 202 X\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"id":')
    return False


async def is_silent(writer: asyncio.StreamWriter) -> bool:
    """Say nothing until the client has gone."""
    while not writer.transport.is_closing():
        await asyncio.sleep(0.05)
    return False


class OddServer:
    """Does what `plan` has, one act a request; the last one again and again."""

    def __init__(self) -> None:
        self.plan: list[Act] = []
        self.seen: list[Seen] = []
        self.connections = 0
        self.reads_content = True
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, context: ssl.SSLContext | None = None) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"

    async def close(self) -> None:
        """Stop, and close all connections."""
        self._server.close()
        for each in self._writers:
            each.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        try:
            while await self._answer(reader, writer, number):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in head[1:] if line)
        body = await self._content(reader, headers) if self.reads_content else b""
        self.seen.append(Seen(method, target, headers, body, number))
        act = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        return await act(writer)

    async def _content(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body
