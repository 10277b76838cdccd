"""Converts content for hosts that lack 8BITMIME or SMTPUTF8: bodies and header fields in ASCII (RFC 6152 3, 6857)."""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from types import MappingProxyType

from smarthost.wire.data import MAX_TEXT_LINE
from smarthost.wire.encoded_word import downgrade_field
from smarthost.wire.header import Field, field_value, parse_fields
from smarthost.wire.mime import declare
from smarthost.wire.mime_coding import Encoder, QuotedPrintable, QuotedPrintableMender, Radix64, Radix64Mender
from smarthost.wire.mime_parts import Coding, Kind, Part, walk

Blocks = Callable[[], Iterable[bytes]]

_ENCODER: MappingProxyType[Coding, Callable[[], Encoder]] = MappingProxyType(
    {
        Coding.TO_QUOTED_PRINTABLE: QuotedPrintable,
        Coding.TO_BASE64: Radix64,
        Coding.CUT_QUOTED_PRINTABLE: QuotedPrintableMender,
        Coding.CUT_BASE64: Radix64Mender,
    }
)
_NOT_ASCII = bytes(range(128)) + b"?" * 128


class Obstacle(StrEnum):
    """Why content cannot be converted, as the end of a sentence."""

    SEALED = "a part with 8-bit text must not be changed: it is signed, encrypted, or not to be understood"
    HEADER = "a header field has an address or a machine's word that ASCII has no way to write"


def to_ascii_header(blocks: Blocks) -> Iterator[bytes] | Obstacle:
    """Give content whose header is in ASCII; the body stays octet for octet.

    Each header field is a block, and so is the empty line behind it, as `mime.reencode` gives them. `blocks` gives the
    content from its start each time it is called, CRLF line ends.
    """
    header = next((octets for kind, part, octets in walk(blocks()) if kind is Kind.HEADER), b"")
    if not _can_be_ascii(parse_fields(header)):
        return Obstacle.HEADER
    return _with_ascii_header(blocks)


def to_seven_bit(blocks: Blocks) -> Iterator[bytes] | Obstacle:
    """Give content in ASCII throughout, in blocks as `to_ascii_header` does.

    Leaf parts with octets above 127, or with lines over 998 octets, become quoted-printable (text) or base64 (all
    else); what is around them and declares 8bit declares 7bit. All other parts stay octet for octet. What must not be
    changed is an obstacle: multipart/signed and /encrypted, and what cannot be read as MIME.
    """
    marked: set[int] = set()
    for kind, part, octets in walk(blocks()):
        if kind is Kind.BODY and part.coding is not Coding.LEAVE and _is_long(octets):
            marked.add(part.number)
        if octets.isascii():
            continue
        if kind is Kind.HEADER and not _can_be_ascii(part.fields):
            return Obstacle.HEADER
        if kind is Kind.BODY:
            if part.coding is Coding.LEAVE:
                return Obstacle.SEALED
            marked.add(part.number)
    return _in_ascii(blocks, marked)


def _with_ascii_header(blocks: Blocks) -> Iterator[bytes]:
    is_first = True
    for kind, part, octets in walk(blocks()):
        if kind is Kind.HEADER and is_first:
            yield from _header(part.fields)
        else:
            yield octets
        is_first = False


def _in_ascii(blocks: Blocks, marked: set[int]) -> Iterator[bytes]:
    encoder: Encoder | None = None
    encoded = -1
    for kind, part, octets in walk(blocks()):
        if encoder is not None and part.number != encoded:
            yield encoder.end(True)
            encoder = None
        if kind is Kind.HEADER:
            if part.number in marked:
                encoder, encoded = _ENCODER[part.coding](), part.number
                yield from _header(parse_fields(declare(part)))
            else:
                yield from _header([_narrowed(part, field) for field in part.fields])
        elif encoder is not None:
            yield encoder.feed(octets)
        else:
            # Outside of the parts, where nobody reads (RFC 2046 5.1.1), a letter may be lost.
            yield octets if octets.isascii() else octets.translate(_NOT_ASCII)
    if encoder is not None:
        yield encoder.end(False)


def _header(fields: Iterable[Field]) -> Iterator[bytes]:
    for name, raw in fields:
        written = downgrade_field(name, raw)
        assert written is not None, "it was looked at before"
        if written:
            yield written
    yield b"\r\n"


def _can_be_ascii(fields: Iterable[Field]) -> bool:
    return all(downgrade_field(name, raw) is not None for name, raw in fields)


def _narrowed(part: Part, field: Field) -> Field:
    """Give a field of a part that is not encoded: what contains others has no 8-bit part in it any more."""
    name, raw = field
    if name != b"content-transfer-encoding" or field_value(raw).lower() not in (b"8bit", b"binary"):
        return field
    types = [field_value(raw).lower() for name, raw in part.fields if name == b"content-type"]
    if types and types[0].startswith((b"multipart/", b"message/")):
        return name, raw[: raw.index(b":") + 1] + b" 7bit\r\n"
    return field


def _is_long(piece: bytes) -> bool:
    return len(piece) > MAX_TEXT_LINE and len(piece.removesuffix(b"\r\n")) > MAX_TEXT_LINE
