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
# Text that would come back as something else if it were written as it is.
_NEEDS_WORDS = re.compile(rf"=\?|^ | $|  |\t|[^ ]{{{MAX_WORD + 1}}}")

Field = tuple[str, str | Header]
"""A field as `email.message.Message` takes it: a text that is folded, or a header that folds itself."""


def fields_of(letter: Letter, message_id: str, date: str) -> list[Field]:
    """Give the header fields of a letter that are not about its structure, in order; Bcc is none of them."""
    utf8 = letter.utf8
    written: list[Field] = [("From", _addresses((letter.author,), utf8))]
    if letter.to:
        written.append(("To", _addresses(letter.to, utf8)))
    if letter.cc:
        written.append(("Cc", _addresses(letter.cc, utf8)))
    if letter.reply_to:
        written.append(("Reply-To", _addresses(letter.reply_to, utf8)))
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


def write_field(name: str, value: str | Header) -> str:
    """Give a field as a line, or as several where it has to be folded, with the last CRLF."""
    if isinstance(value, str) and len(name) + 2 + len(value) <= _FOLDED and value.isascii():
        return f"{name}: {value}\r\n"
    return POLICY.fold_binary(name, cast(str, value)).decode("ascii", "surrogateescape")


def _addresses(mailboxes: tuple[Mailbox, ...], utf8: bool) -> str:
    """Give an address list; with addresses in UTF-8 it is folded here, for the octets are then passed on untouched."""
    if not utf8:
        return ", ".join([_in_ascii(each) for each in mailboxes])
    octets = ",\r\n ".join([_phrase(each.name, each.address) for each in mailboxes]).encode()
    return octets.decode("ascii", "surrogateescape")


def _in_ascii(mailbox: Mailbox) -> str:
    if not mailbox.name:
        return mailbox.address
    if mailbox.name.isascii() and "=?" not in mailbox.name:
        return formataddr((mailbox.name, mailbox.address))
    return _phrase(mailbox.name, mailbox.address).replace("\r\n", "")


def _phrase(name: str, address: str) -> str:
    """Give a mailbox whose name is encoded words, each of which fits into a line of its own."""
    if not name:
        return address
    words = Header(name, "utf-8", maxlinelen=_FOLDED - 3, header_name="").encode(linesep="\r\n")
    return f"{words} <{address}>"
