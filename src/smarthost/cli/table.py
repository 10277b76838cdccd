"""Tables for people: aligned columns that fit the terminal, and ages and sizes in few characters."""

import shutil
import unicodedata
from collections.abc import Sequence
from typing import Any

GAP = "  "
NARROWEST = 6  # characters that a column keeps when the table is too wide


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Lay out rows under headings, one line each, with a newline at the end of every line.

    `width` is that of the terminal unless given; the widest columns give way first, and cut text ends in "…".
    Control characters, which a peer may have put into its reply, are shown as "?".
    """
    if width is None:
        width = shutil.get_terminal_size((120, 24)).columns
    clean = [[_printable(cell) for cell in row] for row in (headings, *rows)]
    columns = [max(_columns(cell) for cell in column) for column in zip(*clean, strict=True)]
    _narrow(columns, width - len(GAP) * (len(columns) - 1))
    lines = []
    for row in clean:
        cells = [_fit(cell, column) for cell, column in zip(row, columns, strict=True)]
        lines.append(GAP.join(cells).rstrip() + "\n")
    return "".join(lines)


def format_fields(fields: Sequence[tuple[str, Any]]) -> str:
    """Lay out names and values, one a line; those without a value are left out."""
    shown = [(name, _printable(_write(value))) for name, value in fields if value not in (None, "", [], (), {})]
    width = max((len(name) for name, _ in shown), default=0)
    return "".join(f"{name:>{width}}  {value}\n" for name, value in shown)


def format_age(seconds: float) -> str:
    """Write a time span by its two largest units: "12s", "4m10s", "3h05m", "2d04h"."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def format_size(octets: int) -> str:
    """Write a size in octets by one unit: "812", "10.2K", "3.4M"."""
    if octets < 1000:
        return str(octets)
    size = float(octets)
    for unit in "KMGT":
        size /= 1024
        if size < 999.95:
            return f"{size:.1f}{unit}"
    return f"{size:.1f}P"


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def printable(text: str) -> str:
    """Give a text in which nothing would be obeyed by a terminal."""
    return _printable(text)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(mark if mark.isprintable() else "?" for mark in text)


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_mark_columns(mark) for mark in text)


def _mark_columns(mark: str) -> int:
    if unicodedata.combining(mark):
        return 0
    return 2 if unicodedata.east_asian_width(mark) in "WF" else 1


def _narrow(columns: list[int], room: int) -> None:
    """Take from the widest columns, one step at a time, until all fit or none can give more."""
    excess = sum(columns) - room
    while excess > 0:
        widest = max(columns)
        if widest <= NARROWEST:
            return
        second = max((column for column in columns if column < widest), default=NARROWEST)
        as_wide = [number for number, column in enumerate(columns) if column == widest]
        step = min(widest - max(second, NARROWEST), -(-excess // len(as_wide)))
        for number in as_wide:
            taken = min(step, excess)
            columns[number] -= taken
            excess -= taken


def _fit(text: str, width: int) -> str:
    used = _columns(text)
    if used <= width:
        return text + " " * (width - used)
    kept = []
    used = 1
    for mark in text:
        used += _mark_columns(mark)
        if used > width:
            used -= _mark_columns(mark)
            break
        kept.append(mark)
    return "".join(kept) + "…" + " " * (width - used)
