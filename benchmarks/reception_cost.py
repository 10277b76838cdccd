"""What the door costs in CPU time, by part: a connection, and a message of 10 KB, with an intake that keeps nothing.

Run: python benchmarks/reception_cost.py [--loop asyncio|uvloop]. The door runs in a process of its own, whose CPU time
is read from it before and after; the client is a blocking socket in this one.
"""

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import uvloop

from smarthost.mail.envelope import Envelope
from smarthost.mail.message import Arrival
from smarthost.mail.reply import Reply, make_reply
from smarthost.policy.admission import Listener, Submission, Tls
from smarthost.reception.accept import Door
from smarthost.reception.credentials import Credentials
from smarthost.reception.parts import Parts
from smarthost.reception.terms import Terms
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed

CONTENT = b"Subject: cost\r\n\r\n" + (b"x" * 76 + b"\r\n") * 130 + b".\r\n"
QUEUED = make_reply(250, "2.0.0", "queued as NOTHING")


class NullDraft:
    def __init__(self) -> None:
        self.refused: Reply | None = None
        self.backlog = 0
        self.is_dotted = True
        self.on_drained: Callable[[], None] | None = None

    def write(self, block: bytes) -> None:
        pass

    def commit(self, done: Callable[[Reply], None]) -> None:
        done(QUEUED)

    def abandon(self) -> None:
        pass


class NullIntake:
    def begin(self, arrival: Arrival, envelope: Envelope) -> NullDraft:
        return NullDraft()


async def serve(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    parts = Parts(
        intake=NullIntake(),
        credentials=Credentials((), time.time),
        feed=Feed(),
        counters=Counters(),
        clock=time.time,
        route_refusal=lambda reverse_path, recipient, identity: None,
        has_space=lambda: True,
    )
    door = Door(Terms("relay.example", "", Submission()), parts, loop)
    (address,) = await door.open(Listener("127.0.0.1:0", tls=Tls.NONE), {})
    ended = loop.create_future()

    def answer() -> None:
        question = pipe.recv()
        if question == "end":
            loop.remove_reader(pipe.fileno())
            ended.set_result(None)
        else:
            pipe.send(time.process_time())

    loop.add_reader(pipe.fileno(), answer)
    pipe.send(int(address.rpartition(":")[2]))
    await ended
    await door.drain(1)


def run_server(pipe: Connection, loop_name: str) -> None:
    factory = uvloop.new_event_loop if loop_name == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(pipe))


def ask(client: socket.socket, octets: bytes, replies: int) -> None:
    client.sendall(octets)
    seen = 0
    while seen < replies:
        seen += client.recv(65536).count(b"\r\n")


def connections(port: int, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(client, b"", 1)
            ask(client, b"EHLO client.example\r\n", 8)
            ask(client, b"QUIT\r\n", 1)
            client.recv(1)


def messages(port: int, count: int, *, pipelined: bool) -> None:
    commands = (b"MAIL FROM:<a@example.org> SIZE=10000\r\n", b"RCPT TO:<b@example.net>\r\n", b"DATA\r\n")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(client, b"", 1)
        ask(client, b"EHLO client.example\r\n", 8)
        for _ in range(count):
            if pipelined:
                ask(client, b"".join(commands), 3)
            else:
                for command in commands:
                    ask(client, command, 1)
            ask(client, CONTENT, 1)


def measure(loop_name: str, rounds: int) -> None:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=run_server, args=(there, loop_name))
    server.start()
    port = here.recv()

    def cost(work: Callable[[], None], count: int) -> float:
        found = []
        for _ in range(rounds):
            here.send("time")
            before = here.recv()
            work()
            here.send("time")
            found.append((here.recv() - before) / count * 1e6)
        return statistics.median(found)

    connections(port, 200)
    messages(port, 200, pipelined=True)
    print(f"{loop_name}: CPU of the door, median of {rounds} rounds")
    print(f"  connection, EHLO, QUIT             {cost(lambda: connections(port, 2000), 2000):6.1f} us")
    print(f"  message 10 KB, commands pipelined  {cost(lambda: messages(port, 5000, pipelined=True), 5000):6.1f} us")
    print(f"  message 10 KB, one by one          {cost(lambda: messages(port, 5000, pipelined=False), 5000):6.1f} us")
    here.send("end")
    server.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    measure(chosen.loop, chosen.rounds)
