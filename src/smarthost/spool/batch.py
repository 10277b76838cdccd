"""Batch: the rows that wait for the next transaction, and how they are applied."""

import math
import sqlite3
from collections.abc import Iterable, Mapping
from typing import TypeVar

from smarthost.mail.event import Event
from smarthost.mail.record import RecordKey
from smarthost.mail.suppression import Key
from smarthost.spool import record, schema
from smarthost.spool.store import Change, Done, Settlement

Named = TypeVar("Named", bound=tuple[str, ...])


class Part:
    """Rows that are committed or refused together, and whoever waits for them.

    The order within a part is inserts, updates, deletes: whatever order they were asked in, an entry that one of them
    deletes ends deleted. The order of two updates of one entry is kept.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.messages: list[record.Row] = []
        self.heads: list[tuple[int, bytes]] = []
        self.entries: list[record.Row] = []
        self.splits: list[record.Row] = []
        self.updates: list[record.Row] = []
        self.deletes: list[tuple[int, int]] = []
        self.left: list[tuple[int]] = []  # messages that lost an entry
        self.events: list[Event] = []
        self.forgotten: list[tuple[int, int]] = []
        self.log_until = 0  # rows of the event log below this number go
        self.suppressions: dict[Key, record.Row | None] = {}  # rows as they stand now, None for those that go
        self.limits: dict[str, bytes] = {}  # the latest of each name; without a state the row goes
        self.records: dict[RecordKey, record.Row | None] = {}  # likewise
        self.records_until = -math.inf  # what expired until then goes
        self.dones: list[Done] = []
        self.octets = 0  # of content, to judge how long the write-ahead log has become
        self.last_id = 0

    def __bool__(self) -> bool:
        """Whether there is anything to write or to answer."""
        # Nothing else comes without somebody who waits.
        return bool(self.dones or self.events or self.suppressions or self.records)

    def add_message(self, row: record.Row, head: bytes, entries: Iterable[record.Row]) -> None:
        """Add a message, its content and its entries."""
        self.messages.append(row)
        self.heads.append((row[0], head))
        self.octets += len(head)
        self.last_id = max(self.last_id, row[0])
        self.entries.extend(entries)

    def settle(self, settlement: Settlement) -> None:
        """Add what an attempt did to its entry; events and reports are added apart."""
        entry = settlement.entry
        if settlement.dead:
            self.splits.extend(map(record.entry_row, settlement.dead))
        if entry.recipients:
            self.updates.append(record.update_row(entry))
        else:
            self.remove(entry.key)

    def remove(self, key: tuple[int, int]) -> None:
        """Delete an entry, and its message if that was the last one."""
        self.deletes.append(key)
        self.left.append((key[0],))

    def change(self, change: Change) -> None:
        """Add what a person asked for."""
        self.splits.extend(map(record.entry_row, change.added))
        self.updates.extend(map(record.update_row, change.updated))
        for key in change.removed:
            self.remove(key)

    def extend(self, later: "Part") -> None:
        """Take over the rows and the waiting of a later part."""
        for name in (
            "messages",
            "heads",
            "entries",
            "splits",
            "updates",
            "deletes",
            "left",
            "events",
            "forgotten",
            "dones",
        ):
            getattr(self, name).extend(getattr(later, name))
        self.suppressions |= later.suppressions
        self.limits |= later.limits
        self.records |= later.records
        self.records_until = max(self.records_until, later.records_until)
        self.log_until = max(self.log_until, later.log_until)
        self.octets += later.octets
        self.last_id = max(self.last_id, later.last_id)

    def apply(self, cursor: sqlite3.Cursor, history: record.History) -> int:
        """Write the rows within the open transaction; gives by how many the entries grew. Raises sqlite3.Error."""
        grown = 0
        contents = [record.content_row(*head) for head in self.heads]
        events = [history.row(event) for event in self.events]
        for sql, rows, sign in (
            (schema.INSERT_MESSAGE, self.messages, 0),
            (schema.INSERT_CONTENT, contents, 0),
            (schema.INSERT_ENTRY, self.entries, 1),
            (schema.ADD_ENTRY, self.splits, 1),
            (schema.UPDATE_ENTRY, self.updates, 0),
            (schema.DELETE_ENTRY, self.deletes, -1),
            (schema.DELETE_MESSAGE, self.left, 0),
            (schema.DELETE_CONTENT, self.left, 0),
            (schema.INSERT_EVENT, events, 0),
            (schema.DELETE_EVENTS, self.forgotten, 0),
            (schema.SET_LIMIT, [row for row in self.limits.items() if row[1]], 0),
            (schema.DELETE_LIMIT, [(name,) for name, state in self.limits.items() if not state], 0),
        ):
            if rows:
                cursor.executemany(sql, rows)
                grown += sign * cursor.rowcount
        if self.suppressions:
            _replace(cursor, self.suppressions, schema.REPLACE_SUPPRESSION, schema.DELETE_SUPPRESSION)
        if self.log_until:
            cursor.execute(schema.FORGET_LOG, (self.log_until,))
        if self.records_until > -math.inf:
            cursor.execute(schema.EXPIRE_RECORDS, (self.records_until,))
        if self.records:
            _replace(cursor, self.records, schema.REPLACE_RECORD, schema.DELETE_RECORD)
        return grown


def _replace(cursor: sqlite3.Cursor, rows: Mapping[Named, record.Row | None], replace: str, delete: str) -> None:
    """Write rows as they stand now, and remove those that are None."""
    cursor.executemany(replace, [row for row in rows.values() if row is not None])
    cursor.executemany(delete, [key for key, row in rows.items() if row is None])


class Batch:
    """Everything that waits for one transaction. On a full disk the settles are tried without the accepts."""

    def __init__(self) -> None:
        """Start empty."""
        self.settles = Part()
        self.accepts = Part()
