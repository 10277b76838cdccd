"""Database: the writer's connection, one transaction at a time, and its upkeep in idle moments."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from smarthost.spool import schema
from smarthost.spool.batch import Part
from smarthost.spool.content import ContentFolder
from smarthost.spool.cursor import PLACES, last_number, number_at
from smarthost.spool.record import History, refs_blob
from smarthost.spool.stats import Stats
from smarthost.spool.store import Fault

# SQLite gives SHMSIZE when the disk has no room for the log's index.
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_VACUUM_PAGES = 256  # a step of 2 MB, so that nobody waits long behind it
_FREE_PAGES = 8192  # 64 MB that may stay unused in the file: reusing a page is cheaper than giving it back
SUSPECT = "suspect"  # a file of this name asks the next start to check the whole database


class Database:
    """Used by the writer's thread only."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, contents: ContentFolder, stats: Stats) -> None:
        """Take over a connection that is set up and migrated."""
        self.connection = connection
        self.last_id = schema.read_meta(connection, "last_id")
        self.entries = schema.read_meta(connection, "entries")
        self.log_number = last_number(connection)  # of the latest row of the event log
        self.fatal = ""  # why nothing may be written any more
        self._cursor = connection.cursor()
        self._history = History()
        self._folder = folder
        self._contents = contents
        self._stats = stats
        self._written = 0  # octets given to the log since the last checkpoint, at the least
        self._growth = 1.0  # how much longer than that the log became last time

    def commit(self, *parts: Part, written: Callable[[], None] = lambda: None) -> Fault | None:
        """Write parts in one transaction. On DISK_FULL nothing was written; on IO_ERROR `fatal` says what happened.

        `written` is called when the rows are written and only the sync is left.
        """
        started = time.perf_counter()
        cursor = self._cursor
        self._history.refs.clear()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            grown = sum(part.apply(cursor, self._history) for part in parts)
            last_id = max(self.last_id, *(part.last_id for part in parts))
            if last_id != self.last_id:
                cursor.execute(schema.SET_META, (last_id, "last_id"))
            if grown:
                cursor.execute(schema.SET_META, (self.entries + grown, "entries"))
            log_number = self._write_log()
            written()
            cursor.execute("COMMIT")
        except sqlite3.Error as error:
            return self._failed(error)
        self.last_id = last_id
        self.log_number = log_number
        self.entries += grown
        for part in parts:
            self._unlink(part)
            self._written += part.octets
        self._written += 8 * schema.PAGE_SIZE  # what a commit writes beside the contents, at the least
        self._stats.wal = int(self._written * self._growth)
        self._stats.committed(sum(len(part.dones) for part in parts), time.perf_counter() - started)
        return None

    def _write_log(self) -> int:
        """Note which events the transaction brings, whatever their order within it; gives the log's new number."""
        refs, number = self._history.refs, self.log_number
        for start in range(0, len(refs), PLACES):
            portion = refs[start : start + PLACES] if len(refs) > PLACES else refs
            number = max(number + 1, number_at(portion[-1][1] / 1_000_000))
            self._cursor.execute(schema.INSERT_LOG, (number, refs_blob(portion)))
        return number

    def _unlink(self, part: Part) -> None:
        """Delete the content files of messages that went with the transaction."""
        files = self._contents.messages
        if not part.left or not files:
            return
        for (message,) in part.left:
            if message in files and self._cursor.execute(schema.IS_MESSAGE, (message,)).fetchone() is None:
                self._contents.delete_of(message)

    def _failed(self, error: sqlite3.Error) -> Fault:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _FULL:
            self._stats.disk_full += 1
            try:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                return Fault.DISK_FULL
            except sqlite3.Error as failed:
                error = failed
        self.fatal = describe(error)
        if code & 0xFF in _CORRUPT:
            mark_suspect(self._folder)
        return Fault.IO_ERROR

    def is_log_long(self) -> bool:
        """Whether the write-ahead log should go into the database now."""
        return self._stats.wal >= schema.WAL_OCTETS

    def has_log(self) -> bool:
        """Whether anything was written since the last checkpoint."""
        return self._stats.wal > 0

    def checkpoint(self) -> None:
        """Copy the log into the database, so that it starts again from the front. A full disk leaves it as it is."""
        started = time.perf_counter()
        try:
            _, frames, done = self._cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._written = self._stats.wal = 0
            self._failed(error)
            return
        if self._written:
            # SQLite tells the log's length only here; it tells how long the next one will be.
            self._growth = min(8.0, max(1.0, frames * schema.PAGE_SIZE / self._written))
        # A reader may hold the log's front; then it goes on from what is left.
        self._written = max(0, frames - done) * schema.PAGE_SIZE
        self._stats.wal = self._written
        self._stats.checkpoints += 1
        self._stats.checkpoint_seconds_sum += time.perf_counter() - started

    def shrink(self, is_needed: bool = False) -> bool:
        """Give one step of unused pages back to the file system if many are unused or it is needed; true if it did."""
        try:
            unused = self._cursor.execute("PRAGMA freelist_count").fetchone()[0]
            if unused <= (0 if is_needed else _FREE_PAGES):
                return False
            # A script, since the pragma frees a page with each step and `execute` takes one step only.
            self._cursor.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        except sqlite3.Error as error:
            self._failed(error)
            return False
        self._written += _VACUUM_PAGES * schema.PAGE_SIZE
        self._stats.wal = self._written
        return True

    def close(self) -> None:
        """Empty the log and close; a failure is left to the next start's recovery."""
        try:
            if not self.fatal:
                self._cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.connection.close()
        except sqlite3.Error:
            pass


def mark_suspect(folder: Path) -> None:
    """Ask the next start to check the whole database."""
    try:
        (folder / SUSPECT).touch(mode=0o600)
    except OSError:
        pass


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether an error says that the database itself is damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


def describe(error: sqlite3.Error) -> str:
    """Write an error as a sentence for people."""
    return f"the spool's database failed: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
