"""The database: its tables, how it grows from version to version, and how a connection to it is set up."""

import sqlite3
from pathlib import Path

from smarthost.spool import views
from smarthost.spool.record import event_as_json, lane_of, message_as_json
from smarthost.spool.store import SpoolError

DATABASE = "spool.db"
APPLICATION_ID = 0x736D6874  # "smht"; lets `file` and us tell a spool from another program's database
# Measured with 2 KB and 10 KB contents in batches of 8 to 64: 4096 and 8192 cost the same CPU a message, 16384 a tenth
# more; with 8192 three 2 KB messages share a page (2.7 KB each), with 4096 each fills one.
PAGE_SIZE = 8192
# Measured: 16 MB of log cost least. Less syncs the database more often, more falls out of the processor's caches.
WAL_OCTETS = 16 * 1024 * 1024
CACHE_KIB = 8 * 1024

# Contents stand apart, so that entries and messages of a long queue lie close together: with a million of 2 KB, reading
# 1000 due entries touches 30 pages of messages instead of 350. `crc` is of `head`; a file has its own.
# Parked entries have no due time, so `entry_parked` is small and counts them.
_SCHEMA_1 = (
    "CREATE TABLE message (id INTEGER PRIMARY KEY, meta BLOB NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, "
    "file_size INTEGER NOT NULL, file_crc INTEGER NOT NULL)",
    "CREATE INDEX message_file ON message (file, file_size) WHERE file <> ''",
    "CREATE TABLE content (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, head BLOB NOT NULL)",
    "CREATE TABLE entry (message INTEGER NOT NULL, number INTEGER NOT NULL, queue TEXT NOT NULL, due REAL, "
    "deadline REAL, why TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (message, number)) WITHOUT ROWID",
    "CREATE INDEX entry_due ON entry (queue, due) WHERE due IS NOT NULL",
    "CREATE INDEX entry_deadline ON entry (deadline) WHERE deadline IS NOT NULL",
    "CREATE INDEX entry_parked ON entry (message) WHERE due IS NULL",
    "CREATE TABLE event (message INTEGER NOT NULL, sequence INTEGER NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (message, sequence)) WITHOUT ROWID",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('schema', 0), ('last_id', 0), ('entries', 0)",
)
# Which entries of a queue are read first is decided by lane, so that a long lane hides no other.
# `limit_state` is what rates remember, by their names (`policy.ledger`). A suppression without `expires` stays until a
# person removes it.
_SCHEMA_2 = (
    "ALTER TABLE entry ADD COLUMN lane TEXT NOT NULL DEFAULT '2'",
    "UPDATE entry SET lane = lane_of((SELECT meta FROM message WHERE id = entry.message))",
    "DROP INDEX entry_due",
    "CREATE INDEX entry_lane ON entry (queue, lane, due) WHERE due IS NOT NULL",
    "CREATE TABLE limit_state (name TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE suppression (owner TEXT NOT NULL, address TEXT NOT NULL, failures INTEGER NOT NULL, "
    "since REAL NOT NULL, expires REAL, origin TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (owner, address)) "
    "WITHOUT ROWID",
    "CREATE INDEX suppression_expires ON suppression (expires) WHERE expires IS NOT NULL",
)
# `record` has every object of the HTTP door, of any kind (`mail.record`). `event_log` has a row a transaction: the
# events that it brought, by their keys (`spool.event_log`). Messages and events become JSON, for views.
_SCHEMA_3 = (
    "UPDATE message SET meta = message_as_json(meta)",
    "UPDATE event SET data = event_as_json(data)",
    views.SEND_LOG,
    views.MESSAGES,
    "CREATE TABLE record (kind TEXT NOT NULL, tenant TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL, due REAL, "
    "expires REAL, PRIMARY KEY (kind, tenant, id)) WITHOUT ROWID",
    "CREATE INDEX record_due ON record (kind, due) WHERE due IS NOT NULL",
    "CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE event_log (number INTEGER PRIMARY KEY, refs BLOB NOT NULL)",
)
_FUNCTIONS = (lane_of, message_as_json, event_as_json)
# One tuple of statements a version, run in order and in one transaction; a released tuple is never edited.
MIGRATIONS: tuple[tuple[str, ...], ...] = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3)

