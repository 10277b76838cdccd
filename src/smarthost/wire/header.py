"""Finds and edits the fields of a header section, octet for octet (RFC 5322 2.2, RFC 6532)."""

import re
from collections.abc import Collection, Sequence

from smarthost.wire.data import MAX_TEXT_LINE
from smarthost.wire.header_address import complete_address, every_address, first_address, replace_address
from smarthost.wire.trace import format_date, received

__all__ = [
    "Field",
    "complete_address",
    "count_fields",
    "drop_fields",
    "every_address",
    "field_value",
    "first_address",
    "fold_long_field",
    "format_date",
    "has_utf8",
    "parse_fields",
    "received",
    "replace_address",
    "split_header",
]

Field = tuple[bytes, bytes]
"""A field: its name in lower case, and its octets as they came, with folds and CRLF."""

_NAME = rb"[!-9;-~]++"
_REST = rb"[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+"
_find_fields = re.compile(rb"((" + _NAME + rb")" + _REST + rb")").findall
_SECTION = re.compile(rb"(>?From (?![ \t]*+:)[^\n]*+\n)?(?:" + _NAME + _REST + rb")*+")


def split_header(content: bytes, start: int = 0, *, whole: bool = False) -> int:
    """Give the offset of the body's first octet, behind the empty line; -1 if the header does not end yet.

    `start` octets are known to hold no empty line from an earlier call. A line that is no field ends the header too:
    its own offset is given then, so that whoever puts the fields and an empty line before the body mends the message.
    With `whole`, for content that ends here, the answer is never -1.
    """
    if content.startswith(b"\r\n"):
        return 2
    end = content.find(b"\r\n\r\n", max(start - 3, 0))
    if end < 0 and not whole:
        return -1
    section = _SECTION.match(content, 0, end + 2 if end >= 0 else len(content))
    fields_end = section.end() if section is not None else 0
    return end + 4 if fields_end == end + 2 else fields_end


def parse_fields(header: bytes) -> list[Field]:
    """Split a header section, with or without its empty line, into fields, in order.

    Each line ends in CRLF. A line that is no field ends the header; an mbox "From " line at the start is dropped.
    """
    found = _find_fields(header)
    fields = []
    size = 2 if header.endswith(b"\r\n\r\n") else 0
    for raw, name in found:
        fields.append((name.lower(), raw))
        size += len(raw)
    if size == len(header):
        # Nothing stands between the fields, as nearly always.
        return fields
    section = _SECTION.match(header)
    if section is None:
        return []
    skipped = section.end(1)
    header = header[max(skipped, 0) : section.end()]
    return [(name.lower(), raw) for raw, name in _find_fields(header)]


def field_value(raw: bytes) -> bytes:
    """Give a field's value, unfolded (RFC 5322 2.2.3) and stripped of white space at both ends."""
    return raw[raw.find(b":") + 1 :].replace(b"\r\n", b"").strip()


def count_fields(fields: Sequence[Field], name: bytes) -> int:
    """Count the fields of a name, given in lower case."""
    return sum(1 for field in fields if field[0] == name)


def drop_fields(fields: Sequence[Field], names: Collection[bytes], prefix: bytes = b"") -> list[Field]:
    """Give the fields whose lower-case name is none of `names` and does not begin with `prefix` (b"" for none)."""
    if not prefix:
        return [field for field in fields if field[0] not in names]
    return [field for field in fields if field[0] not in names and not field[0].startswith(prefix)]


def has_utf8(header: bytes) -> bool:
    """Tell whether a header section needs SMTPUTF8: it has octets above 127 and they are UTF-8 (RFC 6532 3.2).

    Octets in another, undeclared charset are no internationalised header and no extension makes them legal.
    """
    if header.isascii():
        return False
    try:
        header.decode()
    except UnicodeDecodeError:
        return False
    return True


def fold_long_field(raw: bytes, limit: int = MAX_TEXT_LINE) -> bytes:
    """Fold the lines of a field that are over a limit (octets without CRLF) at white space.

    Where a line has none in reach it is broken hard, between characters: that adds a space to the value, but longer
    lines are refused or cut on the way (RFC 5322 2.1.1).
    """
    folded: list[bytes] = []
    for line in raw.split(b"\r\n")[:-1]:
        first = line.find(b":") + 2 if not folded else 1
        while len(line) > limit:
            cut = _last_space(line, first, limit)
            if cut > 0:
                folded.append(line[:cut])
                line = line[cut:]
            else:
                cut = limit
                while cut > 1 and line[cut] & 0xC0 == 0x80:
                    cut -= 1
                folded.append(line[:cut])
                line = b" " + line[cut:]
            first = 1
        folded.append(line)
    return b"\r\n".join(folded) + b"\r\n"


def _last_space(line: bytes, first: int, limit: int) -> int:
    """Give the offset of the last white space to fold at, so that both sides keep something visible; -1 if none."""
    # Trailing white space is no place to fold at, but there may be one before it.
    end = min(limit + 1, len(line.rstrip()))
    cut = max(line.rfind(b" ", first, end), line.rfind(b"\t", first, end))
    if cut < 0 or not line[:cut].strip():
        return -1
    return cut
