"""Replies and enhanced status codes, and the named replies that we give (RFC 5321 4.2, RFC 3463)."""

from functools import lru_cache

import msgspec


class EnhancedStatus(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An enhanced mail system status code (RFC 3463); its class digit is the truth about permanence."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        """Write it as "5.1.1"."""
        return _status_text(self)

    @classmethod
    def parse(cls, text: str) -> "EnhancedStatus":
        """Read "5.1.1"; raises ValueError when the text is not a status."""
        klass, subject, detail = text.split(".")
        return cls(int(klass), int(subject), int(detail))


# A site answers with a few statuses again and again, and so do we.
@lru_cache(maxsize=256)
def _status_text(status: EnhancedStatus) -> str:
    return f"{status.klass}.{status.subject}.{status.detail}"


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One SMTP reply, a peer's or ours.

    `code` is the three digits; `status` is always there: the one that was sent if it agrees in class with the code,
    else X.0.0; `lines` are the texts without code and enhanced status, at least one, maybe "".
    """

    code: int
    status: EnhancedStatus
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines as one, joined by a space."""
        return " ".join(self.lines)

    @property
    def is_positive(self) -> bool:
        """Whether the command was accepted (2yz)."""
        return 200 <= self.code < 300

    def __str__(self) -> str:
        """Write it on one line, as for a log: "550 5.1.1 no such user"."""
        return f"{self.code} {self.status} {self.text}".rstrip()

    def encode(self) -> bytes:
        """Write it as octets for the wire, each line with code and enhanced status (RFC 2034), CRLF at each end."""
        *first, last = self.lines
        lines = [f"{self.code}-{self.status} {line}\r\n" for line in first]
        return "".join([*lines, f"{self.code} {self.status} {last}\r\n"]).encode("utf-8", "replace")


def make_reply(code: int, status: str, *lines: str) -> Reply:
    """Build a reply from its code, its status as "5.1.1" and its text."""
    return Reply(code, EnhancedStatus.parse(status), lines or ("",))


OK = make_reply(250, "2.0.0", "Ok")
MAIL_OK = make_reply(250, "2.1.0", "Sender ok")
RCPT_OK = make_reply(250, "2.1.5", "Recipient ok")
BYE = make_reply(221, "2.0.0", "Bye")
SHUTTING_DOWN = make_reply(421, "4.3.2", "Service is shutting down")
SESSION_TIMEOUT = make_reply(421, "4.4.2", "Timeout, closing")
TOO_MANY_ERRORS = make_reply(421, "4.7.0", "Too many errors, closing")
TOO_MANY_CONNECTIONS = make_reply(421, "4.7.0", "Too many connections from your address")
TOO_MANY_FAILURES = make_reply(421, "4.7.0", "Too many failed logins from your address, try later")
INTERNAL_ERROR = make_reply(451, "4.3.0", "Local error, try again later")
DISK_FULL = make_reply(452, "4.3.1", "Not enough storage, try again later")
TOO_MANY_RECIPIENTS = make_reply(452, "4.5.3", "Too many recipients")
AUTH_BUSY = make_reply(454, "4.7.0", "Too many logins at once, try again later")
LINE_TOO_LONG = make_reply(500, "5.5.6", "Line too long")
UNKNOWN_COMMAND = make_reply(500, "5.5.2", "Command not recognised")
BAD_SYNTAX = make_reply(501, "5.5.4", "Syntax error in parameters")
BAD_SEQUENCE = make_reply(503, "5.5.1", "Bad sequence of commands")
NO_VALID_RECIPIENTS = make_reply(554, "5.5.1", "No valid recipients")
AUTH_REQUIRED = make_reply(530, "5.7.0", "Authentication required")
STARTTLS_REQUIRED = make_reply(530, "5.7.0", "Must issue a STARTTLS command first")
BAD_CREDENTIALS = make_reply(535, "5.7.8", "Authentication credentials invalid")
MESSAGE_TOO_BIG = make_reply(552, "5.3.4", "Message exceeds the size limit")
HEADER_TOO_BIG = make_reply(552, "5.3.4", "Header section exceeds 256 KiB")
RELAY_DENIED = make_reply(554, "5.7.1", "Relay access denied")
TOO_MANY_HOPS = make_reply(554, "5.4.6", "Too many hops, mail loop suspected")
BARE_NEWLINE = make_reply(554, "5.6.0", "Bare CR or LF in content")
NUL_IN_CONTENT = make_reply(554, "5.6.0", "NUL in content")
LONG_LINE = make_reply(554, "5.6.0", "Line over 998 octets in content")
BAD_PARAMETER = make_reply(555, "5.5.4", "MAIL or RCPT parameter not recognised")
