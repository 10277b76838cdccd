"""Writes the Received field and the dates that trace fields and reports carry (RFC 5321 4.4, RFC 5322 3.3)."""

import re
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
    client, ehlo = ("", "") if hide_client else (arrival.client, arrival.ehlo)
    if recipient and not recipient.isascii() and not protocol.startswith("UTF8"):
        recipient = ""
    widths = len(message_id), len(recipient), len(date)
    layout = _layout(client, ehlo, hostname, protocol, arrival.tls, widths)
    return (layout % ((message_id, recipient, date) if recipient else (message_id, date))).encode()


@lru_cache(maxsize=1024)
def _layout(client: str, ehlo: str, hostname: str, protocol: str, tls: str, widths: tuple[int, int, int]) -> str:
    """Give the field with what is the same for each message of a session, and "%s" for id, recipient and date.

    Only the widths of those three say where it is folded; a recipient of width 0 has no clause.
    """
    id_width, recipient_width, date_width = widths
    clauses = []
    if client or ehlo:
        name = ehlo if _GREETING_NAME.fullmatch(ehlo) else "unknown"
        clauses.append(f"from {name} ({to_literal(client)})" if client else f"from {name}")
    clauses.append(f"by {hostname}")
    clauses.append(f"with {protocol}")
    if tls and _CIPHER.fullmatch(tls):
        clauses.append(f"({tls})")
    texts = [(clause.replace("%", "%%"), len(clause)) for clause in clauses]
    if recipient_width:
        texts += [("id %s", 3 + id_width), ("for <%s>;", 7 + recipient_width)]
    else:
        texts.append(("id %s;", 4 + id_width))
    texts.append(("%s", date_width))
    field, column = "Received:", len("Received:")
    for text, width in texts:
        column += 1 + width
        if column > _MAX_COLUMNS:
            field += "\r\n\t" + text
            column = 8 + width
        else:
            field += " " + text
    return field + "\r\n"
