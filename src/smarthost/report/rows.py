"""Rows: entries and events as plain dictionaries, the same on the control socket, in `--json` and read-only."""

from typing import Any

import msgspec

from smarthost.mail.entry import Entry
from smarthost.mail.event import Event
from smarthost.mail.message import Message, format_id
from smarthost.mail.suppression import Suppression
from smarthost.report.maillog import to_line
from smarthost.report.timestamp import format_end, format_time

Row = dict[str, Any]


def entry_row(entry: Entry) -> Row:
    """Describe an entry. Times are RFC 3339 text; `due` and `deadline` are None while it waits for a person."""
    message = entry.message
    return {
        "id": format_id(message.id),
        "entry": entry.number,
        "queue": entry.queue,
        "sender": message.envelope.reverse_path,
        "recipients": [recipient.address for recipient in entry.recipients],
        "arrived": format_time(message.arrival.at),
        "size": message.size,
        "attempts": entry.attempts,
        "why": str(entry.why),
        "due": _time(entry.due),
        "deadline": _time(entry.deadline),
        "expires": _time(entry.expires),
        "last": entry.last,
        "user": message.arrival.identity,
        "tag": message.tag,
        "priority": str(message.envelope.priority),
        "report": message.report,
    }


def message_row(message: Message) -> Row:
    """Describe a message: how it arrived and what its envelope says, recipients left out."""
    arrival, envelope = message.arrival, message.envelope
    return {
        "id": format_id(message.id),
        "sender": envelope.reverse_path,
        "arrived": format_time(arrival.at),
        "size": message.size,
        "listener": arrival.door,
        "client": arrival.client,
        "ehlo": arrival.ehlo,
        "user": arrival.identity,
        "protocol": arrival.protocol,
        "tls": arrival.tls,
        "envid": envelope.envid,
        "ret": None if envelope.ret is None else str(envelope.ret),
        "body": str(envelope.body),
        "smtputf8": envelope.smtputf8,
        "priority": str(envelope.priority),
        "mt_priority": envelope.mt_priority,
        "hold_until": _time(envelope.hold_until),
        "tag": message.tag,
        "report": message.report,
        "signed": list(message.signatures),
    }


def event_row(event: Event) -> Row:
    """Describe an event with the mail log's fields; empty ones are left out."""
    row: Row = msgspec.to_builtins(to_line(event))
    return row


def _time(at: float) -> str | None:
    return format_end(at) if at > 0 else None


def suppression_row(row: Suppression) -> Row:
    """Describe an address on the suppression list; `since` is None while its failures are only counted."""
    return {
        "address": row.address,
        "user": row.owner,
        "suppressed": row.is_suppressed,
        "failures": row.failures,
        "since": format_time(row.since) if row.is_suppressed else None,
        "expires": _time(row.expires),
        "origin": str(row.origin),
        "reason": row.reason,
    }
