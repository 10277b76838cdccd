"""Recovery: what opening a spool finds after whatever happened before, and how it is put in order."""

import fcntl
import os
import sqlite3
import time
from pathlib import Path

import msgspec

from smarthost.mail.entry import Why
from smarthost.mail.message import parse_id
from smarthost.spool import content, schema
from smarthost.spool.database import SUSPECT, is_corrupt
from smarthost.spool.store import SpoolError

LOCK = "lock"
# Checked whole after a crash up to this size (some 0.1 s). A larger database is not read through at each start: the
# log's frames carry checksums, contents have a CRC, and a damaged page that is met while running ends the program and
# leaves the file `suspect`, upon which the next start checks everything.
QUICK_CHECK_OCTETS = 64 * 1024 * 1024


class Recovery(msgspec.Struct, frozen=True):
    """What was found at the start.

    `unclean` says that the last run did not close the spool; `swept` names content files that nobody was promised;
    `set_aside` is the folder to which damaged files were moved, or "", and `reason` says what was wrong with the
    database; `lost` are message ids whose content file is missing or has the wrong size, now parked.
    """

    unclean: bool = False
    swept: tuple[str, ...] = ()
    set_aside: str = ""
    reason: str = ""
    lost: tuple[int, ...] = ()


def lock(folder: Path) -> int:
    """Take the folder for this process, until the descriptor is closed; raises SpoolError."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise SpoolError(f"{folder} is in use by process {owner}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def recover(folder: Path, now: float) -> tuple[sqlite3.Connection, Recovery]:
    """Open the database of a locked folder and put files and rows in agreement. Raises SpoolError and OSError."""
    path = folder / schema.DATABASE
    log = folder / f"{schema.DATABASE}-wal"
    unclean = log.exists() and log.stat().st_size > 0
    aside = _fresh(folder / time.strftime("corrupt-%Y%m%dT%H%M%SZ", time.gmtime(now)))
    reason = ""
    try:
        connection = _open(path, unclean)
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise SpoolError(f"the spool's database in {folder} cannot be opened: {error}") from error
        reason = str(error)
        _set_aside(folder, aside)
        connection = _open(path, unclean=False)
    (folder / SUSPECT).unlink(missing_ok=True)
    swept, lost = _agree(connection, folder / content.FOLDER, aside)
    moved = str(aside) if aside.exists() else ""
    return connection, Recovery(unclean, swept, moved, reason, lost)


def _open(path: Path, unclean: bool) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite would make it 0644
    connection = schema.connect(path)
    try:
        suspect = (path.parent / SUSPECT).exists()
        if suspect or (unclean and path.stat().st_size <= QUICK_CHECK_OCTETS):
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                raise _damaged(finding)
        schema.migrate(connection)
        content.sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def _damaged(finding: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(finding)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _fresh(path: Path) -> Path:
    """Give a path that does not exist: an earlier finding is never written over."""
    number, fresh = 1, path
    while fresh.exists():
        number += 1
        fresh = path.with_name(f"{path.name}-{number}")
    return fresh


def _set_aside(folder: Path, aside: Path) -> None:
    """Move the database with its log, and every content file: without rows nobody can tell which are needed."""
    aside.mkdir(mode=0o700)
    for suffix in ("", "-wal", "-shm"):
        path = folder / f"{schema.DATABASE}{suffix}"
        if path.exists():
            path.rename(aside / path.name)
    contents = folder / content.FOLDER
    contents.rename(aside / content.FOLDER)
    contents.mkdir(mode=0o700)
    content.sync_folder(aside)
    content.sync_folder(folder)


def _agree(connection: sqlite3.Connection, contents: Path, aside: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Delete files without a row, and park the entries of rows without their file; gives names and message ids."""
    rows = connection.execute("SELECT file, file_size, id FROM message INDEXED BY message_file WHERE file <> ''")
    expected = {file: (size, message) for file, size, message in rows.fetchall()}
    swept = []
    found = {}
    for item in os.scandir(contents):
        if item.name in expected:
            found[item.name] = item.stat().st_size
        elif parse_id(item.name) is not None and item.is_file(follow_symlinks=False):
            # Never answered with 250: a row comes before the answer.
            os.unlink(item.path)
            swept.append(item.name)
    lost = [(file, message) for file, (size, message) in expected.items() if found.get(file) != size]
    if lost:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE entry SET due = NULL, deadline = NULL, why = ? WHERE message = ?",
            [(Why.CONTENT_LOST, message) for _, message in lost],
        )
        connection.execute("COMMIT")
    for file, _ in lost:
        if file in found:
            aside.mkdir(mode=0o700, exist_ok=True)
            (contents / file).rename(aside / file)
    return tuple(sorted(swept)), tuple(message for _, message in lost)
