"""Finds and edits the fields of a header section, octet for octet (RFC 5322 2.2, RFC 6532)."""

import re
from collections.abc import Collection, Sequence

from smarthost.wire.data import MAX_TEXT_LINE
from smarthost.wire.header_address import complete_address, every_address, first_address, replace_address
from smarthost.wire.trace import format_date, received

__all__ = [
    "Field",
    "complete_address",
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
    "split_fields",
    "split_header",
]

Field = tuple[bytes, bytes]
"""A field: its name in lower case, and its octets as they came, with folds and CRLF."""

_NAME = rb"[!-9;-~]++"
# No possessive groups: before Python 3.11.5 they pass over what their last, failing turn had tried. Nor is one needed:
# what follows a group here never fails, so that nothing is tried again.
_REST = rb"[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*"
# Tried at the beginning of each line only: a line of many octets that is no field costs no more than its length.
_find_fields = re.compile(rb"^((" + _NAME + rb")" + _REST + rb")", re.MULTILINE).findall
_SECTION = re.compile(rb"(>?From (?![ \t]*+:)[^\n]*+\n)?(?:" + _NAME + _REST + rb")*")


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


def split_fields(content: bytes, start: int = 0, *, whole: bool = False) -> tuple[int, list[Field]]:
    """Give what `split_header` gives, and the fields before that offset; no fields while the header does not end."""
    end = content.find(b"\r\n\r\n", max(start - 3, 0)) + 2
    if end >= 2:
        found = _find_fields(content[:end])
        if sum([len(raw) for raw, _ in found]) == end:
            # Fields and nothing else, as nearly always: the section need not be searched for its end.
            return end + 2, [(name.lower(), raw) for raw, name in found]
    offset = split_header(content, start, whole=whole)
    return offset, parse_fields(content[:offset]) if offset >= 0 else []


def parse_fields(header: bytes) -> list[Field]:
    """Split a header section, with or without its empty line, into fields, in order.

    Each line ends in CRLF. A line that is no field ends the header; an mbox "From " line at the start is dropped.
    """
    found = _find_fields(header)
    size = sum([len(raw) for raw, _ in found])
    if size != len(header) - (2 if header.endswith(b"\r\n\r\n") else 0):
        # Something stands between the fields.
        section = _SECTION.match(header)
        if section is None:
            return []
        found = _find_fields(header[max(section.end(1), 0) : section.end()])
    return [(name.lower(), raw) for raw, name in found]


def field_value(raw: bytes) -> bytes:
    """Give a field's value, unfolded (RFC 5322 2.2.3) and stripped of white space at both ends."""
    return raw[raw.find(b":") + 1 :].replace(b"\r\n", b"").strip()


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
