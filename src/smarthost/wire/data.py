"""Reads and writes content as DATA carries it: dot transparency, the end of data, line ends (RFC 5321 4.5.2)."""

import re
from enum import StrEnum
from io import IncrementalNewlineDecoder

_CRLF = b"\r\n"
_END = b"\r\n.\r\n"
_END_OCTETS = frozenset(b"\r\n.")
_DOT = 0x2E
_END_STARTS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
_CLEAN_NEWLINES = ("\r\n", None)  # what the newline decoder says it saw
_NEWLINE = re.compile(rb"\r\n|\r|\n")
# A literal; but the expression engine looks for its first octet and so is faster over lines than bytes.find.
_find_dotted_line = re.compile(rb"\r\n\.").search

MAX_TEXT_LINE = 998  # octets without CRLF, RFC 5322 2.1.1


class DataFault(StrEnum):
    """Why content cannot be taken."""

    BARE_NEWLINE = "bare newline"
    NUL = "nul"


class DataReader:
    """Takes what follows a 354 reply, in chunks of any size, and gives clean content in blocks.

    Only CRLF "." CRLF ends content (or "." CRLF at its very start), so no other ending can smuggle a second message.
    A bare CR or LF becomes CRLF, or is the fault BARE_NEWLINE if `reject_bare`. A dot is taken off only behind a CRLF
    that was really sent. NUL is always a fault. After a fault nothing more is given, but the end is still searched for.

    `ended` says that the end was seen; `rest` are the octets behind it; `fault` is the worst that was found (NUL
    before BARE_NEWLINE, however the octets were cut); `raw_size` counts octets that were taken, the end included;
    `is_dotted` is false as long as certainly no line of what was given begins with a dot.
    """

    __slots__ = ("_at_start", "_held", "_reject_bare", "ended", "fault", "is_dotted", "raw_size", "rest")

    def __init__(self, reject_bare: bool) -> None:
        """Start before the first octet of the content."""
        self._reject_bare = reject_bare
        # The CRLF that ended the DATA command counts as the one before the first line; it is never given out.
        self._held = _CRLF
        self._at_start = True
        self.ended = False
        self.rest = b""
        self.fault: DataFault | None = None
        self.is_dotted = False
        self.raw_size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk; give no block or one, un-stuffed, with CRLF line ends only.

        The few octets that may be the beginning of the end are held back until it is clear.
        Raises ValueError after the end.
        """
        if self.ended:
            raise ValueError("content has ended")
        self.raw_size += len(chunk)
        held = self._held
        if not held:
            block = chunk
        elif self._at_start and held is _CRLF and chunk and chunk[0] != _DOT:
            # Only a dot needs the CRLF before the first line.
            self._at_start = False
            block = chunk
        else:
            block = held + chunk
        start = end = -1
        dotted = _find_dotted_line(block)
        if dotted is not None:
            start = dotted.start()
            end = block.find(_END, start)
        if end >= 0:
            self.ended = True
            self._held = b""
            if end + 5 < len(block):
                self.rest = rest = block[end + 5 :]
                self.raw_size -= len(rest)
            block = block[: end + 2]
            is_dotted = start < end
        elif block and block[-1] in _END_OCTETS:
            self._held = held = _start_of_end(block)
            if held:
                block = block[: -len(held)]
            is_dotted = 0 <= start < len(block) - 2
        else:
            self._held = b""
            is_dotted = start >= 0
        # Nothing that is cut off here can make or unmake a pair of CR and LF, or a dot behind one, in what is left.
        return self._clean(block, is_dotted) if block else []

    def _clean(self, block: bytes, is_dotted: bool) -> list[bytes]:
        """Un-stuff and normalise a block; give nothing where there is a fault."""
        if b"\0" in block:
            self.fault = DataFault.NUL
        if self.fault is not None:
            return []
        if is_dotted:
            self.is_dotted = True
            block = block.replace(b"\r\n.", b"\r\n")
        # The newline decoder notes which kinds it saw in one pass; counting each kind takes three, at thrice the time.
        newlines = IncrementalNewlineDecoder(None, False)
        newlines.decode(block.decode("latin-1"), True)
        if newlines.newlines not in _CLEAN_NEWLINES:
            if self._reject_bare:
                self.fault = DataFault.BARE_NEWLINE
                return []
            # A dot behind a bare newline stands at the beginning of a line now.
            self.is_dotted = True
            block = _NEWLINE.sub(b"\r\n", block)
        if self._at_start:
            self._at_start = False
            block = block[2:]
        return [block] if block else []


class Stuffer:
    """Makes content, block by block, ready to be sent behind a 354 reply."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        """Start before the first octet of the content."""
        self._tail = b"\r\n"

    def feed(self, block: bytes) -> bytes:
        """Give a block with a second dot before each line that begins with one."""
        tail = self._tail
        block = tail + block
        self._tail = block[-2:]
        return block.replace(b"\r\n.", b"\r\n..")[len(tail) :]

    def end(self) -> bytes:
        """Give the end of data, with a CRLF before it if the content did not end in one."""
        return b".\r\n" if self._tail == b"\r\n" else _END


class LongLineScan:
    """Looks for a line over a limit (octets without CRLF) in content that comes in blocks; `found` is the answer."""

    __slots__ = ("_limit", "_open", "found")

    def __init__(self, limit: int = MAX_TEXT_LINE) -> None:
        """Start before the first octet of the content, whose line ends are CRLF."""
        self._limit = limit
        self._open = 0
        self.found = False

    def feed(self, block: bytes) -> None:
        """Look through one more block; a last line without line end counts as it is."""
        if self.found or not block:
            return
        rfind, size, reach = block.rfind, len(block), self._limit + 2
        line, start = -self._open, 0
        # From the beginning of a line, jump behind the last line end within reach: a step per window, not per line.
        while (end := line + reach) < size:
            line = start = rfind(b"\n", start, end) + 1
            if not line:
                self.found = True
                return
        ended = rfind(b"\n", start) + 1
        if ended:
            line = ended
        self._open = open_octets = size - line
        if open_octets >= self._limit:
            self.found = open_octets > self._limit + block.endswith(b"\r")


def stuff(content: bytes) -> bytes:
    """Give whole content as it is sent behind a 354 reply: dots doubled at line starts, the end of data appended."""
    if content.startswith(b"."):
        content = b"." + content
    # Where there is no dot to double, `replace` gives the content itself, not a copy.
    content = content.replace(b"\r\n.", b"\r\n..")
    return content + (b".\r\n" if content.endswith(b"\r\n") or not content else _END)


def has_long_line(content: bytes, limit: int = MAX_TEXT_LINE) -> bool:
    """Tell whether content with CRLF line ends has a line over a limit, in octets without CRLF."""
    scan = LongLineScan(limit)
    scan.feed(content)
    return scan.found


def _start_of_end(block: bytes) -> bytes:
    """Give the longest end of a block with which the end of data may begin."""
    for start in _END_STARTS:
        if block.endswith(start):
            return start
    return b""
