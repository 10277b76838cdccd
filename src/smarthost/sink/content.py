"""Takes content off the wire exactly as it came, and reads the one field of it that the sink counts by."""

_END = b"\r\n.\r\n"


class ContentCollector:
    """Collects what follows a 354 reply until CRLF "." CRLF; faster than `wire.data`, and it changes nothing.

    Bare line ends and NULs stay, so that a test sees what the relay really sent. Octets above `most` are dropped;
    `octets` counts them all, the end of data not included.
    """

    __slots__ = ("_blocks", "_most", "_tail", "octets")

    def __init__(self, most: int) -> None:
        """Start before the first octet."""
        self._blocks: list[bytes] = []
        # The CRLF of the DATA command stands before the first line, so that "." CRLF alone ends empty content.
        self._tail = b"\r\n"
        self._most = most
        self.octets = -2

    @property
    def is_too_big(self) -> bool:
        """Whether more came than is kept."""
        return self.octets > self._most

    def feed(self, chunk: bytes) -> bytes | None:
        """Take a chunk; None until the end of data, then the octets behind it."""
        block = self._tail + chunk
        end = block.find(_END)
        if end < 0:
            self._tail = block[-4:]
            self._keep(block[:-4])
            return None
        self._keep(block[: end + 2])
        self._tail = b""
        return block[end + 5 :]

    def content(self) -> bytes:
        """Give the content without the dots of transparency."""
        content = b"".join(self._blocks)
        if b"\r\n." in content:
            content = content.replace(b"\r\n.", b"\r\n")
        return content[2:]

    def _keep(self, block: bytes) -> None:
        self.octets += len(block)
        if self.octets <= self._most:
            self._blocks.append(block)


def id_of(content: bytes) -> str:
    """Give the X-Test-Id of a message, else its Message-ID, "" where it has neither."""
    end = content.find(b"\r\n\r\n")
    header = b"\r\n" + (content if end < 0 else content[: end + 2])
    lower = header.lower()
    for name in (b"\r\nx-test-id:", b"\r\nmessage-id:"):
        start = lower.find(name)
        if start >= 0:
            start += len(name)
            end = lower.find(b"\r\n", start)
            value = header[start:end].strip() or header[end : lower.find(b"\r\n", end + 2)].strip()
            return value.decode("utf-8", "replace")[:256]
    return ""
