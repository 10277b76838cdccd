"""Takes the base64 of attachments out of a request in JSON while it comes, so that none is ever whole in memory."""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

import msgspec

LONG = 64 * 1024  # characters; a content that has no more stays where it is
_KEY = b"content"
_QUOTE = ord('"')
_RUN = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # of a string: up to its end, or half an escape
_ESCAPE = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|([/nrt]))")
_BEGUN_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")


class Span(msgspec.Struct, frozen=True, gc=False):
    """Where a content is among the octets that were taken out, and how many it has; whether it was base64 at all."""

    offset: int
    size: int
    is_good: bool


class LongContents:
    """A scan over JSON in blocks of any size. Strings named "content" of more than `LONG` characters are decoded.

    `kept` is the JSON with something short in the place of each of them: its base64 is that of a key of `spans`. What
    is not JSON stays as it is, for who reads `kept` to find.
    """

    def __init__(self, unique: bytes, room: int) -> None:
        """Start before the first octet.

        `unique` are octets that nobody who wrote the request can know; of more than `room` octets the rest is counted
        only.
        """
        self.kept = bytearray()
        self.spans: dict[bytes, Span] = {}
        self._unique, self._room = unique, room
        self._offset = 0  # of what was taken out
        self._out: list[bytes] = []
        self._gap = b""  # what stood between the last string and here, without blanks
        self._last = b""  # the last string, if it was short
        self._text: bytearray | None = None  # the string that is being read, None outside of any
        self._is_escaped = self._is_content = self._is_plain = False
        self._taken: _Radix64 | None = None

    def feed(self, block: bytes) -> bytes:
        """Take a block, and give the octets that were taken out of it."""
        position, end = 0, len(block)
        while position < end:
            position = self._outside(block, position) if self._text is None else self._inside(block, position)
        taken, self._out = b"".join(self._out), []
        return taken

    def _outside(self, block: bytes, position: int) -> int:
        """Go on to the next string."""
        quote = block.find(b'"', position)
        gap = block[position : quote if quote >= 0 else len(block)]
        self.kept += gap
        if len(self._gap) < 2:
            self._gap += gap.translate(None, b" \t\r\n")[:2]
        if quote < 0:
            return len(block)
        self._is_content = self._gap == b":" and self._last == _KEY
        self._text, self._is_plain, self._gap = bytearray(), False, b""
        return quote + 1

    def _inside(self, block: bytes, position: int) -> int:
        """Go on to the end of a string."""
        if self._is_escaped:
            self._is_escaped = False
            self._add(block[position : position + 1])
            return position + 1
        end = _RUN.match(block, position).end()  # type: ignore[union-attr]  # it matches nothing, too
        self._add(block[position:end])
        if end == len(block):
            return end
        if block[end] == _QUOTE:
            self._end_string()
        else:
            self._is_escaped = True
            self._add(b"\\")
        return end + 1

    def _add(self, part: bytes) -> None:
        """Take a part of a string: it is decoded, or kept, or nobody can tell yet."""
        text = self._text
        assert text is not None
        if self._taken is not None:
            self._put(self._taken.feed(part))
        elif self._is_plain:
            self.kept += part
        else:
            text += part
            if len(text) > LONG:
                if self._is_content:
                    self._taken = _Radix64()
                    self._put(self._taken.feed(bytes(text)))
                else:
                    self._is_plain = True
                    self.kept += b'"' + text
                text.clear()

    def _end_string(self) -> None:
        text = self._text
        assert text is not None
        self._last = b""
        if self._taken is not None:
            is_good, size = self._taken.end(), self._taken.size
            token = self._unique + b"%d" % len(self.spans)
            self.spans[token] = Span(self._offset - size, size, is_good)
            self.kept += b'"' + b2a_base64(token, newline=False) + b'"'
            self._taken = None
        elif self._is_plain:
            self.kept += b'"'
        else:
            self.kept += b'"' + text + b'"'
            if len(text) <= len(_KEY):
                self._last = bytes(text)
        self._text = None

    def _put(self, octets: bytes) -> None:
        self._offset += len(octets)
        if octets and self._offset <= self._room:
            self._out.append(octets)


class _Radix64:
    """Decodes one string of base64 as JSON has it, with line ends or without."""

    def __init__(self) -> None:
        self.size = 0
        self._held = b""  # an escape, or a group of four, that is not whole yet
        self._is_good, self._is_over = True, False

    def feed(self, part: bytes) -> bytes:
        """Take a part of the string, and give the octets that are whole."""
        if not self._is_good:
            return b""
        text = self._held + part
        begun = b""
        if b"\\" in text:
            if (found := _BEGUN_ESCAPE.search(text)) is not None:
                text, begun = text[: found.start()], found[0]
            text = _ESCAPE.sub(_unescape, text)
        if b" " in text:
            text = text.replace(b" ", b"")
        if self._is_over and text:
            self._is_good = False
            return b""
        whole = len(text) // 4 * 4
        self._held = text[whole:] + begun
        try:
            octets = a2b_base64(text[:whole], strict_mode=True)
        except Base64Error:
            self._is_good = False
            return b""
        self._is_over = text[:whole].endswith(b"=")
        self.size += len(octets)
        return octets

    def end(self) -> bool:
        """Whether it was base64, and whole."""
        return self._is_good and not self._held


def _unescape(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        return b"/" if found[2] == b"/" else b""
    octet = bytes.fromhex(found[1].decode())
    return b"" if octet in (b"\n", b"\r", b"\t", b" ") else octet
