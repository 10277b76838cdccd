"""Reads the queue of a relay that is down: its spool is opened read-only and nothing in it changes."""

import asyncio
import base64
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smarthost.cli.exits import CommandFailed, refused, unavailable
from smarthost.mail.entry import Entry
from smarthost.mail.message import format_id
from smarthost.report.rows import entry_row, event_row, message_row
from smarthost.spool.content import FOLDER
from smarthost.spool.match import Matcher
from smarthost.spool.reader import Reader
from smarthost.spool.schema import DATABASE
from smarthost.spool.store import Filter

Row = dict[str, Any]

CHUNK = 500  # entries read at a time
BLOCK = 256 * 1024  # octets of content in one row


def find_spool(folder: Path) -> Path | None:
    """Find the spool of a data directory; None when there is none. Raises CommandFailed (77)."""
    try:
        return next((place for place in (folder / "spool", folder) if (place / DATABASE).exists()), None)
    except PermissionError:
        raise refused(f"no permission to look into {folder}: run this as the relay's user or as root") from None


def list_entries(spool: Path, wanted: Filter, limit: int) -> Iterator[Row]:
    """Give the entries that a filter chooses, at most `limit` of them unless it is 0."""
    with reading(spool) as reader:
        for number, entry in enumerate(_select(reader, wanted)):
            if limit and number == limit:
                return
            yield entry_row(entry)


def show_message(spool: Path, message: int) -> Row | None:
    """Give a message with its entries and events, None when nobody knows it."""
    with reading(spool) as reader:
        entries = reader.entries_of((message,))
        events = reader.events_of(message)
    if not entries and not events:
        return None
    return {
        "message": message_row(entries[0].message) if entries else {"id": format_id(message)},
        "entries": [entry_row(entry) for entry in entries],
        "events": [event_row(event) for event in events],
    }


def export_messages(spool: Path, wanted: Filter) -> Iterator[Row]:
    """Give whole messages as rows, content in base64, as the control socket does."""
    with reading(spool) as reader:
        last = 0
        for entry in _select(reader, wanted):
            if entry.message.id != last:
                last = entry.message.id
                yield from _export(reader, spool / FOLDER, entry)


def _export(reader: Reader, folder: Path, entry: Entry) -> Iterator[Row]:
    message = entry.message
    identity = format_id(message.id)
    yield message_row(message) | {"recipients": [recipient.address for recipient in message.envelope.recipients]}
    content = reader.contents([message.id]).get(message.id)
    if content is None:
        yield {"id": identity, "end": True, "problem": "the content is missing or damaged"}
        return
    yield {"id": identity, "content": base64.b64encode(content.head).decode()}
    offset = len(content.head)
    if content.file:
        try:
            with (folder / content.file).open("rb") as file:
                while block := file.read(BLOCK):
                    offset += len(block)
                    yield {"id": identity, "content": base64.b64encode(block).decode()}
        except OSError:
            pass  # what is missing is told below, however it came about
    whole = offset == content.size
    yield {"id": identity, "end": True} | ({} if whole else {"problem": "the content is missing or damaged"})


def _select(reader: Reader, wanted: Filter) -> Iterator[Entry]:
    matcher = Matcher(wanted, time.time())
    if wanted.ids:
        yield from filter(matcher.matches, reader.entries_of(sorted(set(wanted.ids))))
        return
    after = (0, 0)
    while chunk := reader.behind(after, CHUNK):
        after = chunk[-1].key
        yield from filter(matcher.matches, chunk)


@contextmanager
def reading(spool: Path) -> Iterator[Reader]:
    """Open the spool's own reader, read-only; its questions are asked on this thread, so its loop never runs."""
    loop = asyncio.new_event_loop()
    reader = Reader(spool / DATABASE, loop, lambda sentence: None)
    try:
        if not os.access(spool / DATABASE, os.R_OK):
            raise refused(f"no permission to read {spool / DATABASE}: run this as the relay's user or as root")
        yield reader
    except sqlite3.OperationalError as error:
        raise unavailable(f"the spool in {spool} cannot be read: {error}") from None
    except sqlite3.DatabaseError as error:
        raise CommandFailed(f"the spool in {spool} is damaged: {error}", os.EX_DATAERR) from None
    finally:
        loop.close()
