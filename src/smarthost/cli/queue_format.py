"""How queued messages look to a person: the table of `queue list` and the pages of `queue show`."""

from collections.abc import Sequence
from typing import Any

from smarthost.cli.table import format_age, format_fields, format_size, format_table
from smarthost.cli.trace import format_event
from smarthost.report.timestamp import parse_time

Row = dict[str, Any]

_HEADINGS = ("ID", "AGE", "SIZE", "TRIES", "NEXT", "WHY", "SENDER", "RECIPIENTS", "LAST REPLY")


def age_of(text: str | None, now: float) -> str:
    """Write how long ago an RFC 3339 time was; "" for none."""
    return format_age(now - parse_time(text)) if text else ""


def time_left(text: str | None, now: float) -> str:
    """Write how far an RFC 3339 time lies ahead, or "now"; "" for none."""
    if not text:
        return ""
    seconds = parse_time(text) - now
    return f"in {format_age(seconds)}" if seconds >= 1 else "now"


def format_queue(rows: Sequence[Row], now: float, width: int | None = None) -> str:
    """Lay out entries as a table: age, attempts, next try, what they wait for and the last reply."""
    return format_table(_HEADINGS, [_cells(row, now) for row in rows], width)


def format_message(shown: Row, now: float) -> str:
    """Lay out one message: its envelope and arrival, each entry, then its events."""
    message = shown["message"]
    page = format_fields([(key, value if key != "sender" else f"<{value}>") for key, value in message.items()])
    for entry in shown["entries"]:
        page += "\n" + format_fields(
            [
                ("entry", entry["entry"]),
                ("recipients", ", ".join(entry["recipients"])),
                ("queue", entry["queue"]),
                ("attempts", entry["attempts"]),
                ("why", entry["why"]),
                (
                    "next try",
                    _with_left(entry["due"], now) or "when a person acts",
                ),
                ("gives up", entry["expires"]),
                ("last reply", entry["last"]),
            ]
        )
    if shown["events"]:
        page += "\n" + "".join(format_event(event) + "\n" for event in shown["events"])
    return page


def _with_left(text: str | None, now: float) -> str:
    return f"{text} ({time_left(text, now)})" if text else ""


def _cells(row: Row, now: float) -> tuple[str, ...]:
    recipients = row["recipients"]
    first = recipients[0] if recipients else ""
    return (
        row["id"],
        age_of(row["arrived"], now),
        format_size(row["size"]),
        str(row["attempts"]),
        time_left(row.get("until") or row["due"], now) or "-",
        row["why"],
        f"<{row['sender']}>",
        first if len(recipients) < 2 else f"{first} +{len(recipients) - 1}",
        row.get("cause") or row["last"],
    )
