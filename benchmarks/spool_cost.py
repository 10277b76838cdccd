"""Measures what the SQLite spool costs: CPU and wall time per message for accept + settle, by batch and content size.

Each batch holds as many accepts as settles of the batch before it, as under steady load. Run: python spool_cost.py
[--messages N] [--folder FOLDER] [--history]; the folder should be on the disk that is meant, not on tmpfs.
"""

import argparse
import asyncio
import gc
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import uvloop

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Arrival, Message, MessageIds
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Fault, Settlement

BATCHES = (1, 8, 16, 32, 64)
SIZES = (2_048, 10_240)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Load:
    """Accepts batch after batch and settles what was accepted in the batch before."""

    def __init__(self, spool: SqliteSpool, batch: int, size: int, messages: int, history: bool) -> None:
        self.spool, self.batch, self.left, self.history = spool, batch, messages, history
        self.content = Content(os.urandom(size), "", size)
        self.ids = MessageIds()
        self.open: list[Entry] = []
        self.waiting = 0
        self.made = [self.make() for _ in range(messages)]
        self.finished = asyncio.get_running_loop().create_future()

    def start_batch(self) -> None:
        settled, self.open = self.open, []
        count = min(self.batch, self.left)
        self.left -= count
        if not count and not settled:
            self.finished.set_result(None)
            return
        self.waiting = count + len(settled)
        for entry in settled:
            entry.recipients = ()
            self.spool.settle(Settlement(entry, self.events(entry)), self.done)
        accepts = self.made[self.left : self.left + count]
        for accepted in accepts:
            self.open += accepted.entries
            self.spool.accept(accepted, self.done)

    def make(self) -> Accepted:
        now = time.time()
        recipients = (Recipient("someone@customer.example.net", "customer.example.net"),)
        arrival = Arrival(now, "127.0.0.1:2587", "192.0.2.7", "app.example.org", "app", "ESMTPSA", "TLSv1.3")
        envelope = Envelope("bounces@app.example.org", recipients)
        message = Message(self.ids.mint(now), arrival, envelope, self.content.size)
        entry = Entry(message, 1, "relayhost", recipients, now, now + 432_000, now + 14_400)
        return Accepted(message, self.content, (entry,))

    def events(self, entry: Entry) -> tuple[Event, ...]:
        if not self.history:
            return ()
        recipient = entry.message.envelope.recipients[0].address
        return (
            Event(
                time=time.time(),
                event=Kind.RELAYED,
                message=entry.message.id,
                recipient=recipient,
                site="relayhost",
                host="mx.example.net",
                code=250,
                reply="2.0.0 ok queued as 12345",
            ),
        )

    def done(self, fault: Fault | None) -> None:
        assert fault is None
        self.waiting -= 1
        if not self.waiting:
            self.start_batch()


async def measure(folder: Path, batch: int, size: int, messages: int, history: bool) -> tuple[float, ...]:
    spool = SqliteSpool.open(folder, loop=asyncio.get_running_loop(), clock=time.time, on_fatal=print)
    load = Load(spool, batch, size, messages, history)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the relay does
    cpu, wall = cpu_seconds(), time.perf_counter()
    load.start_batch()
    await load.finished
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    stats = spool.stats
    await spool.close()
    shutil.rmtree(folder)
    commit = stats.commit_seconds_sum / stats.commits * 1000
    mean = stats.batch_sizes_sum / 2 / stats.commits
    return cpu / messages * 1e6, wall / messages * 1e6, commit, mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3, help="the one with the least CPU is shown")
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--history", action="store_true", help="with one event a message, as in production")
    asked = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="spool-cost-", dir=asked.folder))
    print(f"{'octets':>7} {'batch':>6} {'mean':>7} {'CPU us':>8} {'wall us':>8} {'commit ms':>9}")
    for size in asked.sizes:
        for batch in asked.batches:
            messages = asked.messages if batch > 1 else asked.messages // 4
            runs = [
                uvloop.run(measure(top / "spool", batch, size, messages, asked.history)) for _ in range(asked.rounds)
            ]
            cpu, wall, commit, mean = min(runs)
            print(f"{size:>7} {batch:>6} {mean:>7.1f} {cpu:>8.1f} {wall:>8.1f} {commit:>9.2f}", flush=True)
    top.rmdir()


if __name__ == "__main__":
    main()
