"""Bodies as they are transferred: line ends, the choice of encoding, and base64 in lines for what comes in blocks."""

import re
from binascii import b2a_base64, b2a_qp

import msgspec

LONGEST_LINE = 990  # octets of a line that goes as it is; RFC 5322 2.1.1 allows 998
_LINE = 76  # characters of a line of base64, RFC 2045 6.8
_OCTETS = 57  # that fill it
_ODD = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]")  # controls that some relays change or refuse


class Body(msgspec.Struct, frozen=True, gc=False):
    """A text as it stands in a message: ASCII with CRLF, the last line ended, and how it is encoded."""

    charset: str
    encoding: str
    octets: str


def encode_body(text: str) -> Body:
    """Choose how a text is transferred: as it is if it is ASCII in short lines, else by what takes less."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.endswith("\n"):
        text += "\n"
    is_ascii = text.isascii()
    lines = text.split("\n")
    if is_ascii and max(map(len, lines)) <= LONGEST_LINE and _is_plain(text, lines):
        return Body("us-ascii", "7bit", text.replace("\n", "\r\n"))
    octets = text.replace("\n", "\r\n").encode("utf-8", "replace")
    # Of quoted-printable an octet beyond ASCII takes three characters, of base64 every one takes four thirds.
    beyond = 0 if is_ascii else len(octets) - len(octets.translate(None, _BEYOND))
    charset = "us-ascii" if is_ascii else "utf-8"
    if beyond * 6 > len(octets):
        return Body(charset, "base64", radix64_lines(octets).decode("ascii"))
    return Body(charset, "quoted-printable", b2a_qp(octets, istext=True).decode("ascii"))


def _is_plain(text: str, lines: list[str]) -> bool:
    """Whether there are no controls in a text; one that has tabs only is looked at by the slower way."""
    return all(map(str.isprintable, lines)) or _ODD.search(text) is None


_BEYOND = bytes(range(128, 256))


def radix64_lines(octets: bytes) -> bytes:
    """Give octets as base64 in lines of 76 characters, each ended by CRLF."""
    text = b2a_base64(octets, newline=False)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    lines.append(b"")
    return b"\r\n".join(lines)


def radix64_size(octets: int) -> int:
    """Give the length of what `radix64_lines` makes of so many octets."""
    characters = (octets + 2) // 3 * 4
    return characters + (characters + _LINE - 1) // _LINE * 2


class Radix64Lines:
    """Encodes octets that come in blocks of any size; what fills no line is held back."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        """Start before the first octet."""
        self._held = b""

    def feed(self, block: bytes) -> bytes:
        """Take a block and give the whole lines that there are now, maybe none."""
        if self._held:
            block = self._held + block
        ready = len(block) // _OCTETS * _OCTETS
        self._held = block[ready:]
        return radix64_lines(block[:ready]) if ready else b""

    def end(self) -> bytes:
        """Give the last line."""
        held, self._held = self._held, b""
        return radix64_lines(held)
