"""Makes a message that comes as a file ready to be kept: CRLF at the end of each line, whatever stood there."""

import re

from smarthost.wire.data import DataFault

_LONE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineEnds:
    """Takes octets in blocks of any size and gives them with CRLF line ends only.

    A bare CR or LF becomes CRLF, or is the fault BARE_NEWLINE if `reject_bare`; NUL is always a fault. After a fault
    nothing more is given. A CR at the end of a block is held back until it is clear what follows.
    """

    __slots__ = ("_held", "_reject_bare", "fault")

    def __init__(self, reject_bare: bool) -> None:
        """Start before the first octet."""
        self._reject_bare = reject_bare
        self._held = b""
        self.fault: DataFault | None = None

    def feed(self, block: bytes) -> bytes:
        """Take a block; give what is ready, maybe nothing."""
        if self._held:
            block = self._held + block
            self._held = b""
        if block.endswith(b"\r"):
            self._held, block = b"\r", block[:-1]
        return self._clean(block)

    def end(self) -> bytes:
        """Give what was held back."""
        held, self._held = self._held, b""
        return self._clean(held)

    def _clean(self, block: bytes) -> bytes:
        if b"\0" in block:
            self.fault = DataFault.NUL
        if self.fault is not None:
            return b""
        count = block.count(b"\n")
        if count == block.count(b"\r") == block.count(b"\r\n"):
            return block
        if self._reject_bare:
            self.fault = DataFault.BARE_NEWLINE
            return b""
        return _LONE.sub(b"\r\n", block)