ENTRY_COLUMNS = "e.message, e.number, e.queue, e.due, e.deadline, e.why, e.state"
INSERT_MESSAGE = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)"
INSERT_CONTENT = "INSERT INTO content VALUES (?, ?, ?)"
INSERT_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
# A split entry comes later than its message, which may have left meanwhile.
ADD_ENTRY = "INSERT INTO entry SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM message WHERE id = ?1)"
# UPDATE and not REPLACE: what a person deleted meanwhile must not come back.
UPDATE_ENTRY = "UPDATE entry SET queue = ?, due = ?, deadline = ?, why = ?, state = ? WHERE message = ? AND number = ?"
DELETE_ENTRY = "DELETE FROM entry WHERE message = ? AND number = ?"
DELETE_MESSAGE = "DELETE FROM message WHERE id = ? AND NOT EXISTS (SELECT 1 FROM entry WHERE message = id)"
DELETE_CONTENT = "DELETE FROM content WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE id = ?1)"
INSERT_EVENT = "INSERT OR IGNORE INTO event VALUES (?, ?, ?)"
INSERT_LOG = "INSERT INTO event_log VALUES (?, ?)"
# The last row stays, so that no number comes twice whatever the clock does.
FORGET_LOG = (
    "DELETE FROM event_log WHERE number IN (SELECT number FROM event_log WHERE number < ?1 "
    "AND number < (SELECT max(number) FROM event_log) ORDER BY number LIMIT 2000)"
)
DELETE_EVENTS = "DELETE FROM event WHERE message = ? AND sequence < ?"
REPLACE_SUPPRESSION = "INSERT OR REPLACE INTO suppression VALUES (?, ?, ?, ?, ?, ?, ?)"
DELETE_SUPPRESSION = "DELETE FROM suppression WHERE owner = ? AND address = ?"
SET_LIMIT = "INSERT OR REPLACE INTO limit_state VALUES (?, ?)"
DELETE_LIMIT = "DELETE FROM limit_state WHERE name = ?"
REPLACE_RECORD = "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?)"
DELETE_RECORD = "DELETE FROM record WHERE kind = ? AND tenant = ? AND id = ?"
# Some at a time, so that no commit waits long for it.
EXPIRE_RECORDS = (
    "DELETE FROM record WHERE (kind, tenant, id) IN "
    "(SELECT kind, tenant, id FROM record WHERE expires <= ? ORDER BY expires LIMIT 500)"
)
SET_META = "UPDATE meta SET value = ? WHERE key = ?"
IS_MESSAGE = "SELECT 1 FROM message WHERE id = ?"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for the writer; the file exists, maybe empty. Raises sqlite3.Error."""
    # Nobody else of ours writes; a person's `sqlite3` that holds the lock for a while is waited for.
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    try:
        if path.stat().st_size == 0:  # auto_vacuum would write into an old database, even a damaged one
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # The writer checkpoints by itself, after it has answered. No other connection ever does: in SQLite before
        # 3.51.3 a checkpoint beside a commit can lose the log's tail.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {4 * WAL_OCTETS}")
        connection.execute("PRAGMA secure_delete = OFF")
        _bound_memory(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the database for reading, beside a writer that has it open. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    _bound_memory(connection)
    return connection


def _bound_memory(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA temp_store = MEMORY")


def migrate(connection: sqlite3.Connection) -> int:
    """Bring a database to this program's version, in one transaction; gives the version it had, 0 for a new one.

    Raises SpoolError for a database of another program or of a newer version, and sqlite3.Error.
    """
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise SpoolError(
            f"the spool was written by a newer smarthost (schema {version}; this one knows {len(MIGRATIONS)}): "
            "start the newer program, or let it deliver the queue first"
        )
    if version == len(MIGRATIONS):
        return version
    for function in _FUNCTIONS:
        connection.create_function(function.__name__, 1, function, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(SET_META, (len(MIGRATIONS), "schema"))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        for function in _FUNCTIONS:
            connection.create_function(function.__name__, 1, None)
    return version


def _version(connection: sqlite3.Connection) -> int:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        return 0
    if "meta" not in tables or connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise SpoolError(f"{DATABASE} in the spool folder belongs to another program")
    return read_meta(connection, "schema")


def read_meta(connection: sqlite3.Connection, key: str) -> int:
    """Read a number of the meta table; 0 when it is not there."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return int(row[0]) if row else 0
