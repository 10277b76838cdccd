"""Measures the relay's resident memory: after its start, and with a million messages for one dead destination.

usage: memory.py [--messages 1000000] [--size 2048] [--due SECONDS] [--results FILE]

The spool is filled through spool.sqlite, as the relay itself would write it. Then the relay is started on it; timed is
how long it takes until the first fresh message to another destination has arrived upstream.
"""

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relay_config import add_dead_route, write_config
from results_file import RESULTS, describe_machine, write_section

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message, MessageIds
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Fault

IN_FLIGHT = 5000  # accepts that wait for the disk at a time
LIFETIME = 5 * 86400.0
MEBIBYTE = 2**20
HEADER = b"From: <a@sender.test>\r\nTo: <b@dead.test>\r\nSubject: waits\r\n\r\n"


class Measured(NamedTuple):
    """What one run of the relay showed: resident octets, and seconds from its start to the delivery."""

    at_start: int
    largest: int
    ready: float
    delivered: float


async def fill(folder: Path, messages: int, size: int, due: float) -> float:
    """Put messages into an empty spool that wait in the queue "dead"; give the seconds that it took."""
    loop = asyncio.get_running_loop()
    spool = SqliteSpool.open(folder, loop=loop, clock=time.time, on_fatal=lambda why: print(why, file=sys.stderr))
    begin, now = time.monotonic(), time.time()
    ids = MessageIds(spool.last_id)
    content = HEADER + (b"x" * 78 + b"\r\n") * ((size - len(HEADER)) // 80)
    room = asyncio.Semaphore(IN_FLIGHT)

    def done(fault: Fault | None) -> None:
        if fault is not None:
            print(f"not written: {fault}", file=sys.stderr)
        room.release()

    try:
        for number in range(messages):
            await room.acquire()
            spool.accept(waiting_message(ids, number, content, now - 3600, due), done)
        for _ in range(IN_FLIGHT):
            await room.acquire()
    finally:
        await spool.close()
    return time.monotonic() - begin


def waiting_message(ids: MessageIds, number: int, content: bytes, at: float, due: float) -> Accepted:
    """Make one message that came in at a time and is due so many seconds after it, or was, when negative."""
    recipient = Recipient(f"user{number}@dead.test", "dead.test")
    envelope = Envelope("a@sender.test", (recipient,))
    message = Message(ids.mint(at), Arrival(at, "127.0.0.1:25", "127.0.0.1", "bench.test"), envelope, len(content))
    entry = Entry(
        message, 1, "dead", (recipient,), at + due, at + LIFETIME, at + 4 * 3600, attempts=1, last="connection refused"
    )
    return Accepted(message, Content(content, "", len(content)), (entry,))


def resident(pid: int) -> int:
    """Give the resident octets of a process."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def free_port() -> int:
    """Find a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def sink_running() -> Iterator[tuple[Sink, int]]:
    """Run the upstream in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    sink = Sink(SinkSettings())
    try:
        yield sink, asyncio.run_coroutine_threadsafe(sink.start(), loop).result(10)[1]
    finally:
        asyncio.run_coroutine_threadsafe(sink.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def run_relay(command: str, folder: Path, listen: int, sink: Sink, watch: float) -> Measured:
    """Start the relay, send one message as soon as it listens, and watch its memory for a time."""
    begin = time.monotonic()
    with (folder / "output.log").open("ab") as log:
        relay = subprocess.Popen(shlex.split(command.format(dir=folder, listen=listen)), stdout=log, stderr=log)
    try:
        wait_for_port(listen, relay)
        ready = time.monotonic() - begin
        before = sink.counts.messages
        with smtplib.SMTP("127.0.0.1", listen, timeout=60) as client:
            client.sendmail("a@sender.test", ["fresh@other.test"], HEADER + b"hello\r\n")
        while sink.counts.messages == before and time.monotonic() - begin < 300:
            time.sleep(0.001)
        delivered = time.monotonic() - begin
        at_start = largest = resident(relay.pid)
        end = time.monotonic() + watch
        while time.monotonic() < end:
            largest = max(largest, resident(relay.pid))
            time.sleep(0.2)
        return Measured(at_start, largest, ready, delivered)
    finally:
        relay.terminate()
        relay.wait(60)


def wait_for_port(port: int, relay: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens; raises SystemExit when the relay ends before or 5 minutes pass."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if relay.poll() is not None:
            raise SystemExit(f"the relay ended with {relay.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.005)
    raise SystemExit("the relay does not listen")


def report(empty: Measured, full: Measured, filled: float, spool_size: int, arguments: argparse.Namespace) -> str:
    """Write the table."""
    state = "due now" if arguments.due <= 3600 else f"due in {arguments.due - 3600:,.0f} s"
    rows = [
        (
            "resident after the first delivery",
            *(f"{run.at_start / MEBIBYTE:.0f} MiB" for run in (empty, full)),
            "80 MB empty",
        ),
        ("largest resident", *(f"{run.largest / MEBIBYTE:.0f} MiB" for run in (empty, full)), "250 MB full"),
        ("start of the process to its port open", *(f"{run.ready:.2f} s" for run in (empty, full)), ""),
        ("start to a fresh message delivered", *(f"{run.delivered:.2f} s" for run in (empty, full)), "2 s full"),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"{describe_machine()}. One process; VmRSS, watched for {arguments.watch:g} s. The full queue: "
        f"{arguments.messages:,} messages of {arguments.size:,} octets for one dead destination, {state}; "
        f"written in {filled:,.0f} s, {spool_size / MEBIBYTE:,.0f} MiB on disk.\n\n"
        f"| | empty queue | full queue | goal |\n|---|--:|--:|--:|\n{table}\n"
    )


def main() -> None:
    """Read the arguments, fill, measure, write the table."""
    relay = Path(sys.executable).with_name("smarthost")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--due", type=float, default=0.0, help="seconds after arrival, which was an hour ago")
    parser.add_argument("--watch", type=float, default=60.0, help="seconds to watch the memory for")
    parser.add_argument("--start", default=f"{relay} serve --config {{dir}}/smarthost.toml")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="where the spool goes [a temporary folder]")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        sink, upstream = stack.enter_context(sink_running())
        listen = free_port()
        add_dead_route(write_config(folder, listen, upstream), 1)  # nobody listens at port 1
        empty = run_relay(arguments.start, folder, listen, sink, min(arguments.watch, 10))
        spool = folder / "data/spool"
        filled = asyncio.run(fill(spool, arguments.messages, arguments.size, arguments.due))
        size = sum(os.stat(path).st_size for path in spool.rglob("*") if path.is_file())
        full = run_relay(arguments.start, folder, listen, sink, arguments.watch)
        text = report(empty, full, filled, size, arguments)
        print(text)
        write_section(arguments.results, "Memory", text)


if __name__ == "__main__":
    main()
