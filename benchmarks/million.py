"""Measures a relay with a million messages for 10,000 destinations, of which 1 % are dead and 1 % are slow.

usage: million.py [--messages 1000000] [--destinations 10000] [--watch 60] [--results FILE] [--work FOLDER]

The spool is filled through spool.sqlite. Then the relay is started on it twice, with MX delivery against name
servers and mail hosts on loopback addresses (port 25, so this runs as root): once with everything due in the coming
hours, as after a day of retries; once with everything due at the start. Each second a fresh message is sent to a
healthy destination, and timed until its host has it. Last, the scheduler alone passes all that is left.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import shlex
import smtplib
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from memory import MEBIBYTE, free_port, resident, wait_for_port
from results_file import RESULTS, describe_machine, write_section

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message, MessageIds
from smarthost.mail.route import Deliver, Route, Site
from smarthost.policy.limits import SiteLimits
from smarthost.queue.contents import Contents
from smarthost.queue.ready import ReadyQueue
from smarthost.queue.scheduler import Scheduler
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Fault

HOSTS = [f"127.77.0.{number}" for number in range(1, 5)]  # who answers for the healthy and the slow
REFUSES, HANGS = "127.78.0.1", "127.78.0.2"  # who answers for the dead
IN_FLIGHT = 5000  # accepts that wait for the disk at a time
SLOW = 2000  # milliseconds that a slow host takes for a reply
LIFETIME = 5 * 86400.0
HEADER = b"From: <a@sender.test>\r\nTo: <b@mass.test>\r\nSubject: waits\r\n\r\n"
CONFIG = """\
hostname = "relay.test"
data_directory = "{folder}/data"

[[listener]]
address = "127.0.0.1:{listen}"
tls = "none"
auth = "none"

[submission]
min_free_space = "16MiB"

[http]
address = ""

[dns]
servers = ["127.0.0.1:{dns}"]

