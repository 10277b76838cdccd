"""Reads SMTP replies out of a stream of octets, however it is cut (RFC 5321 4.2, RFC 2034)."""

import re

from smarthost.mail.reply import EnhancedStatus, Reply

MAX_LINE = 4096  # octets with the line end; RFC 5321 4.5.3.1.5 wants 512, peers send more
MAX_LINES = 128  # of one reply; a long EHLO reply has about 30
MAX_REPLY = 65536  # octets of one reply

_CACHED = 16  # replies a session hears again and again: "250 2.1.0 Ok" and the like
_CACHED_LENGTH = 128  # octets; longer lines are rarely the same twice
_HEAD = len("250 2.0.0 ")  # octets of a line before its text, as nearly all status codes are
_MARKS = (b" ", b"-", b"\r", b"")  # what may follow the code; "" and CR are a code alone, RFC 5321 4.2.1
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ProtocolFault(ValueError):
    """A peer sent what is not a reply, or too much of one. `replies` are those that were complete before it."""

    def __init__(self, reason: str, replies: tuple[Reply, ...] = ()) -> None:
        """Say what was wrong, and hand over the replies that came whole in the same octets."""
        super().__init__(reason)
        self.replies = replies


class ReplyReader:
    """Takes octets and gives replies. After a `ProtocolFault` it cannot go on: the session is of no more use."""

    __slots__ = ("_cache", "_code", "_heads", "_held", "_lines", "_size", "_status")

    def __init__(self) -> None:
        """Start between two replies."""
        self._held = b""
        self._code = 0
        self._status: EnhancedStatus | None = None
        self._lines: list[str] = []
        self._size = 0
        self._cache: dict[bytes, Reply] = {}
        self._heads: dict[bytes, tuple[int, EnhancedStatus]] = {}

    @property
    def pending(self) -> bool:
        """Whether a part of a reply has come and its end has not."""
        return bool(self._held or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """Take octets and give the replies that they complete, in order.

        A line may end in a bare LF. Text is read as UTF-8; octets that are none become "\\xNN" and control characters
        "?". Raises ProtocolFault on a line that is no reply line, codes that differ within one reply, a line over
        4096 octets, over 128 lines or over 64 KiB a reply.
        """
        if self._held:
            data = self._held + data
        lines = data.split(b"\n")
        self._held = lines.pop()
        replies: list[Reply] = []
        cached = self._cache.get
        try:
            for line in lines:
                reply = cached(line) if not self._lines else None
                if reply is None:
                    reply = self._read(line)
                if reply is not None:
                    replies.append(reply)
            if len(self._held) >= MAX_LINE:
                raise ProtocolFault("reply line too long")
        except ProtocolFault as fault:
            fault.replies = tuple(replies)
            raise
        return replies

    def _read(self, line: bytes) -> Reply | None:
        """Read one line (LF taken off); give the reply if it is its last line."""
        if len(line) >= MAX_LINE:
            raise ProtocolFault("reply line too long")
        # A reply to content names its message, so that only what is before the text is the same again and again.
        head = self._heads.get(line[:_HEAD])
        if head is not None and not self._lines:
            text = _readable(line[_HEAD:-1] if line.endswith(b"\r") else line[_HEAD:])
            return self._remember(line, Reply(*head, (text,)))
        digits = line[:3]
        mark = line[3:4]
        if not (
            digits.isdigit() and len(digits) == 3 and b"200" <= digits < b"600" and mark in (b" ", b"-", b"\r", b"")
        ):
            raise ProtocolFault(f"not a reply: {_readable(line[:80])}")
        code = int(digits)
        status, text = _split_status(digits, line[4:-1] if line.endswith(b"\r") else line[4:])
        if mark != b"-" and not self._lines:
            if status is not None and mark == b" " and line[_HEAD - 1 : _HEAD] == b" ":
                if len(self._heads) >= _CACHED:
                    self._heads.clear()
                self._heads[line[:_HEAD]] = (code, status)
            return self._remember(line, Reply(code, status or EnhancedStatus(code // 100, 0, 0), (text,)))
        self._add(code, status, text, len(line) + 1)
        return None if mark == b"-" else self._finish()

    def _remember(self, line: bytes, reply: Reply) -> Reply:
        if len(line) <= _CACHED_LENGTH:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[line] = reply
        return reply

    def _add(self, code: int, status: EnhancedStatus | None, text: str, size: int) -> None:
        if not self._lines:
            self._code = code
            self._status = status
            self._size = 0
        elif code != self._code:
            raise ProtocolFault(f"reply changes its code from {self._code} to {code}")
        self._lines.append(text)
        self._size += size
        if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
            raise ProtocolFault("reply too long")
        self._status = self._status or status

    def _finish(self) -> Reply:
        reply = Reply(self._code, self._status or EnhancedStatus(self._code // 100, 0, 0), tuple(self._lines))
        self._lines = []
        return reply


def _split_status(digits: bytes, text: bytes) -> tuple[EnhancedStatus | None, str]:
    """Take the enhanced status off a line's text; it counts only if its class is that of the code (RFC 2034 4)."""
    if text[1:2] == b"." and text[:1] == digits[:1]:
        head, _, rest = text.partition(b" ")
        parts = head.split(b".")
        if len(parts) == 3 and len(head) <= 9 and parts[1].isdigit() and parts[2].isdigit():
            return EnhancedStatus(int(parts[0]), int(parts[1]), int(parts[2])), _readable(rest)
    return None, _readable(text)


def _readable(octets: bytes) -> str:
    """Decode for people and logs: never fails, never lets a control character through."""
    text = octets.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else _UNPRINTABLE.sub("?", text)
