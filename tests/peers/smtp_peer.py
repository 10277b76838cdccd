"""A scripted SMTP peer on loopback: plays dialogs, one a connection, and notes what the client really wrote.

A dialog has one step a line: `->` a line that the client must send ("-> MAIL *" allows any rest; "-> ..." is content up
to and with its end; the octets behind BDAT are content, too), `<-` a line that the peer sends, `<~` octets as a Python
literal that it sends as they are, and `==` something else: tls, close, reset, hang (until the client closes), drip
(from now on octet by octet), stall N
(milliseconds), end (the client must close).
"""

import ast
import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress


class Departure(AssertionError):
    """The client did something else than the dialog says."""


class SmtpPeer:
    """What a test sees of the peer: where it listens, what it read and what went wrong.

    `reads` has, per connection, the octets of each read; `contents` the contents with their end.
    """

    def __init__(self, dialogs: Sequence[str], context: ssl.SSLContext | None, implicit_tls: bool) -> None:
        """Take one dialog for each connection that is expected."""
        self.dialogs = [[line.strip() for line in dialog.strip().splitlines() if line.strip()] for dialog in dialogs]
        self.context = context
        self.implicit_tls = implicit_tls
        self.port = 0
        self.reads: list[list[bytes]] = []
        self.contents: list[bytes] = []
        self.faults: list[BaseException] = []
        self.finished = 0

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the next dialog with a client that has connected."""
        number = len(self.reads)
        self.reads.append([])
        try:
            if number >= len(self.dialogs):
                raise Departure("a connection that no dialog is for")
            await Play(self, reader, writer, self.reads[number]).run(self.dialogs[number])
            self.finished += 1
        except (Departure, OSError, asyncio.IncompleteReadError) as fault:
            self.faults.append(fault)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()


class Play:
    """One dialog with one client."""

    def __init__(
        self, peer: SmtpPeer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reads: list[bytes]
    ) -> None:
        """Begin with nothing read."""
        self.peer, self.reader, self.writer, self.reads = peer, reader, writer, reads
        self.held = b""
        self.drips = False
        self.out = b""

    async def run(self, steps: Sequence[str]) -> None:
        """Go through the steps; what the peer sends in a row goes out in one write."""
        for step in steps:
            mark, _, text = step.partition(" ")
            if mark == "<-":
                self.out += text.encode() + b"\r\n"
            elif mark == "<~":
                self.out += ast.literal_eval(text)
            else:
                await self.send()
                if mark == "->":
                    await self.expect(text)
                elif mark == "==":
                    await self.act(text)
                else:
                    raise ValueError(f"not a step: {step}")
        await self.send()

    async def send(self) -> None:
        """Send what waits."""
        out, self.out = self.out, b""
        for piece in [out[at : at + 1] for at in range(len(out))] if self.drips else [out] if out else []:
            self.writer.write(piece)
            await self.writer.drain()
            if self.drips:
                await asyncio.sleep(0)

    async def expect(self, text: str) -> None:
        """Read one line, or a content, and compare."""
        if text == "...":
            while b"\r\n.\r\n" not in b"\r\n" + self.held:
                await self.read("content")
            end = (b"\r\n" + self.held).index(b"\r\n.\r\n") + 3
            self.peer.contents.append(self.held[:end])
            self.held = self.held[end:]
            return
        while b"\r\n" not in self.held:
            await self.read(text)
        line, _, self.held = self.held.partition(b"\r\n")
        got = line.decode()
        if not (got.startswith(text[:-1]) if text.endswith("*") else got == text):
            raise Departure(f"expected {text!r}, got {got!r}")
        if got.startswith("BDAT "):
            size = int(got.split()[1])
            while len(self.held) < size:
                await self.read("a chunk")
            self.peer.contents.append(self.held[:size])
            self.held = self.held[size:]

    async def read(self, what: str) -> None:
        """Read what is there; note it as one read."""
        data = await self.reader.read(1 << 20)
        if not data:
            raise Departure(f"closed while waiting for {what!r}, holding {self.held[:80]!r}")
        self.reads.append(data)
        self.held += data

    async def act(self, what: str) -> None:
        """Do what is neither reading nor writing."""
        verb, _, argument = what.partition(" ")
        if verb == "tls":
            assert self.peer.context is not None
            await self.writer.start_tls(self.peer.context, ssl_handshake_timeout=5)
        elif verb == "drip":
            self.drips = True
        elif verb == "close":
            self.writer.close()
        elif verb == "reset":
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        elif verb == "stall":
            await asyncio.sleep(int(argument) / 1000)
        elif verb == "end":
            if data := self.held or await self.reader.read(1 << 20):
                raise Departure(f"expected the end, got {data!r}")
        elif verb == "hang":
            # Who is kept waiting may go as it likes, by a reset, too.
            with suppress(ConnectionResetError):
                while await self.reader.read(1 << 20):
                    pass
        else:
            raise ValueError(f"not an act: {what}")


@asynccontextmanager
async def smtp_peer(
    *dialogs: str,
    context: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    complete: bool = True,
    host: str = "127.0.0.1",
) -> AsyncIterator[SmtpPeer]:
    """Listen on a free port; at the end, unless told otherwise, all dialogs must have been played to their end."""
    peer = SmtpPeer(dialogs, context, implicit_tls)
    plays: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        play = asyncio.ensure_future(peer.play(reader, writer))
        plays.add(play)
        play.add_done_callback(plays.discard)

    # A small receive buffer, so that a peer that does not read is soon felt at the other end.
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    peer.port = listener.getsockname()[1]
    server = await asyncio.start_server(connected, sock=listener, ssl=context if implicit_tls else None, limit=1 << 18)
    try:
        yield peer
        if complete:
            await wait_for(lambda: peer.finished == len(peer.dialogs) or bool(peer.faults))
            assert not peer.faults, peer.faults
    finally:
        server.close()
        for play in tuple(plays):
            play.cancel()
        await asyncio.gather(*plays, return_exceptions=True)


async def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something is true; fails after some seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
