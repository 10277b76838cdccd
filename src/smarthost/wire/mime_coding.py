"""Encodes bodies as quoted-printable or base64, and cuts long lines of those that are encoded already (RFC 2045 6)."""

import re
from binascii import b2a_base64, b2a_qp
from typing import Protocol

from smarthost.wire.data import MAX_TEXT_LINE

_LINE = 76  # characters, RFC 2045 6.7 (5) and 6.8
_OCTETS = 57  # that fill one line of base64
_HIGH = re.compile(rb"[\x80-\xff]")


class Encoder(Protocol):
    """Takes a body in pieces: whole lines, or large parts of a line."""

    def feed(self, piece: bytes) -> bytes:
        """Take a piece and give what can be written of it; maybe nothing yet."""
        ...

    def end(self, before_boundary: bool) -> bytes:
        """Give the rest. `before_boundary` says that the last CRLF belongs to a boundary and not to the body."""
        ...


class QuotedPrintable:
    """Encodes text as quoted-printable."""

    def feed(self, piece: bytes) -> bytes:
        """Give the piece's lines, encoded; a part of a line ends in a soft line break."""
        if piece.endswith(b"\r\n"):
            return _to_quoted_printable(piece[:-2]) + b"\r\n"
        return _to_quoted_printable(piece) + b"=\r\n"

    def end(self, before_boundary: bool) -> bytes:
        """Give nothing: no line is ever held back."""
        return b""


class Radix64:
    """Encodes octets as base64."""

    def __init__(self) -> None:
        """Start before the first octet of the body."""
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Give whole lines; the last two octets are held back, which may be a boundary's CRLF."""
        held = self._held + piece
        ready = max(len(held) - 2, 0) // _OCTETS * _OCTETS
        self._held = held[ready:]
        return _to_radix64(held[:ready])

    def end(self, before_boundary: bool) -> bytes:
        """Give the last lines, and the CRLF that the boundary needs even if the body is empty."""
        held = self._held
        if before_boundary and held.endswith(b"\r\n"):
            held = held[:-2]
        return _to_radix64(held)


class QuotedPrintableCutter:
    """Puts soft line breaks into the lines of a quoted-printable body that are over 998 octets."""

    def __init__(self) -> None:
        """Start before the first octet of the body."""
        self._held = b""
        self._is_open = False

    def feed(self, piece: bytes) -> bytes:
        """Give short lines as they are and long ones cut; "=XX" is never divided."""
        ends = piece.endswith(b"\r\n")
        if not self._is_open and len(piece) <= MAX_TEXT_LINE + 2:
            return piece
        text = self._held + (piece[:-2] if ends else piece)
        lines = []
        # While the line goes on, two octets stay, so that its last "=XX" is seen whole.
        while len(text) > _LINE + (0 if ends else 2):
            cut = _LINE - 1
            if b"=" in text[cut - 2 : cut]:
                cut = text.index(b"=", cut - 2)
            lines.append(text[:cut] + b"=\r\n")
            text = text[cut:]
        self._held = b"" if ends else text
        self._is_open = not ends
        return b"".join(lines) + (text + b"\r\n" if ends else b"")

    def end(self, before_boundary: bool) -> bytes:
        """Give what is left of a last line without line end."""
        return self._held


class QuotedPrintableMender(QuotedPrintableCutter):
    """Writes octets above 127 as "=XX" in a quoted-printable body that must not have any (RFC 2045 6.7)."""

    def feed(self, piece: bytes) -> bytes:
        """Give the piece mended, and cut where it is long."""
        return super().feed(_HIGH.sub(lambda found: b"=%02X" % found[0][0], piece))


class Radix64Cutter:
    """Cuts the lines of a base64 body that are over 998 octets at 76."""

    def __init__(self) -> None:
        """Start before the first octet of the body."""
        self._held = b""
        self._is_open = False

    def feed(self, piece: bytes) -> bytes:
        """Give short lines as they are and long ones cut."""
        ends = piece.endswith(b"\r\n")
        if not self._is_open and len(piece) <= MAX_TEXT_LINE + 2:
            return piece
        text = self._held + (piece[:-2] if ends else piece)
        whole = len(text) if ends else len(text) // _LINE * _LINE
        self._held = text[whole:]
        self._is_open = not ends
        return b"".join(text[at : min(at + _LINE, whole)] + b"\r\n" for at in range(0, whole, _LINE))

    def end(self, before_boundary: bool) -> bytes:
        """Give what is left of a last line without line end."""
        return self._held


class Radix64Mender(Radix64Cutter):
    """Leaves octets above 127 out of a base64 body: whoever decodes it would pass over them (RFC 2045 6.8)."""

    def feed(self, piece: bytes) -> bytes:
        """Give the piece mended, and cut where it is long."""
        return super().feed(_HIGH.sub(b"", piece))


def _to_quoted_printable(text: bytes) -> bytes:
    return b2a_qp(text, istext=True).replace(b"=\n", b"=\r\n")


def _to_radix64(octets: bytes) -> bytes:
    lines = (octets[at : at + _OCTETS] for at in range(0, len(octets), _OCTETS))
    return b"".join(b2a_base64(line, newline=False) + b"\r\n" for line in lines)
