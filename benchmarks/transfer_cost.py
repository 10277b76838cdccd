"""Measures what one message costs a Transfer: CPU of this process, with a trivial sink in another on loopback.

The floor, measured beside it, is the same octets in the same writes by a protocol that looks at nothing: system calls
and the event loop. What is above it is ours.

Usage: transfer_cost.py [messages] [octets] [sessions]
"""

import asyncio
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection

import uvloop

from smarthost.delivery.transfer import Ending, Job, Terms, Transfer
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Outcome
from smarthost.mail.route import Host, TlsLevel
from smarthost.network.session import Session, SessionSettings, Timeouts, open_session
from smarthost.policy.limits import SiteLimits
from smarthost.spool.store import Content

EHLO = b"250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n"
OK, GO = b"250 2.0.0 Ok\r\n", b"354 Go\r\n"


class Sink(asyncio.Protocol):
    """Answers as fast as it can; looks at no more than the end of each line and content."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.held, self.in_content = transport, b"", False
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        held, out = self.held + data, []
        while held:
            if self.in_content:
                end = held.find(b"\r\n.\r\n")
                if end < 0:
                    break
                held, self.in_content = held[end + 5 :], False
                out.append(OK)
                continue
            line, found, rest = held.partition(b"\r\n")
            if not found:
                break
            held = rest
            if line == b"DATA":
                self.in_content = True
                out.append(GO)
            else:
                out.append(EHLO if line.startswith(b"EHLO") else OK)
        self.held = held
        self.transport.write(b"".join(out))


def serve(pipe: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run(), loop_factory=uvloop.new_event_loop) if sys.version_info >= (3, 12) else uvloop.run(run())


class Load:
    """Hands out the same message again and again."""

    def __init__(self, messages: int, octets: int) -> None:
        self.left = self.open = messages
        line = b"x" * 76 + b"\r\n"
        content = b"Subject: cost\r\n\r\n" + line * (octets // len(line))
        recipient = Recipient("someone@example.org", "example.org")
        envelope = Envelope("app@example.com", (recipient,))
        message = Message(16, Arrival(0.0), envelope, len(content))
        self.entry = Entry(message, 0, "default", (recipient,), 0.0, 9e9, 9e9)
        self.content = Content(content, "", len(content))
        self.done = asyncio.Event()

    def next_job(self, transfer: Transfer) -> Job | None:
        if not self.left:
            return None
        self.left -= 1
        return Job(self.entry, self.entry.recipients, self.content, 0.0)

    def finished(self, transfer: Transfer, job: Job, outcomes: list[Outcome], again: object, started: float) -> None:
        assert outcomes[0].action == "relayed", outcomes
        self.open -= 1
        if not self.open:
            self.done.set()

    def lost(self, transfer: Transfer, ending: Ending) -> None:
        raise AssertionError(ending)


class Bare(asyncio.Protocol):
    """Writes the same octets in the same rhythm, and does nothing else."""

    def __init__(self, load: Load) -> None:
        self.load = load
        envelope = b"MAIL FROM:<app@example.com> SIZE=10240\r\nRCPT TO:<someone@example.org>\r\nDATA\r\n"
        self.first, self.again = envelope, load.content.head + b".\r\n" + envelope

    def data_received(self, data: bytes) -> None:
        if not data.endswith(GO):
            return
        self.load.open -= 1
        if self.load.open <= 0:
            self.load.done.set()
        else:
            self.transport.write(self.again)


async def measure_floor(port: int, messages: int, octets: int, sessions: int) -> float:
    load = Load(messages, octets)
    loop = asyncio.get_running_loop()
    bare = []
    for _ in range(sessions):
        protocol = Bare(load)
        protocol.transport, _ = await loop.create_connection(lambda made=protocol: made, "127.0.0.1", port)
        bare.append(protocol)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for protocol in bare:
        protocol.transport.write(protocol.first)
    await load.done.wait()
    after = resource.getrusage(resource.RUSAGE_SELF)
    for protocol in bare:
        protocol.transport.abort()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def measure(port: int, messages: int, octets: int, sessions: int) -> tuple[float, float]:
    load = Load(messages, octets)
    limits = SiteLimits(max_messages_per_connection=messages + 1)
    terms = Terms(None, limits=limits)
    settings = SessionSettings("bench.example", TlsLevel.NONE)
    host = Host("sink", ("127.0.0.1",), port)
    transfers = []
    for _ in range(sessions):
        session = await open_session(host, "127.0.0.1", settings, None, Timeouts(), time.time)
        assert isinstance(session, Session), session
        transfers.append(Transfer(session, load.next_job, load.finished, load.lost, terms, time.time))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for transfer in transfers:
        transfer.start()
    await load.done.wait()
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    messages, octets, sessions = (int(a) for a in [*sys.argv[1:], *("20000", "10240", "4")[len(sys.argv) - 1 :]])
    ours, theirs = multiprocessing.Pipe()
    sink = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    sink.start()
    port = ours.recv()
    for _ in range(3):
        floor = uvloop.run(measure_floor(port, messages, octets, sessions))
        cpu, wall = uvloop.run(measure(port, messages, octets, sessions))
        print(
            f"{octets} octets, {sessions} sessions: {cpu / messages * 1e6:.1f} us CPU a message,"
            f" floor {floor / messages * 1e6:.1f} us, {messages / wall:.0f} messages/s"
        )
    sink.terminate()


if __name__ == "__main__":
    main()
