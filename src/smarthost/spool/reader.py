"""Reader: every question to the database, on a connection and a thread of its own, beside the writer."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from smarthost.mail.entry import Entry
from smarthost.mail.event import Event
from smarthost.mail.message import Message, id_at
from smarthost.policy.ledger import LimitState
from smarthost.spool import record, schema
from smarthost.spool.database import describe, is_corrupt, mark_suspect
from smarthost.spool.store import Content, Pulled, QueueHead

Answer = TypeVar("Answer")
Asked = ParamSpec("Asked")

# The index is named where a guess of the planner would read every row of a long queue.
_SELECT = f"SELECT {schema.ENTRY_COLUMNS} FROM entry AS e"
# One question for entries and their messages: for each row of a question the reader lets go of the interpreter, and
# has to wait for it again. CROSS JOIN has the entries read first.
_DUE = (
    f"SELECT m.meta, {schema.ENTRY_COLUMNS} FROM entry AS e INDEXED BY entry_lane CROSS JOIN message AS m "
    "ON m.id = e.message WHERE e.queue = ? AND e.lane = ? AND e.due < ? "
    "ORDER BY e.queue, e.lane, e.due, e.message, e.number LIMIT ?"
)
_DEADLINES = (
    f"{_SELECT} INDEXED BY entry_deadline WHERE e.deadline < ? ORDER BY e.deadline, e.message, e.number LIMIT ?"
)
_BEHIND = f"{_SELECT} WHERE (e.message, e.number) > (?, ?) ORDER BY e.message, e.number LIMIT ?"
_PARKED_BEHIND = (
    f"{_SELECT} INDEXED BY entry_parked WHERE e.due IS NULL AND (e.message, e.number) > (?, ?) AND e.why = ? "
    "ORDER BY e.message, e.number LIMIT ?"
)
_OF = f"{_SELECT} WHERE e.message = ? ORDER BY e.number"
# Two questions, as SQLite would look for (queue, lane) > (?, ?) by reading the whole lane.
_NEXT_LANE, _NEXT_QUEUE = (
    f"SELECT queue, lane, due FROM entry INDEXED BY entry_lane WHERE {behind} AND due IS NOT NULL "
    "ORDER BY queue, lane, due LIMIT 1"
    for behind in ("queue = ? AND lane > ?", "queue > ?")
)
_CONTENT = "SELECT c.head, c.crc, m.file, m.size FROM message AS m JOIN content AS c ON c.id = m.id WHERE m.id = ?"
_NEXT_DUE = (
    "SELECT due FROM entry INDEXED BY entry_lane WHERE queue = ? AND lane = ? AND due >= ? "
    "ORDER BY queue, lane, due LIMIT 1"
)
_OLDEST = "SELECT meta FROM message WHERE id = (SELECT message FROM entry {} ORDER BY message LIMIT 1)"
_OLDEST_ACTIVE = _OLDEST.format("WHERE due IS NOT NULL")
_OLDEST_PARKED = _OLDEST.format("INDEXED BY entry_parked WHERE due IS NULL")
_OLD_HISTORY = (
    "SELECT message, max(sequence), count(*) FROM event WHERE message > ? AND message < ? "
    "AND NOT EXISTS (SELECT 1 FROM message WHERE id = event.message) "
    "GROUP BY message HAVING max(sequence) < ? ORDER BY message LIMIT ?"
)


class Reader:
    """Every method of the section below runs in the reader's thread, by `ask`; each ends its read transaction at once,
    since an open one keeps the writer from starting its log anew.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, on_fatal: Callable[[str], None]) -> None:
        """Start the thread; the connection is made with the first question."""
        self._path = path
        self._loop = loop
        self._on_fatal = on_fatal
        self._made: sqlite3.Connection | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")

    async def ask(self, question: Callable[Asked, Answer], *asked: Asked.args, **_: Asked.kwargs) -> Answer:
        """Run a question in the reader's thread. A damaged database is reported before the error is raised."""
        try:
            return await self._loop.run_in_executor(self._executor, question, *asked)
        except sqlite3.DatabaseError as error:
            if is_corrupt(error):
                mark_suspect(self._path.parent)
                self._on_fatal(describe(error))
            raise

    def close(self) -> None:
        """Let the running question end, then close."""
        self._executor.submit(self._close)
        self._executor.shutdown(wait=True)

    def _close(self) -> None:
        if self._made is not None:
            self._made.close()

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._made is None:
            self._made = schema.connect_reader(self._path)
        return self._made

    def rows(self, sql: str, arguments: record.Row) -> list[record.Row]:
        """Give the rows of one question."""
        return self._connection.execute(sql, arguments).fetchall()

    def each(self, sql: str, arguments: Sequence[record.Row]) -> list[record.Row]:
        """Give the rows of one question for each of some arguments, all in one turn of the thread."""
        return [row for each in arguments for row in self._connection.execute(sql, each).fetchall()]

    def heads(self, after: tuple[str, str], limit: int) -> list[QueueHead]:
        """Give the heads of at most `limit` lanes behind a queue and lane: a seek each, however long a lane is."""
        found: list[QueueHead] = []
        while len(found) < limit:
            row = self._connection.execute(_NEXT_LANE, after).fetchone()
            row = row or self._connection.execute(_NEXT_QUEUE, after[:1]).fetchone()
            if row is None:
                break
            found.append(QueueHead(*row))
            after = row[0], row[1]
        return found

    def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Give the entries of a queue's lane that are due before a time."""
        return self._due((queue, lane, before, limit), {})

    def _due(self, asked: tuple[str, str, float, int], messages: dict[int, Message]) -> list[Entry]:
        """Read entries, and of their messages those that are not in `messages` yet, where they are put."""
        entries: list[Entry] = []
        # Row by row: a message for a thousand has its large row beside each of its entries.
        for meta, *row in self._connection.execute(_DUE, asked):
            message = messages.get(row[0])
            if message is None:
                message = messages[row[0]] = record.read_message(meta)
            entries.append(record.read_entry(row, message))
        return entries

    def pull(self, queue: str, lanes: Sequence[tuple[str, int]], before: float) -> list[Pulled]:
        """Give for each lane what is due and, where that is all of it, when more will be."""
        pulled: list[Pulled] = []
        messages: dict[int, Message] = {}
        self._connection.execute("BEGIN")
        try:
            for lane, limit in lanes:
                entries = self._due((queue, lane, before, limit), messages)
                pulled.append((entries, None if len(entries) >= limit else self.next_due(queue, lane, before)))
        finally:
            self._connection.execute("COMMIT")
        return pulled

    def deadlines(self, before: float, limit: int) -> list[Entry]:
        """Give the entries whose deadline is before a time."""
        return self._entries(_DEADLINES, (before, limit))

    def behind(self, key: tuple[int, int], limit: int) -> list[Entry]:
        """Give entries by arrival, from behind a key; their messages lie beside each other and are read in one go."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            rows = connection.execute(_BEHIND, (*key, limit)).fetchall()
            span = (rows[0][0], rows[-1][0]) if rows else (0, 0)
            metas = connection.execute("SELECT id, meta FROM message WHERE id BETWEEN ? AND ?", span).fetchall()
        finally:
            connection.execute("COMMIT")
        messages = {message: record.read_message(meta) for message, meta in metas}
        return [record.read_entry(row, messages[row[0]]) for row in rows]

    def parked_behind(self, key: tuple[int, int], why: str, limit: int) -> list[Entry]:
        """Give entries that are parked for a reason, by arrival, from behind a key: what is active is not read."""
        return self._entries(_PARKED_BEHIND, (*key, why, limit))

    def entries_of(self, messages: Iterable[int]) -> list[Entry]:
        """Give the entries of messages."""
        return [entry for message in messages for entry in self._entries(_OF, (message,))]

    def _entries(self, sql: str, arguments: tuple[object, ...]) -> list[Entry]:
        """Read entries, and each of their messages once: a message may have an entry for every recipient."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            rows = connection.execute(sql, arguments).fetchall()
            messages: dict[int, Message] = {}
            for row in rows:
                if row[0] not in messages:
                    (meta,) = connection.execute("SELECT meta FROM message WHERE id = ?", row[:1]).fetchone()
                    messages[row[0]] = record.read_message(meta)
        finally:
            connection.execute("COMMIT")
        return [record.read_entry(row, messages[row[0]]) for row in rows]

    def next_due(self, queue: str, lane: str, after: float) -> float | None:
        """Give the earliest due time of a queue's lane from a time on."""
        row = self._connection.execute(_NEXT_DUE, (queue, lane, after)).fetchone()
        return float(row[0]) if row else None

    def contents(self, ids: Sequence[int]) -> dict[int, Content]:
        """Give the contents of messages, in one read transaction, without those that are gone or corrupt."""
        connection = self._connection
        found: dict[int, Content] = {}
        connection.execute("BEGIN")
        try:
            for message in ids:
                row = connection.execute(_CONTENT, (message,)).fetchone()
                if row and (content := record.read_content(row)):
                    found[message] = content
        finally:
            connection.execute("COMMIT")
        return found

    def file_of(self, message: int) -> tuple[str, int, int]:
        """Give the name, size and CRC-32 of a message's content file; ("", 0, 0) when it has none."""
        row = self._connection.execute(
            "SELECT file, file_size, file_crc FROM message WHERE id = ?", (message,)
        ).fetchone()
        return row or ("", 0, 0)

    def events_of(self, message: int) -> list[Event]:
        """Give a message's history."""
        rows = self._connection.execute("SELECT data FROM event WHERE message = ? ORDER BY sequence", (message,))
        return [record.read_event(data) for (data,) in rows.fetchall()]

    def limit_states(self) -> list[LimitState]:
        """Give what is remembered of limits."""
        rows = self._connection.execute("SELECT name, state FROM limit_state ORDER BY name")
        return [LimitState(*row) for row in rows.fetchall()]

    def parked(self) -> int:
        """Count the parked entries, by an index that holds nothing else."""
        rows = self._connection.execute("SELECT count(*) FROM entry INDEXED BY entry_parked WHERE due IS NULL")
        return int(rows.fetchone()[0])

    def oldest(self, parked: bool) -> float | None:
        """Give the arrival of the oldest message with an active or a parked entry; ids are in the order of arrival."""
        row = self._connection.execute(_OLDEST_PARKED if parked else _OLDEST_ACTIVE).fetchone()
        return record.read_message(row[0]).arrival.at if row else None

    def old_history(self, after: int, before: float, limit: int) -> list[tuple[int, int, int]]:
        """Give message id, last sequence number and number of events of histories that ended before a time."""
        sequence = int(before * 1_000_000)
        return self._connection.execute(_OLD_HISTORY, (after, id_at(before), sequence, limit)).fetchall()

    def has_old_log(self, number: int) -> bool:
        """Say whether there are rows of the event log below a number, the latest left out."""
        old = "SELECT 1 FROM event_log WHERE number < ?1 AND number < (SELECT max(number) FROM event_log) LIMIT 1"
        return self._connection.execute(old, (number,)).fetchone() is not None

    def old_rejections(self, before: float) -> int:
        """Count events without a message from before a time."""
        sequence = int(before * 1_000_000)
        rows = self._connection.execute("SELECT count(*) FROM event WHERE message = 0 AND sequence < ?", (sequence,))
        return int(rows.fetchone()[0])
