"""The views of the database, asked as a person asks them: by a connection of their own that may only read."""

import sqlite3
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from spool_samples import NOW, Opener, accept, done_with, sample, sample_message, settle

from smarthost.mail.entry import Entry, Why
from smarthost.mail.event import Event, Kind, Seconds, accepted_event
from smarthost.mail.message import format_id
from smarthost.mail.outcome import Stage
from smarthost.spool import schema, views
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Settlement

pytestmark = pytest.mark.asyncio


def ask(spool: SqliteSpool, question: str) -> list[dict[str, Any]]:
    """Ask the database of a running relay, read-only."""
    connection = sqlite3.connect(f"file:{spool._folder / schema.DATABASE}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(question)]
    finally:
        connection.close()


def accepted(serial: int) -> Accepted:
    """Give a message with one entry, and its first event."""
    made = sample(serial)
    made.events = (accepted_event(made.message),)
    return made


def event(serial: int, kind: Kind, **more: Any) -> Event:
    """Give an event of a sample message."""
    return Event(NOW + serial, kind, sample_message(serial).id, **more)


async def test_messages_say_where_each_one_stands(open_sqlite: Opener) -> None:
    """A message is waiting, held, relayed, failed or partly failed, and keeps its row when it has left the queue."""
    spool = open_sqlite()
    made = [accepted(serial) for serial in range(1, 6)]
    await accept(spool, *made)
    held: Entry = made[1].entries[0]
    held.why, held.due = Why.HELD, float("inf")
    ends = {2: (Kind.RELAYED,), 3: (Kind.EXPIRED,), 4: (Kind.RELAYED, Kind.FAILED)}
    settled = [
        Settlement(done_with(made[place].entries[0]).entry, tuple(event(place + 1, kind) for kind in kinds))
        for place, kinds in ends.items()
    ]
    await settle(spool, Settlement(held), *settled)
    rows = ask(spool, "SELECT * FROM messages ORDER BY unix_time, id")
    assert [row["id"] for row in rows] == [format_id(each.message.id) for each in made]
    assert [row["status"] for row in rows] == ["waiting", "held", "relayed", "failed", "partly failed"]
    assert [(row["waiting"], row["relayed"], row["failed"]) for row in rows] == [
        (1, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0, 1, 1),
    ]
    assert rows[0]["sender"] == "app@example.org" and rows[0]["size"] == made[0].message.size
    assert rows[0]["why"] == "new" and rows[0]["next_attempt_at"] and rows[2]["next_attempt_at"] is None


async def test_the_send_log_has_every_field(open_sqlite: Opener) -> None:
    """Every field of an event that has a column stands in its own, and the time is readable."""
    spool = open_sqlite()
    told = Event(
        NOW + 0.25,
        Kind.RELAYED,
        sample_message(7).id,
        **{name: name for name in ("envid", "sender", "recipient", "route", "site", "host", "address", "status")},
        **{name: name for name in ("reply", "tls", "user", "client", "listener")},
        code=250,
        stage=Stage.CONTENT,
        attempt=3,
        size=99,
        seconds=Seconds(0.1, 0.2, 0.3),
    )
    rejected = Event(NOW, Kind.REJECTED, sender="é\udc80")
    spool.record([told, rejected])
    await accept(spool, sample(1))
    first, second = ask(spool, "SELECT * FROM send_log ORDER BY unix_time DESC")
    for name in views._PLACES:
        assert first[name] == msgspec.to_builtins(getattr(told, name)), name
    assert first["id"] == format_id(told.message) and first["unix_time"] == NOW + 0.25
    assert first["time"] == datetime.fromtimestamp(NOW + 0.25, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    assert (second["id"], second["sender"], second["event"]) == ("", "é?", "rejected")
