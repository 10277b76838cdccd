"""Writes the Received field and the dates that trace fields and reports carry (RFC 5321 4.4, RFC 5322 3.3)."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from smarthost.mail.address import to_literal
from smarthost.mail.message import Arrival

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MAX_COLUMNS = 77  # "below 78", RFC 5322 2.1.1; the tab of a fold counts as eight
# What may stand in "from": a domain or an address literal. Whatever else a client calls itself could forge clauses.
_GREETING_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,253}[A-Za-z0-9_])?\.?|\[[A-Za-z0-9.:\-]{1,80}\]")
_CIPHER = re.compile(r"[A-Za-z0-9_.\- ]{1,100}")


def format_date(at: float) -> str:
    """Write a Unix time in seconds as a date-time of RFC 5322 3.3, in UTC with the zone "+0000"."""
    return _format_second(int(at))


@lru_cache(maxsize=16)
def _format_second(second: int) -> str:
    when = datetime.fromtimestamp(second, UTC)
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    return f"{day}, {when.day} {month} {when.year:04} {when.hour:02}:{when.minute:02}:{when.second:02} +0000"


def received(
    arrival: Arrival, hostname: str, message_id: str, recipient: str = "", *, hide_client: bool = False
) -> bytes:
    """Write the Received field with CRLF, folded below 78 columns.

    `recipient` is the only one of the message, or "": several must not be shown to each other. With `hide_client` the
    "from" clause is left out, as it is where no client is known. A name that the client gave and that is neither a
    domain nor an address literal is written "unknown".
    """
    protocol = arrival.protocol
    date = _format_second(int(arrival.at))
    clauses: tuple[str, ...] = (f"id {message_id};", date)
    if recipient and (recipient.isascii() or protocol.startswith("UTF8")):
        clauses = (f"id {message_id}", f"for <{recipient}>;", date)
    client = "" if hide_client else arrival.client
    text, column = _opening(client, "" if hide_client else arrival.ehlo, hostname, protocol, arrival.tls)
    text, _ = _fold(text, column, clauses)
    return (text + "\r\n").encode()


@lru_cache(maxsize=256)
def _opening(client: str, ehlo: str, hostname: str, protocol: str, tls: str) -> tuple[str, int]:
    """Give the clauses that are the same for each message of a session, folded, and the column where they end."""
    clauses = []
    if client or ehlo:
        name = ehlo if _GREETING_NAME.fullmatch(ehlo) else "unknown"
        clauses.append(f"from {name} ({to_literal(client)})" if client else f"from {name}")
    clauses.append(f"by {hostname}")
    clauses.append(f"with {protocol}")
    if tls and _CIPHER.fullmatch(tls):
        clauses.append(f"({tls})")
    return _fold("Received:", len("Received:"), clauses)


def _fold(text: str, column: int, clauses: Iterable[str]) -> tuple[str, int]:
    """Add clauses to a line that has reached a column, each on a new line where it would not fit."""
    for clause in clauses:
        column += 1 + len(clause)
        if column > _MAX_COLUMNS:
            text += "\r\n\t" + clause
            column = 8 + len(clause)
        else:
            text += " " + clause
    return text, column
