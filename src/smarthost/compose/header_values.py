"""Writes the values of header fields: encoded words where they are needed (RFC 2047), addresses, lines folded."""

import re
from email.header import Header
from email.policy import compat32
from email.utils import formataddr
from typing import cast

from smarthost.compose.fields import MAX_WORD
from smarthost.compose.letter import Letter
from smarthost.compose.mailbox import Mailbox

# The older of the standard library's two ways to write fields: the newer one encodes the commas between addresses
# when it folds a list with a name that is not ASCII, in releases that are in use (python/cpython#100884).
POLICY = compat32.clone(linesep="\r\n", cte_type="8bit")
_FOLDED = 78  # characters of a line, RFC 5322 2.1.1
_SHORT = 50  # characters of a name and its address that stand in one line, however much has to be quoted
# Text that would come back as something else if it were written as it is.
_NEEDS_WORDS = re.compile(rf"=\?|^ | $|  |\t|[^ ]{{{MAX_WORD + 1}}}")


class Folded:
    """A value that is folded already; `email` asks a header for its lines by `encode` and takes them as they are."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        """Take a value with a CRLF and a blank where it is folded."""
        self.text = text

    def encode(self, **_how: object) -> str:
        """Give the value."""
        return self.text


Field = tuple[str, str | Header | Folded]
"""A field as `email.message.Message` takes it: a text that is folded, or what folds itself."""


def fields_of(letter: Letter, message_id: str, date: str) -> list[Field]:
    """Give the header fields of a letter that are not about its structure, in order; Bcc is none of them."""
    utf8 = letter.utf8
    written: list[Field] = [("From", _addresses("From", (letter.author,), utf8))]
    if letter.to:
        written.append(("To", _addresses("To", letter.to, utf8)))
    if letter.cc:
        written.append(("Cc", _addresses("Cc", letter.cc, utf8)))
    if letter.reply_to:
        written.append(("Reply-To", _addresses("Reply-To", letter.reply_to, utf8)))
    if letter.subject:
        written.append(("Subject", text_value("Subject", letter.subject)))
    written.append(("Date", date))
    names = {name.lower() for name, _ in letter.headers}
    if "message-id" not in names:
        written.append(("Message-ID", message_id))
    written.extend((name, text_value(name, value)) for name, value in letter.headers)
    return written


def text_value(name: str, text: str) -> str | Header:
    """Give free text as a field's value: as it is where that is safe, else as encoded words."""
    if text.isascii() and _NEEDS_WORDS.search(text) is None:
        return text
    return Header(text, "utf-8", maxlinelen=_FOLDED, header_name=name)


def write_field(name: str, value: str | Header | Folded) -> str:
    """Give a field as a line, or as several where it has to be folded, with the last CRLF."""
    if isinstance(value, Folded):
        return f"{name}: {value.text}\r\n"
    if isinstance(value, str) and len(name) + 2 + len(value) <= _FOLDED:
        return f"{name}: {value}\r\n"
    return POLICY.fold_binary(name, cast(str, value)).decode("ascii", "surrogateescape")


def _addresses(name: str, mailboxes: tuple[Mailbox, ...], utf8: bool) -> Folded:
    """Give an address list, folded between mailboxes: some programs stumble over a fold within a quoted name."""
    line = len(name) + 2
    pieces: list[str] = []
    for mailbox in mailboxes:
        piece = _written(mailbox)
        if pieces:
            line += len(piece) + 2
            pieces.append(", " if line <= _FOLDED else ",\r\n ")
        if line > _FOLDED or not pieces:
            line = len(piece) + (1 if pieces else line)
        pieces.append(piece)
    value = "".join(pieces)
    return Folded(value.encode().decode("ascii", "surrogateescape") if utf8 else value)


def _written(mailbox: Mailbox) -> str:
    """Give one mailbox; a name in ASCII is quoted if it needs to be and is short, others are encoded words."""
    name, address = mailbox.name, mailbox.address
    if not name:
        return address
    if name.isascii() and address.isascii() and "=?" not in name:
        written = formataddr((name, address))
        if len(name) + len(address) < _SHORT or (len(name) < _SHORT and '"' not in written):
            return written
    words = Header(name, "utf-8", maxlinelen=_FOLDED - 3, header_name="").encode(linesep="\r\n")
    return f"{words} <{address}>"