[[route]]
name = "mass"
match = {{ }}
deliver = "mx"
tls = "none"
"""


def kind_of(destination: int) -> str:
    """Say what a destination is: one in a hundred is dead, one in a hundred slow."""
    return {13: "dead", 57: "slow"}.get(destination % 100, "healthy")


class Names(asyncio.DatagramProtocol):
    """A name server for dN.mass.test: an MX with a host of its own for each, at one of few addresses."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, address: object) -> None:
        """Answer one question."""
        end = data.index(b"\0", 12) + 5
        labels, place = [], 12
        while data[place]:
            labels.append(data[place + 1 : place + 1 + data[place]])
            place += 1 + data[place]
        kind = struct.unpack_from("!H", data, end - 4)[0]
        records = self._records(labels, kind)
        counts = struct.pack("!HHHH", 1, len(records), 0, 0)
        answer = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 3600, len(one)) + one for one in records)
        self._transport.sendto(data[:2] + b"\x84\x00" + counts + data[12:end] + answer, address)  # type: ignore[attr-defined]

    def _records(self, labels: list[bytes], kind: int) -> list[bytes]:
        if kind == 15 and len(labels) == 3:
            return [b"\0\x0a\2mx\xc0\x0c"]
        if kind != 1 or labels[0] != b"mx":
            return []
        destination = int(labels[1][1:])
        dead = (REFUSES, HANGS)[destination // 100 % 2]
        return [socket.inet_aton(dead if kind_of(destination) == "dead" else HOSTS[destination % len(HOSTS)])]


class Peers(NamedTuple):
    """What the relay talks to."""

    sinks: list[Sink]
    dns: int

    def took(self, name: str) -> bool:
        """Whether a fresh message has arrived."""
        return any(name in sink.counts.ids for sink in self.sinks)

    @property
    def messages(self) -> int:
        """Count what was taken."""
        return sum(sink.counts.messages for sink in self.sinks)

    @property
    def connections(self) -> int:
        """Count the most connections that were open."""
        return sum(sink.counts.connections_most for sink in self.sinks)


@contextlib.contextmanager
def peers_running() -> Iterator[Peers]:
    """Run name server and mail hosts in a thread of their own; and a host that accepts no connection."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    sinks = [Sink(SinkSettings(listen=f"{host}:25", keep=1)) for host in HOSTS]

    async def start() -> int:
        for sink in sinks:
            await sink.start()
        transport, _ = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
        return int(transport.get_extra_info("sockname")[1])

    hanging = socket.create_server((HANGS, 25), backlog=0)
    crowd = [socket.socket() for _ in range(8)]
    for each in crowd:
        each.setblocking(False)
        each.connect_ex((HANGS, 25))
    try:
        yield Peers(sinks, asyncio.run_coroutine_threadsafe(start(), loop).result(10))
    finally:
        for sink in sinks:
            asyncio.run_coroutine_threadsafe(sink.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for each in (hanging, *crowd):
            each.close()


async def fill(folder: Path, messages: int, destinations: int, size: int) -> float:
    """Put messages into an empty spool, for each destination in turn; give the seconds that it took."""
    loop = asyncio.get_running_loop()
    spool = SqliteSpool.open(folder, loop=loop, clock=time.time, on_fatal=print)
    begin, now = time.monotonic(), time.time()
    ids = MessageIds(spool.last_id)
    content = HEADER + (b"x" * 78 + b"\r\n") * ((size - len(HEADER)) // 80)
    room = asyncio.Semaphore(IN_FLIGHT)

    def done(fault: Fault | None) -> None:
        assert fault is None, fault
        room.release()

    try:
        for number in range(messages):
            await room.acquire()
            spool.accept(waiting(ids, number, number % destinations, content, (now, destinations)), done)
        for _ in range(IN_FLIGHT):
            await room.acquire()
    finally:
        await spool.close()
    return time.monotonic() - begin


def waiting(ids: MessageIds, number: int, destination: int, content: bytes, at: tuple[float, int]) -> Accepted:
    """Make a message of one of three users that came an hour ago, was tried once, and is due within four hours."""
    now, destinations = at
    domain = f"d{destination}.mass.test"
    local = f"slow-{SLOW}" if kind_of(destination) == "slow" else "250"
    recipient = Recipient(f"{local}@{domain}", domain)
    envelope = Envelope("a@sender.test", (recipient,))
    user = f"user{number // destinations % 3}"
    arrival = Arrival(now - 3600, "127.0.0.1:587", "127.0.0.1", "bench.test", user)
    message = Message(ids.mint(arrival.at), arrival, envelope, len(content))
    due = now + 900 + number * 7919 % 14100
    entry = Entry(message, 1, f"mass/{domain}", (recipient,), due, now + LIFETIME, now + 80_000, attempts=1, last="451")
    return Accepted(message, Content(content, "", len(content)), (entry,))


def make_due(folder: Path) -> None:
    """Make all entries due now, as after an hour without a network."""
    connection = sqlite3.connect(folder / "spool.db")
    with connection:
        connection.execute("UPDATE entry SET due = ?", (time.time() - 1,))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


class Run(NamedTuple):
    """What one run of the relay showed: resident octets, seconds, and how many messages the hosts took."""

    at_start: int
    largest: int
    delays: list[float]
    messages: int
    cpu: float
    seconds: float
    connections: int


def cpu_of(pid: int) -> float:
    """Give the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_relay(command: str, folder: Path, peers: Peers, destinations: int, watch: float) -> Run:
    """Start the relay, send a fresh message a second, and watch its memory and CPU for a time."""
    listen = free_port()
    (folder / "smarthost.toml").write_text(CONFIG.format(folder=folder, listen=listen, dns=peers.dns))
    with (folder / "output.log").open("ab") as log:
        relay = subprocess.Popen(shlex.split(command.format(dir=folder)), stdout=log, stderr=log)
    try:
        wait_for_port(listen, relay)
        before, begin, used = peers.messages, time.monotonic(), cpu_of(relay.pid)
        at_start = largest = resident(relay.pid)
        delays: list[float] = []
        number = 0
        while time.monotonic() - begin < watch:
            # In turn: a destination with a backlog of its own, and one that nothing waits for.
            number += 1
            place = 7 + 100 * (number * 37 % (destinations // 100)) if number % 2 else destinations + 100 * number
            delays.append(send_fresh(listen, peers, f"d{place}.mass.test", f"fresh-{os.getpid()}-{begin}-{number}"))
            end = time.monotonic() + 1.0 - min(delays[-1], 1.0)
            while time.monotonic() < end:
                largest = max(largest, resident(relay.pid))
                time.sleep(0.05)
        seconds = time.monotonic() - begin
        return Run(
            at_start, largest, delays, peers.messages - before, cpu_of(relay.pid) - used, seconds, peers.connections
        )
    finally:
        relay.terminate()
        relay.wait(60)


def send_fresh(listen: int, peers: Peers, domain: str, name: str) -> float:
    """Send one message; give the seconds from its 250 to its arrival, 60 at the most."""
    with smtplib.SMTP("127.0.0.1", listen, timeout=60) as client:
        client.sendmail(
            "a@sender.test", [f"250@{domain}"], HEADER.replace(b"Subject", b"X-Test-Id: %s\r\nSubject" % name.encode())
        )
        begin = time.monotonic()
    while not peers.took(name) and time.monotonic() - begin < 60:
        time.sleep(0.005)
    return time.monotonic() - begin


async def schedule(folder: Path) -> tuple[int, float]:
    """Let the scheduler alone pass what is due: read, offered, taken, deleted; give how many, and its CPU seconds."""
    loop = asyncio.get_running_loop()
    spool = SqliteSpool.open(folder, loop=loop, clock=time.time, on_fatal=print)
    scheduler = Scheduler(spool, Contents(), time.time)
    readies: dict[str, ReadyQueue] = {}
    route = Route("mass", Deliver.MX)
    passed: list[Entry] = []
    total = 0

    def take(entry: Entry) -> None:
        ready = readies.get(entry.queue)
        if ready is None:
            ready = readies[entry.queue] = ReadyQueue(Site(entry.queue, (), route, 0.0), SiteLimits())
        ready.push(entry)
        passed.append(ready.take())
        ready.done()

    scheduler.offer = scheduler.reoffer = take
    await scheduler.start()
    used = cpu_of_readers() + time.thread_time()
    while True:
        await asyncio.sleep(0.02)
        entries, passed[:] = list(passed), []
        if not entries and not scheduler.total and not (await spool.count())["total"]:
            break
        gone: asyncio.Future[Fault | None] = loop.create_future()
        spool.delete([entry.key for entry in entries], gone.set_result)
        await gone
        for entry in entries:
            entry.recipients = ()
            scheduler.settled(entry, entry.queue)
        total += len(entries)
    used = cpu_of_readers() + time.thread_time() - used
    await scheduler.stop()
    await spool.close()
    return total, used


def cpu_of_readers() -> float:
    """Give the CPU seconds of the spool's reader."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith("spool-reader")]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0)) for thread in found)


def report(
    runs: dict[str, Run], alone: tuple[int, float], filled: tuple[float, int], arguments: argparse.Namespace
) -> str:
    """Write the table."""
    lines = [
        f"{describe_machine()}. {arguments.messages:,} messages of {arguments.size:,} octets for "
        f"{arguments.destinations:,} destinations, of which 1 % are dead (half refuse, half hang) and 1 % take "
        f"{SLOW / 1000:g} s for each reply; written in {filled[0]:,.0f} s, {filled[1] / MEBIBYTE:,.0f} MiB on disk. "
        f"Each run was watched for {arguments.watch:g} s; peers ran on the same machine, whose load was "
        f"{os.getloadavg()[1]:.1f}. A fresh message went out each second, in turn to a healthy destination with "
        "a backlog (of other users) and to one without.",
        "",
        "| | " + " | ".join(runs) + " | goal |",
        "|---|" + "--:|" * len(runs) + "--:|",
    ]
    rows = {
        "resident at the start": (lambda run: f"{run.at_start / MEBIBYTE:.0f} MiB", ""),
        "largest resident": (lambda run: f"{run.largest / MEBIBYTE:.0f} MiB", "300 MB"),
        "250 to the fresh message's arrival, median": (lambda run: f"{statistics.median(run.delays):.3f} s", ""),
        "nine of ten within": (lambda run: f"{sorted(run.delays)[len(run.delays) * 9 // 10]:.3f} s", ""),
        "the longest of them": (lambda run: f"{max(run.delays):.3f} s", "1 s"),
        "how many were timed": (lambda run: f"{len(run.delays)}", ""),
        "messages relayed a second": (lambda run: f"{run.messages / run.seconds:,.0f}", ""),
        "CPU of the relay, cores": (lambda run: f"{run.cpu / run.seconds:.2f}", ""),
        "CPU a message relayed": (
            lambda run: f"{run.cpu / run.messages * 1e3:.2f} ms" if run.messages > 1000 else "",
            "",
        ),
    }
    for name, (cell, goal) in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(run) for run in runs.values()) + f" | {goal} |")
    count, used = alone
    lines += [
        "",
        "The scheduler alone (heads, reading, decoding, offering, the ready queue, settling in memory; loop and reader "
        f"threads, not the writer): {used / max(count, 1) * 1e6:.0f} µs CPU a message, over {count:,} (goal: 60).",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, fill, measure, write the table."""
    relay = Path(sys.executable).with_name("smarthost")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--destinations", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--watch", type=float, default=60.0, help="seconds for which each run is watched")
    parser.add_argument("--start", default=f"{relay} serve --config {{dir}}/smarthost.toml")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="where the spool goes [a temporary folder]")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.ExitStack() as stack:
        folder = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="million-")))
        folder.mkdir(parents=True, exist_ok=True)
        spool = folder / "data/spool"
        spool.mkdir(parents=True)
        peers = stack.enter_context(peers_running())
        taken = asyncio.run(fill(spool, arguments.messages, arguments.destinations, arguments.size))
        size = sum(os.stat(path).st_size for path in spool.rglob("*") if path.is_file())
        runs = {
            "waiting for a retry": run_relay(arguments.start, folder, peers, arguments.destinations, arguments.watch)
        }
        print(runs, flush=True)
        make_due(spool)
        runs["all due at the start"] = run_relay(
            arguments.start, folder, peers, arguments.destinations, arguments.watch
        )
        print(runs, flush=True)
        make_due(spool)
        alone = asyncio.run(schedule(spool))
        text = report(runs, alone, (taken, size), arguments)
        print(text)
        write_section(arguments.results, "A million messages for 10,000 destinations", text)


if __name__ == "__main__":
    main()
