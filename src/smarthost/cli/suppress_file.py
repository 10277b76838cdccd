"""Reads and writes suppression lists as files: CSV with a heading, or an address a line, as providers export them."""

import csv
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TextIO

from smarthost.cli.exits import CommandFailed, misused
from smarthost.report.timestamp import parse_time

COLUMNS = ("address", "user", "suppressed", "failures", "since", "expires", "origin", "reason")
_ADDRESS = ("address", "email", "recipient", "email address", "email_address")


class Wanted(NamedTuple):
    """One address to be suppressed, as a file has it; `expires` is a Unix time, None for never."""

    address: str
    user: str
    reason: str
    expires: float | None


def read_list(file: TextIO, user: str | None) -> Iterator[Wanted]:
    """Give the addresses of a file. With a heading that names a column for them it is CSV, else an address a line.

    Empty lines and those that begin with "#" are passed over, and so are rows whose column `suppressed` says no. `user`
    takes the place of the column `user`. Raises CommandFailed (65) for a line that cannot be read.
    """
    rows = csv.reader(line for line in file if line.strip() and not line.startswith("#"))
    heading: list[str] = []
    at_top = True
    try:
        for row in rows:
            names = [cell.strip().lstrip("\ufeff").lower() for cell in row]
            is_first, at_top = at_top, False
            if is_first and not any("@" in name for name in names):
                if not set(names) & set(_ADDRESS):
                    raise CommandFailed(
                        f"the heading {', '.join(row)!r:.80} names no column of addresses: address, email or recipient",
                        os.EX_DATAERR,
                    )
                heading = names
                continue
            cells = dict(zip(heading or ["address"], (cell.strip() for cell in row), strict=False))
            if cells.get("suppressed", "true").lower() in ("false", "no", "0"):
                continue
            yield _wanted(cells, user, rows.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise CommandFailed(f"line {rows.line_num + 1} cannot be read: {error}", os.EX_DATAERR) from None


def _wanted(cells: dict[str, str], user: str | None, line: int) -> Wanted:
    address = next((cells[name] for name in _ADDRESS if cells.get(name)), "")
    try:
        expires = parse_time(cells["expires"]) if cells.get("expires") else None
    except ValueError:
        raise CommandFailed(f"line {line}: {cells['expires']!r} is no time of RFC 3339", os.EX_DATAERR) from None
    return Wanted(address, cells.get("user", "") if user is None else user, cells.get("reason", ""), expires)


def write_list(rows: Iterable[dict[str, Any]], file: TextIO) -> int:
    """Write rows as CSV with a heading; gives how many."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        values = (row.get(name) for name in COLUMNS)
        writer.writerow(
            "" if value is None else str(value).lower() if value in (True, False) else value for value in values
        )
        count += 1
    return count


def open_input(name: str) -> TextIO:
    """Open a file for reading; raises CommandFailed (64) when it cannot be."""
    try:
        return open(name, encoding="utf-8", newline="")
    except OSError as error:
        raise misused(f"{name}: {error.strerror or error}") from None
