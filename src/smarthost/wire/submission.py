"""Reads and writes the MAIL parameters of submission: when to release (RFC 4865) and how urgent (RFC 6710)."""

import re
from datetime import UTC, datetime

_INTERVAL = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)  # RFC 4865 3
# date-time of RFC 3339 5.6; RFC 4865 3 has it in UTC (errata 2040), and an offset says as much.
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_PRIORITY = re.compile(r"0|-?[1-9]", re.ASCII)


def read_interval(value: str) -> int | None:
    """Read the value of HOLDFOR, 1 to 999999999 seconds; None when it is none (RFC 4865 3)."""
    return int(value) if _INTERVAL.fullmatch(value) else None


def read_date_time(value: str) -> float | None:
    """Read the value of HOLDUNTIL as a Unix time; None when it is none. A leap second is the second before it."""
    if _DATE_TIME.fullmatch(value) is None:
        return None
    try:
        when = datetime.fromisoformat(value.upper().replace(":60", ":59"))
    except ValueError:
        return None
    return max(when.timestamp(), 0.0) if when.year > 1 else 0.0


def format_date_time(when: float) -> str:
    """Write a Unix time as a date-time in UTC, in whole seconds."""
    return datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_priority(value: str) -> int | None:
    """Read the value of MT-PRIORITY, -9 to 9 (RFC 6710 5); None when it is none."""
    return int(value) if _PRIORITY.fullmatch(value) else None


def add_priority(command: bytes, mt_priority: int) -> bytes:
    """Add MT-PRIORITY to a MAIL command that ends in CRLF."""
    return b"%s MT-PRIORITY=%d\r\n" % (command[:-2], mt_priority)
