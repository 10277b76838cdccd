"""Re-encodes content with lines over 998 octets, so that it can be sent everywhere (RFC 5321 4.5.3.1.6, RFC 2045 6)."""

from collections.abc import Callable, Iterable, Iterator

from smarthost.wire.data import MAX_TEXT_LINE, has_long_line
from smarthost.wire.header import fold_long_field, parse_fields
from smarthost.wire.mime_coding import Encoder, QuotedPrintable, QuotedPrintableCutter, Radix64, Radix64Cutter
from smarthost.wire.mime_parts import Coding, Kind, Part, walk

_NEW_ENCODING = {Coding.TO_QUOTED_PRINTABLE: b"quoted-printable", Coding.TO_BASE64: b"base64"}
_ENCODER: dict[Coding, Callable[[], Encoder]] = {
    Coding.TO_QUOTED_PRINTABLE: QuotedPrintable,
    Coding.TO_BASE64: Radix64,
    Coding.CUT_QUOTED_PRINTABLE: QuotedPrintableCutter,
    Coding.CUT_BASE64: Radix64Cutter,
}


def reencode(lines: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    """Give content in blocks, with no line over 998 octets where that can be done.

    Of a header each field is a block, and so is the empty line behind it, so that who edits the header finds its end.
    `lines` gives the content, CRLF line ends, from its start each time it is called, in lines or blocks of any size: it
    is read twice, and never held as a whole. Leaf parts with a long line become quoted-printable (text) or base64 (all
    else), with the header field to match; already encoded ones are cut; long header fields are folded. All else stays
    octet for octet. Left alone, long lines and all: multipart/signed and /encrypted, whose signature would break,
    message parts other than message/rfc822 and /global, unknown transfer encodings, preambles and epilogues.
    """
    long_parts = {
        part.number
        for kind, part, octets in walk(lines())
        if kind is Kind.BODY and part.coding is not Coding.LEAVE and _is_long(octets)
    }
    encoder: Encoder | None = None
    encoded = -1
    for kind, part, octets in walk(lines()):
        if encoder is not None and part.number != encoded:
            yield encoder.end(True)
            encoder = None
        if kind is Kind.HEADER:
            if part.number in long_parts:
                encoder = _ENCODER[part.coding]()
                encoded = part.number
                octets = declare(part)
            yield from _header_lines(octets)
        elif encoder is not None:
            yield encoder.feed(octets)
        else:
            yield octets
    if encoder is not None:
        yield encoder.end(False)


def _is_long(piece: bytes) -> bool:
    return len(piece) > MAX_TEXT_LINE and len(piece.removesuffix(b"\r\n")) > MAX_TEXT_LINE


def declare(part: Part) -> bytes:
    """Give a part's header with the encoding that its body gets, in the old field's place or at the end."""
    encoding = _NEW_ENCODING.get(part.coding)
    raws = [raw for _, raw in part.fields]
    if encoding is not None:
        field = b"Content-Transfer-Encoding: " + encoding + b"\r\n"
        places = [at for at, (name, _) in enumerate(part.fields) if name == b"content-transfer-encoding"]
        for at in places:
            raws[at] = b""
        if places:
            raws[places[0]] = field
        else:
            raws.append(field)
        if part.is_message and all(name != b"mime-version" for name, _ in part.fields):
            raws.append(b"MIME-Version: 1.0\r\n")
    return b"".join(raws) + b"\r\n"


def _header_lines(header: bytes) -> Iterator[bytes]:
    """Give a header field by field, long ones folded, and the empty line by itself."""
    for _, raw in parse_fields(header):
        yield fold_long_field(raw) if has_long_line(raw) else raw
    yield b"\r\n"
