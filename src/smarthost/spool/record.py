"""Rows: how messages, entries and events are written into columns and read back."""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Recipient
from smarthost.mail.event import Event, mend
from smarthost.mail.message import Message
from smarthost.mail.record import Record
from smarthost.spool.store import Content

Row = tuple[Any, ...]
Ref = tuple[int, int, str]
"""Message, sequence number and tenant of an event, as the event log names it."""


class _State(msgspec.Struct, array_like=True, gc=False):
    """The fields of an entry that no query asks for. Fields are only ever appended, with a default.

    No recipients means all of the envelope's, which is the usual case and saves their octets.
    """

    recipients: tuple[Recipient, ...]
    expires: float
    attempts: int = 0
    warned: int = 0
    last: str = ""
    hosts_tried: tuple[str, ...] = ()


# Messages and events are JSON, which SQLite itself can read: the views `messages` and `send_log` are made of it, and a
# person with `sqlite3` can look. Before schema 3 they were MessagePack, as the state of an entry and the event log are.
_JSON = b"["
_encode = msgspec.json.Encoder().encode
_encode_state = msgspec.msgpack.Encoder().encode
_values = msgspec.structs.astuple
_decode_message = msgspec.json.Decoder(Message).decode
_decode_state = msgspec.msgpack.Decoder(_State).decode
_decode_refs = msgspec.msgpack.Decoder(list[Ref]).decode
_decode_values = msgspec.json.Decoder(list[Any]).decode
_decode_old_message = msgspec.msgpack.Decoder(Message).decode
_decode_old_values = msgspec.msgpack.Decoder(list[Any]).decode


def message_row(message: Message, content: Content, sealed: tuple[int, int]) -> Row:
    """Write a message; `sealed` is the size and CRC-32 of its content file, zeros without one."""
    return (message.id, _encode(message), content.file, content.size, *sealed)


def content_row(message: int, head: bytes) -> Row:
    """Write a content. Its CRC lets go of the interpreter, so this is for the writer's thread: in the caller's, the
    writer would wake in between and start with the first message of many.
    """
    return message, zlib.crc32(head), head


def record_row(record: Record) -> Row:
    """Write a record; infinite times become NULL. Raises UnicodeEncodeError, for the caller and not for the batch."""
    for text in record.key:
        text.encode()
    return *record.key, record.data, _finite(record.due), _finite(record.expires)


def entry_row(entry: Entry) -> Row:
    """Write an entry for `schema.INSERT_ENTRY`; infinite times become NULL. Raises UnicodeEncodeError, for the caller
    and not for the batch.
    """
    entry.queue.encode()
    (lane := entry.lane).encode()
    # A plain str: for an enum sqlite3 would look for an adapter, at some microseconds each.
    why = str(entry.why)
    due, deadline = _finite(entry.due), _finite(entry.deadline)
    return entry.message.id, entry.number, entry.queue, due, deadline, why, _state(entry), lane


def lane_of(meta: bytes | None) -> str:
    """Read from a message's row the lane of its entries (`Entry.lane`)."""
    if meta is None:  # a damaged database: what has no message is swept by the recovery
        return "2"
    return Entry(read_message(meta), 0, "", (), 0.0, 0.0, 0.0).lane


def update_row(entry: Entry) -> Row:
    """Write an entry for `schema.UPDATE_ENTRY`, whose key comes last; its lane is what it was."""
    return (*entry_row(entry)[2:7], entry.message.id, entry.number)


def message_as_json(meta: bytes) -> bytes:
    """Write a message's row of before schema 3 as it is written now."""
    return _encode(read_message(meta))


def event_as_json(data: bytes) -> bytes:
    """Write an event's row of before schema 3 as it is written now."""
    return data if data[:1] == _JSON else _encode(_decode_old_values(data))


class History:
    """Writes events for the writer's thread, which has many at once: cheaper than one by one between other work."""

    __slots__ = ("_sequence", "refs")

    def __init__(self) -> None:
        """Start behind every event that was written before now; `refs` has those of the open transaction."""
        self._sequence = 0
        self.refs: list[Ref] = []

    def row(self, event: Event) -> Row:
        """Write an event, with a sequence number of its own that is near its time in microseconds.

        Its values stand without the names of their fields, which would be a third of the history. Text that is no
        UTF-8 has its odd octets replaced by "?": others wait for the same transaction.
        """
        self._sequence = sequence = max(self._sequence + 1, int(event.time * 1_000_000))
        try:
            data = _encode(_values(event))
        except UnicodeEncodeError:
            data = _encode(mend(_values(event)))
        self.refs.append((event.message, sequence, event.user))
        return event.message, sequence, data


def _finite(when: float) -> float | None:
    return None if when == math.inf else when


def _state(entry: Entry) -> bytes:
    recipients = () if entry.recipients == entry.message.envelope.recipients else entry.recipients
    return _encode_state(
        _State(recipients, entry.expires, entry.attempts, entry.warned, entry.last, entry.hosts_tried),
    )


def read_message(meta: bytes) -> Message:
    """Read a message back, also from before schema 3."""
    return _decode_message(meta) if meta[:1] == _JSON else _decode_old_message(meta)


def read_entry(row: Sequence[Any], message: Message) -> Entry:
    """Read an entry back from the columns `schema.ENTRY_COLUMNS`."""
    _, number, queue, due, deadline, why, blob = row
    state = _decode_state(blob)
    return Entry(
        message=message,
        number=number,
        queue=queue,
        recipients=state.recipients or message.envelope.recipients,
        due=math.inf if due is None else due,
        expires=state.expires,
        deadline=math.inf if deadline is None else deadline,
        attempts=state.attempts,
        warned=state.warned,
        why=Why(why),
        last=state.last,
        hosts_tried=state.hosts_tried,
    )


def refs_blob(refs: list[Ref]) -> bytes:
    """Write what a transaction brought to the event log."""
    try:
        return _encode_state(refs)
    except UnicodeEncodeError:
        return _encode_state(mend(refs))


def read_refs(blob: bytes) -> list[Ref]:
    """Read what a transaction brought to the event log."""
    return _decode_refs(blob)


def read_event(data: bytes) -> Event:
    """Read an event back; fields that were appended after it was written have their defaults."""
    found = _decode_values(data) if data[:1] == _JSON else _decode_old_values(data)
    values = dict(zip(Event.__struct_fields__, found, strict=False))
    return msgspec.convert(values, Event)


def read_content(row: Row) -> Content | None:
    """Read a content back from (head, crc, file, size); None when its octets are not the ones that were written."""
    head, crc, file, size = row
    return Content(head, file, size) if zlib.crc32(head) == crc else None
