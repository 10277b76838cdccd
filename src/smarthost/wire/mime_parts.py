"""Walks over a MIME message and says which octets are a part's header, its body, or between (RFC 2046)."""

import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto

import msgspec

from smarthost.wire.header import Field, field_value, parse_fields

MAX_PIECE = 8192  # octets; a longer line comes in several pieces
_MAX_HEADER = 524_288  # octets of a part's header, twice what intake takes: it adds fields; a part with more is opaque
_MAX_DEPTH = 50  # of parts within parts; deeper ones are opaque

_TYPE = re.compile(rb"\s*([!-.0-~]+)\s*/\s*([!-.0-:<-~]+)")
_BOUNDARY = re.compile(rb';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"()]+))', re.IGNORECASE)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})


class Coding(Enum):
    """What can be done about a leaf with a long line."""

    LEAVE = auto()
    TO_QUOTED_PRINTABLE = auto()
    TO_BASE64 = auto()
    CUT_QUOTED_PRINTABLE = auto()
    CUT_BASE64 = auto()


class Part(msgspec.Struct, frozen=True):
    """One part: its place in the order of the message, its fields, and what can be done about it if it is a leaf.

    `is_message` says that the header is that of a message, the whole or an attached one.
    """

    number: int
    fields: tuple[Field, ...] = ()
    coding: Coding = Coding.LEAVE
    is_message: bool = False


_NO_PART = Part(-1)


class Kind(Enum):
    """What the octets of a step are."""

    HEADER = auto()
    BODY = auto()
    BETWEEN = auto()


Step = tuple[Kind, Part, bytes]
"""Octets, what they are, and the part that they belong to; all steps' octets together are the message."""


def walk(lines: Iterable[bytes]) -> Iterator[Step]:
    """Give a message's steps in order; a header comes whole with its empty line, bodies in pieces.

    A piece ends in a line end, or has at least 8192 octets, or is the last. Opaque are, as one leaf that is best left
    alone, multipart/signed and /encrypted, multiparts without a boundary, and what cannot be read as a header.
    """
    return _Walk().steps(_pieces(lines))


class _Walk:
    def __init__(self) -> None:
        self._open: list[tuple[bytes, bytes]] = []  # the boundaries of multiparts, and the type of parts that give none
        self._count = 0
        self._depth = 0
        self._header: list[bytes] | None = None
        self._begin_header(b"text/plain", is_message=True)
        self._part = _NO_PART
        self._kind = Kind.BODY

    def steps(self, pieces: Iterable[bytes]) -> Iterator[Step]:
        at_line_start = True
        for piece in pieces:
            boundary = self._find_boundary(piece) if at_line_start and piece.startswith(b"--") else None
            if boundary is not None:
                yield from self._flush_header()
                self._pass_boundary(*boundary)
                yield Kind.BETWEEN, self._part, piece
            elif self._header is None:
                yield self._kind, self._part, piece
            else:
                self._header.append(piece)
                self._header_size += len(piece)
                if at_line_start and piece == b"\r\n":
                    yield self._end_header(b"".join(self._header))
                elif self._header_size > _MAX_HEADER:
                    yield from self._flush_header()
            at_line_start = piece.endswith(b"\n")
        yield from self._flush_header()

    def _find_boundary(self, piece: bytes) -> tuple[int, bool] | None:
        """Give the depth of the multipart whose boundary a line is, the innermost first, and whether it closes it."""
        text = piece[2:].rstrip(b" \t\r\n")
        for depth in range(len(self._open) - 1, -1, -1):
            boundary = self._open[depth][0]
            if text == boundary:
                return depth, False
            if text == boundary + b"--":
                return depth, True
        return None

    def _pass_boundary(self, depth: int, closes: bool) -> None:
        """Leave all that is open within a multipart, and it too if it ends here."""
        del self._open[depth + (not closes) :]
        self._depth = len(self._open)
        self._part = _NO_PART
        if closes:
            self._header = None
            self._kind = Kind.BETWEEN
        else:
            self._begin_header(self._open[depth][1])

    def _begin_header(self, default: bytes, *, is_message: bool = False) -> None:
        self._header = []
        self._header_size = 0
        self._default = default
        self._is_message = is_message

    def _flush_header(self) -> Iterator[Step]:
        """Give what was gathered of a header that never came to its end; the part is opaque."""
        if self._header:
            octets = b"".join(self._header)
            self._part = self._next_part((), Coding.LEAVE)
            yield Kind.BODY, self._part, octets
        self._header = None
        self._kind = Kind.BODY

    def _end_header(self, octets: bytes) -> Step:
        """Read a whole header and decide what the part is."""
        self._header = None
        self._kind = Kind.BODY
        fields = tuple(parse_fields(octets))
        if b"".join(raw for _, raw in fields) + b"\r\n" != octets:
            self._part = self._next_part((), Coding.LEAVE)
            return Kind.BODY, self._part, octets
        content_type = _value(fields, b"content-type") or self._default
        found = _TYPE.match(content_type)
        media, subtype = (found.group(1).lower(), found.group(2).lower()) if found else (b"text", b"plain")
        encoding = _value(fields, b"content-transfer-encoding").lower()
        self._part = part = self._next_part(fields, _choose_coding(media, subtype, encoding))
        self._depth += 1
        if self._depth > _MAX_DEPTH or encoding not in _IDENTITY:
            return Kind.HEADER, part, octets
        if media == b"message" and subtype in (b"rfc822", b"global"):
            self._begin_header(b"text/plain", is_message=True)
        elif media == b"multipart" and subtype not in (b"signed", b"encrypted"):
            boundary = _read_boundary(content_type)
            if boundary:
                self._open.append((boundary, b"message/rfc822" if subtype == b"digest" else b"text/plain"))
                self._kind = Kind.BETWEEN
        return Kind.HEADER, part, octets

    def _next_part(self, fields: tuple[Field, ...], coding: Coding) -> Part:
        part = Part(self._count, fields, coding, self._is_message)
        self._count += 1
        return part


def _pieces(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut and join octets so that each piece is a line, or a large part of one; a CRLF is never divided."""
    held = b""
    for block in blocks:
        *lines, held = (held + block).split(b"\n")
        for line in lines:
            line += b"\n"
            while len(line) > MAX_PIECE + 2:
                yield line[:MAX_PIECE]
                line = line[MAX_PIECE:]
            yield line
        while len(held) > MAX_PIECE + 2:
            yield held[:MAX_PIECE]
            held = held[MAX_PIECE:]
    if held:
        yield held


def _value(fields: Iterable[Field], name: bytes) -> bytes:
    return next((field_value(raw) for known, raw in fields if known == name), b"")


def _read_boundary(content_type: bytes) -> bytes:
    found = _BOUNDARY.search(content_type)
    if found is None:
        return b""
    quoted = found.group(1)
    return _ESCAPED.sub(rb"\1", quoted).rstrip() if quoted is not None else found.group(2)


def _choose_coding(media: bytes, subtype: bytes, encoding: bytes) -> Coding:
    if media == b"message" and subtype.startswith(b"global-"):
        media = b"text"  # parts of a report in UTF-8, which may be encoded (RFC 6533 3, 4, 5)
    if media in (b"multipart", b"message"):
        return Coding.LEAVE
    if encoding in _IDENTITY:
        return Coding.TO_QUOTED_PRINTABLE if media == b"text" else Coding.TO_BASE64
    if encoding == b"quoted-printable":
        return Coding.CUT_QUOTED_PRINTABLE
    return Coding.CUT_BASE64 if encoding == b"base64" else Coding.LEAVE
