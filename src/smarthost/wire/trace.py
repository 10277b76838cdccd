"""Writes the Received field and the dates that trace fields and reports carry (RFC 5321 4.4, RFC 5322 3.3)."""

import re
from datetime import UTC, datetime

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
    when = datetime.fromtimestamp(int(at), UTC)
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
    clauses = []
    if not hide_client and (arrival.client or arrival.ehlo):
        name = arrival.ehlo if _GREETING_NAME.fullmatch(arrival.ehlo) else "unknown"
        clauses.append(f"from {name} ({to_literal(arrival.client)})" if arrival.client else f"from {name}")
    clauses.append(f"by {hostname}")
    clauses.append(f"with {arrival.protocol}")
    if arrival.tls and _CIPHER.fullmatch(arrival.tls):
        clauses.append(f"({arrival.tls})")
    clauses.append(f"id {message_id}")
    if recipient and (recipient.isascii() or arrival.protocol.startswith("UTF8")):
        clauses.append(f"for <{recipient}>")
    clauses[-1] += ";"
    clauses.append(format_date(arrival.at))
    line = "Received:"
    lines = []
    column = len(line)
    for clause in clauses:
        column += 1 + len(clause)
        if column > _MAX_COLUMNS:
            lines.append(line)
            line = "\t" + clause
            column = 8 + len(clause)
        else:
            line += " " + clause
    lines.append(line)
    return ("\r\n".join(lines) + "\r\n").encode()
