"""SqliteSpool: the embedded durable store; a writer and a reader on one database, and content files beside it."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from smarthost.mail.entry import PARKED, Entry
from smarthost.mail.event import Event
from smarthost.mail.record import RecordKey
from smarthost.policy.ledger import LimitState
from smarthost.spool import recovery, schema
from smarthost.spool.batch import Part
from smarthost.spool.content import FOLDER, ContentFolder, DiskFile, sync_folder
from smarthost.spool.cursor import number_at
from smarthost.spool.database import Database
from smarthost.spool.event_log import StoredEventLog
from smarthost.spool.match import Matcher
from smarthost.spool.reader import Reader
from smarthost.spool.record import Row, entry_row, message_row, record_row
from smarthost.spool.records import StoredRecords
from smarthost.spool.reserve import Reserve
from smarthost.spool.stats import Stats
from smarthost.spool.store import (
    Accepted,
    Change,
    Content,
    Done,
    Fault,
    Filter,
    Group,
    Pulled,
    QueueHead,
    Settlement,
    Space,
)
from smarthost.spool.suppressions import StoredSuppressions
from smarthost.spool.writer import Writer

_CHUNK = 500  # rows a question, so that a long search does not keep the scheduler's questions waiting


class Tuning(msgspec.Struct, frozen=True):
    """What may be tuned: `gather` see `Writer`; `synchronous` OFF exists to show that the power-cut test works."""

    gather: float = 0.0
    synchronous: str = "FULL"


class SqliteSpool:
    """A `store.Spool` in a folder: `Done(None)` comes after the sync of the log that holds the rows."""

    def __init__(
        self,
        folder: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        on_fatal: Callable[[str], None],
        tuning: Tuning,
    ) -> None:
        """Open and recover a folder; `open` says how and what is raised."""
        _make_folders(folder)
        self._folder = folder
        self._clock = clock
        self._lock = recovery.lock(folder)
        try:
            connection, self.recovered = recovery.recover(folder, clock())
        except BaseException:
            os.close(self._lock)
            raise
        connection.execute(f"PRAGMA synchronous = {tuning.synchronous}")
        self.stats = Stats()
        reserve = Reserve(folder)
        self._contents = ContentFolder(folder / FOLDER, reserve)
        self._database = Database(connection, folder, self._contents, self.stats)
        self._reader = Reader(folder / schema.DATABASE, loop, on_fatal)
        self._writer = Writer(self._database, reserve, loop, on_fatal, tuning.gather)
        self.suppressions = StoredSuppressions(self._reader, self._writer)
        self.records = StoredRecords(self._reader, self._writer)
        self.event_log = StoredEventLog(self._reader, lambda: self._database.log_number, self._writer.signals)
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        on_fatal: Callable[[str], None],
        tuning: Tuning | None = None,
    ) -> "SqliteSpool":
        """Open a spool, recover it and start its threads; makes the folder when it is missing. Blocks.

        `on_fatal` is called on the loop when the state on disk is unknown: nothing is answered or written from then
        on, and the program shall end. `recovered` tells what was found. Raises SpoolError with a sentence, and OSError.
        """
        return cls(folder, loop=loop, clock=clock, on_fatal=on_fatal, tuning=tuning or Tuning())

    @property
    def last_id(self) -> int:
        """The highest message id that was ever made durable."""
        return self._database.last_id

    @property
    def settles_stuck(self) -> bool:
        """Whether settles wait in memory because the disk is full."""
        return self._writer.settles_stuck

    @property
    def gather(self) -> float:
        """Seconds that the writer waits for more accepts after a batch with more than one."""
        return self._writer.gather

    @gather.setter
    def gather(self, seconds: float) -> None:
        self._writer.gather = seconds

    def new_file(self, message: int) -> DiskFile:
        """Start the content file of a message id; raises OSError."""
        return self._contents.new(message)

    def free_space(self) -> Space:
        """Measure the file system under the spool; raises OSError."""
        found = os.statvfs(self._folder)
        inodes = found.f_favail / found.f_files if found.f_files else 1.0
        return Space(found.f_bavail / max(found.f_blocks, 1), found.f_bavail * found.f_frsize, inodes)

    def accept(self, accepted: Accepted, done: Done) -> None:
        """Make a message durable; an accept starts a commit at once."""
        rows = self._rows(accepted)
        records = {each.key: record_row(each) for each in accepted.records} if accepted.records else None

        def fill(part: Part) -> None:
            part.add_message(*rows)
            part.events += accepted.events
            if records:
                part.records |= records
            part.dones.append(done)

        self._writer.accept(fill)

    def accept_group(self, group: Group, done: Done) -> None:
        """Make a group durable: it is added at once, so that no commit can come in between."""
        rows = [self._rows(accepted) for accepted, _ in group.accepted]
        records: dict[RecordKey, Row | None] = dict.fromkeys(group.removed)
        for accepted, _ in group.accepted:
            records |= {each.key: record_row(each) for each in accepted.records}
        records |= {each.key: record_row(each) for each in group.records}

        def fill(part: Part) -> None:
            for row in rows:
                part.add_message(*row)
            for accepted, told in group.accepted:
                part.events += accepted.events
                part.dones.append(told)
            part.events += group.events
            part.records |= records
            part.dones.append(done)

        self._writer.accept(fill)

    def settle(self, settlement: Settlement, done: Done) -> None:
        """Make an attempt's result durable, with its events and reports."""
        reports = [self._rows(report) for report in settlement.reports] if settlement.reports else []
        events = settlement.events
        if reports:
            events = (*events, *(event for report in settlement.reports for event in report.events))

        def fill(part: Part) -> None:
            part.settle(settlement)
            part.events += events
            for rows in reports:
                part.add_message(*rows)
            part.dones.append(done)

        self._writer.settle(fill)

    def record(self, events: Sequence[Event]) -> None:
        """Add events to the history with the next transaction."""
        kept = tuple(events)
        self._writer.settle(lambda part: part.events.extend(kept))

    def change(self, change: Change, done: Done) -> None:
        """Do what a person asked to entries, in one transaction."""

        def fill(part: Part) -> None:
            part.change(change)
            part.dones.append(done)

        self._writer.settle(fill)

    def delete(self, keys: Sequence[tuple[int, int]], done: Done) -> None:
        """Delete entries, and messages that lose their last one."""
        self.change(Change(removed=tuple(keys)), done)

    def keep_limits(self, states: Sequence[LimitState], done: Done) -> None:
        """Write what is remembered of limits, with the settles that wait."""
        rows = {state.name: state.state for state in states}

        def fill(part: Part) -> None:
            part.limits |= rows
            part.dones.append(done)

        self._writer.settle(fill)

    async def limit_states(self) -> list[LimitState]:
        """Give all that is remembered of limits, by name."""
        return await self._reader.ask(self._reader.limit_states)

    def _rows(self, accepted: Accepted) -> tuple[Row, bytes, list[Row]]:
        message, content = accepted.message, accepted.content
        sealed = self._contents.take_sealed(content.file, message.id) if content.file else (0, 0)
        row = message_row(message, content, sealed)
        return row, content.head, [entry_row(entry) for entry in accepted.entries]

    async def heads(self) -> list[QueueHead]:
        """Give every lane of every queue that has an entry with a due time, with the earliest one."""
        found: list[QueueHead] = []
        while True:
            after = (found[-1].queue, found[-1].lane) if found else ("", "")
            chunk = await self._reader.ask(self._reader.heads, after, _CHUNK)
            found += chunk
            if len(chunk) < _CHUNK:
                return found

    async def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Give at most `limit` entries of a queue's lane that are due before a time."""
        return await self._reader.ask(self._reader.due, queue, lane, before, limit)

    async def next_due(self, queue: str, lane: str, after: float) -> float | None:
        """Give the earliest due time of a queue's lane that is at or after a time."""
        return await self._reader.ask(self._reader.next_due, queue, lane, after)

    async def pull(self, queue: str, lanes: Sequence[tuple[str, int]], before: float) -> list[Pulled]:
        """Give for each lane what is due and, where that is all of it, when more will be."""
        return await self._reader.ask(self._reader.pull, queue, lanes, before)

    async def deadlines(self, before: float, limit: int) -> list[Entry]:
        """Give at most `limit` entries whose deadline is before a time."""
        return await self._reader.ask(self._reader.deadlines, before, limit)

    async def contents(self, ids: Sequence[int]) -> dict[int, Content]:
        """Give the contents of messages, without those that are gone or corrupt."""
        return await self._reader.ask(self._reader.contents, ids)

    async def read_file(self, file: str, offset: int, count: int) -> bytes:
        """Read octets of a content file; raises OSError. Their CRC is not checked: `verify_file` does that."""
        return await self._reader.ask(self._contents.read, file, offset, count)

    def open_file(self, file: str) -> BinaryIO:
        """Open a content file for a worker thread; raises OSError."""
        return (self._contents.path / file).open("rb")

    async def verify_file(self, message: int) -> bool:
        """Read a content file whole and compare it with its row; true when there is no file."""
        file, *expected = await self._reader.ask(self._reader.file_of, message)
        if not file:
            return True
        try:
            return await asyncio.to_thread(self._contents.measure, file) == tuple(expected)
        except OSError:
            return False

    async def select(self, wanted: Filter, limit: int, after: tuple[int, int] = (0, 0)) -> list[Entry]:
        """Give entries that match, by arrival, from behind a key on."""
        matcher = Matcher(wanted, self._clock())
        if wanted.ids:
            entries = await self._reader.ask(self._reader.entries_of, sorted(set(wanted.ids)))
            return [entry for entry in entries if entry.key > after and matcher.matches(entry)][:limit]
        found: list[Entry] = []
        while len(found) < limit:
            if wanted.why in PARKED:
                chunk = await self._reader.ask(self._reader.parked_behind, after, wanted.why, _CHUNK)
            else:
                chunk = await self._reader.ask(self._reader.behind, after, _CHUNK)
            found += filter(matcher.matches, chunk)
            if len(chunk) < _CHUNK:
                break
            after = chunk[-1].key
        return found[:limit]

    async def entries_of(self, message: int) -> list[Entry]:
        """Give the entries of a message that are still in the queue."""
        return await self._reader.ask(self._reader.entries_of, (message,))

    async def events_of(self, message: int) -> list[Event]:
        """Give the history of a message, oldest first."""
        return await self._reader.ask(self._reader.events_of, message)

    async def count(self) -> dict[str, int]:
        """Count entries by state; the total is kept by the writer, so that no long queue is read through."""
        parked = await self._reader.ask(self._reader.parked)
        total = self._database.entries
        return {"active": max(0, total - parked), "parked": parked, "total": total}

    async def oldest(self, *, parked: bool = False) -> float | None:
        """Give the arrival (Unix seconds) of the oldest message with an active entry, or a parked one."""
        return await self._reader.ask(self._reader.oldest, parked)

    async def forget_history(self, before: float) -> int:
        """Delete events of messages that left the queue before a time, and of rejections; gives how many."""
        rejections = await self._reader.ask(self._reader.old_rejections, before)
        await self._forget([(0, int(before * 1_000_000))], number_at(before))
        while await self._reader.ask(self._reader.has_old_log, number_at(before)):
            await self._forget([], number_at(before))
        forgotten, after = rejections, 0
        while True:
            chunk = await self._reader.ask(self._reader.old_history, after, before, _CHUNK)
            if chunk:
                await self._forget([(message, last + 1) for message, last, _ in chunk])
                forgotten += sum(count for _, _, count in chunk)
                after = chunk[-1][0]
            if len(chunk) < _CHUNK:
                return forgotten

    async def _forget(self, histories: list[tuple[int, int]], log_until: int = 0) -> None:
        finished: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()

        def fill(part: Part) -> None:
            part.forgotten.extend(histories)
            part.log_until = max(part.log_until, log_until)
            part.dones.append(lambda fault: None if finished.done() else finished.set_result(fault))

        self._writer.settle(fill)
        await finished

    async def close(self) -> None:
        """Commit what waits and let go of the folder; what was committed has been answered when this returns."""
        if self._closed:
            return
        self._closed = True
        # The reader first: SQLite removes the log with the last connection, if that one may write.
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._writer.close)
        os.close(self._lock)
        await asyncio.sleep(0)


def _make_folders(folder: Path) -> None:
    for path in (folder, folder / FOLDER):
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True)
            sync_folder(path.parent)
