"""A process that works on a spool and notes, in the file `answers` beside it, what it asked and what was answered.

Run as: crash_workload.py FOLDER SYNCHRONOUS ROUNDS. A line is one octet and a serial number: `a` accept asked,
`A` answered, `s` settle asked, `S` answered.
"""

import asyncio
import os
import sys
from pathlib import Path

from spool_samples import NOW, Waiting, done_with, sample, sample_id, sample_message

from smarthost.mail.entry import Entry
from smarthost.mail.event import Event, Kind, accepted_event
from smarthost.spool import database, reserve, schema
from smarthost.spool.sqlite import SqliteSpool, Tuning
from smarthost.spool.store import Accepted, Content, Fault, Settlement

PER_ROUND = 4
FILE_OCTETS = 30_000


def octets_of(serial: int) -> bytes:
    """Give the content of a message, of many sizes."""
    return b"%d:" % serial + bytes([65 + serial % 26]) * (serial * 977 % 9000)


def accepted_of(spool: SqliteSpool | None, serial: int) -> Accepted:
    """Make a message; every seventh has a content file, which is sealed here."""
    if serial % 7 or spool is None:
        return sample(serial, content=octets_of(serial))
    file = spool.new_file(sample_id(serial))
    file.write(octets_of(serial)[:1000])
    file.write(b"f" * FILE_OCTETS)
    file.seal()
    message = sample_message(serial, size=file.size)
    entry = Entry(message, 1, "relayhost", message.envelope.recipients, NOW, NOW + 9, NOW + 9)
    return Accepted(message, Content(b"", file.name, file.size), (entry,))


class Workload:
    """Accepts some messages in each round and settles most of the ones before."""

    def __init__(self, spool: SqliteSpool, answers: int) -> None:
        """Start with nothing asked."""
        self._spool = spool
        self._answers = answers

    def note(self, kind: str, serial: int) -> None:
        """Write a line."""
        os.write(self._answers, f"{kind}{serial}\n".encode())

    def accept(self, serial: int, waiting: Waiting) -> Entry:
        """Accept a message."""
        accepted = accepted_of(self._spool, serial)
        accepted.events = (accepted_event(accepted.message),)
        self.note("a", serial)
        self._spool.accept(accepted, self._noting("A", serial, waiting.more()))
        return accepted.entries[0]

    def settle(self, entry: Entry, serial: int, waiting: Waiting) -> None:
        """Settle a message."""
        self.note("s", serial)
        event = Event(time=NOW, event=Kind.RELAYED, message=entry.message.id)
        settlement = Settlement(done_with(entry).entry, (event,))
        self._spool.settle(settlement, self._noting("S", serial, waiting.more()))

    def _noting(self, kind: str, serial: int, waiting: Waiting):
        def done(fault: Fault | None) -> None:
            assert fault is None
            self.note(kind, serial)
            waiting(fault)

        return done


def fail(folder: Path, text: str) -> None:
    """Note what the spool said, and end a moment later, so that an answer that should not come could."""
    (folder / "fatal").write_text(text)
    asyncio.get_running_loop().call_later(0.1, os._exit, 0)


async def run(folder: Path, synchronous: str, rounds: int) -> None:
    """Work for some rounds, then end without closing the spool."""
    spool = SqliteSpool.open(
        folder,
        loop=asyncio.get_running_loop(),
        clock=lambda: NOW,
        on_fatal=lambda text: fail(folder, text),
        tuning=Tuning(synchronous=synchronous),
    )
    workload = Workload(spool, os.open(folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    first = (spool.last_id - sample_id(0) >> 4) + 1 if spool.last_id else 1
    before: list[tuple[Entry, int]] = []
    for turn in range(rounds):
        waiting = Waiting()
        start = first + turn * PER_ROUND
        fresh = [(workload.accept(serial, waiting), serial) for serial in range(start, start + PER_ROUND)]
        for entry, serial in before:
            if serial % 5:
                workload.settle(entry, serial, waiting)
        await waiting.all()
        before = fresh
    os._exit(0)


if __name__ == "__main__":
    schema.WAL_OCTETS = 300_000
    schema.CACHE_KIB = 64
    database._FREE_PAGES = 1
    reserve.RESERVE_OCTETS = 4096
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
