"""Control: serves a person's commands on a Unix socket, as lines of JSON."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec

from smarthost.control_socket import bind_control_socket
from smarthost.control_verbs import VERBS, Operations, Refusal, Row

REQUEST_SIZE = 1024 * 1024  # octets of one request: some 70,000 message ids
MAX_CLIENTS = 32
REQUEST_TIME = 60.0  # seconds in which a client sends its next request
SEND_TIME = 60.0  # seconds in which a client takes what waits for it
SEND_BUFFER = 256 * 1024  # octets that wait for a slow client before the work itself waits

_log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line from a client."""

    verb: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class ControlServer:
    """Reads {"verb", "arguments"}, answers {"row": ...}* and then one {"done": ...} or {"problem": ...}, line by line.

    A client may send one request after the other; the answers come in the same order. A client that is slow makes its
    own work wait: rows are asked for only when there is room to send them.
    """

    def __init__(self, path: Path, operations: Operations) -> None:
        """Serve `operations` on a socket at this path, once started."""
        self._path = path
        self._operations = operations
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._inode = 0

    async def start(self) -> None:
        """Bind with mode 0600 and listen; raises ControlBusy when another relay is there, or OSError."""
        bound = bind_control_socket(self._path)
        self._inode = self._path.lstat().st_ino
        self._server = await asyncio.start_unix_server(self._meet, sock=bound, limit=REQUEST_SIZE)

    async def stop(self) -> None:
        """Listen no more, end the clients, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        try:
            # A relay that started meanwhile has a socket of its own under this name.
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        connection = _Connection(reader, writer, self._operations)
        try:
            if len(self._clients) > MAX_CLIENTS:
                await connection.send(_problem(Refusal(503, "Too many clients", f"at most {MAX_CLIENTS} at a time")))
            else:
                await connection.serve()
            await connection.close()
        except (ConnectionError, TimeoutError):
            pass  # the client went away, or stopped reading
        finally:
            self._clients.discard(client)
            writer.transport.abort()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, operations: Operations) -> None:
        self._reader = reader
        self._writer = writer
        self._operations = operations
        writer.transport.set_write_buffer_limits(high=SEND_BUFFER)

    async def serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REQUEST_TIME):
                    line = await self._reader.readline()
            except ValueError:
                await self.send(_problem(Refusal(413, "Request too large", f"at most {REQUEST_SIZE} octets")))
                return
            if not line:
                return
            try:
                await self._answer(line)
            except Refusal as refusal:
                await self.send(_problem(refusal))
            except (ConnectionError, TimeoutError):
                raise
            except Exception:
                _log.exception("a control request failed")
                await self.send(_problem(Refusal(500, "Internal error", "the relay's log has the reason")))

    async def send(self, line: dict[str, Any]) -> None:
        self._writer.write(msgspec.json.encode(line) + b"\n")
        # A timer only when the client is behind.
        if self._writer.transport.get_write_buffer_size() > SEND_BUFFER:
            async with asyncio.timeout(SEND_TIME):
                await self._writer.drain()

    async def close(self) -> None:
        """Wait until the client has taken everything."""
        self._writer.close()
        async with asyncio.timeout(SEND_TIME):
            await self._writer.wait_closed()

    async def _answer(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
            verb = VERBS.get(request.verb)
            if verb is None:
                raise Refusal(404, "No such verb", f"{request.verb[:80]!r}: there are {', '.join(VERBS)}")
            arguments = msgspec.json.decode(request.arguments, type=verb.arguments)
        except msgspec.DecodeError as error:
            raise Refusal(400, "Bad request", str(error)) from None
        done: Row = {}
        if verb.one is not None:
            done = await verb.one(self._operations, arguments)
        elif verb.rows is not None:
            rows = 0
            async for row in verb.rows(self._operations, arguments):
                await self.send({"row": row})
                rows += 1
            done = {"rows": rows}
        await self.send({"done": done})


def _problem(refusal: Refusal) -> dict[str, Any]:
    """Write a refusal as a problem document (RFC 9457)."""
    problem = {"type": "about:blank", "title": refusal.title, "detail": refusal.detail, "status": refusal.status}
    return {"problem": problem}
