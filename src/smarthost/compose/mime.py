"""Writes a letter as MIME by the standard library; attachments are left open, for who writes them block by block."""

import re
from datetime import UTC, datetime
from email.generator import BytesGenerator
from email.message import Message
from email.utils import format_datetime
from io import BytesIO
from typing import cast

import msgspec

from smarthost.compose.bodies import encode_body, radix64_size
from smarthost.compose.header_values import POLICY, Field, fields_of
from smarthost.compose.letter import Letter
from smarthost.compose.plain import boundary, write_plain
from smarthost.compose.submission import Attachment


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A place where the base64 of an attachment goes, in lines of 76 (`bodies.Radix64Lines`).

    `attachment` is its place in `Letter.attachments`; `size` is the octets of the base64, None until it is fetched.
    """

    attachment: int
    size: int | None


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """What a letter gets from outside: a Unix time, a host name for its Message-ID, and a text that is never twice.

    `unique` is at least 128 random bits in letters and digits; boundaries are made of it.
    """

    at: float
    hostname: str
    unique: str


class Composed(msgspec.Struct, frozen=True, gc=False):
    """A message. Its octets are `pieces` in their order; the first one holds the whole header section."""

    pieces: tuple[bytes | Slot, ...]
    message_id: str

    @property
    def size(self) -> int | None:
        """The octets of the whole, None while the size of an attachment is not known."""
        sizes = [piece.size if isinstance(piece, Slot) else len(piece) for piece in self.pieces]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def compose(letter: Letter, stamp: Stamp) -> Composed:
    """Write a letter as it is sent: CRLF lines, without transparency dots.

    One without attachments is written by `write_plain`, octet for octet as the standard library would.
    """
    fields, message_id = _fields(letter, stamp)
    if not letter.attachments:
        return Composed((write_plain(fields, letter.text, letter.html, stamp.unique),), message_id)
    return Composed(_cut(write_message(letter, stamp), letter, stamp), message_id)


def write_message(letter: Letter, stamp: Stamp) -> bytes:
    """Write a letter by the standard library, with a line that is its own in the place of each attachment."""
    structure = _structure(letter, stamp)
    root = Message(POLICY)
    for name, value in _fields(letter, stamp)[0]:
        root[name] = cast(str, value)
    root["MIME-Version"] = "1.0"
    for name, value in structure.raw_items():
        root[name] = value
    root.set_payload(structure.get_payload())
    buffer = BytesIO()
    BytesGenerator(buffer, mangle_from_=False, policy=POLICY).flatten(root)
    return buffer.getvalue()


def _fields(letter: Letter, stamp: Stamp) -> tuple[list[Field], str]:
    given = [value.strip() for name, value in letter.headers if name.lower() == "message-id"]
    message_id = given[0] if given else f"<{stamp.unique}@{stamp.hostname}>"
    return fields_of(letter, message_id, format_datetime(datetime.fromtimestamp(int(stamp.at), UTC))), message_id


def _structure(letter: Letter, stamp: Stamp) -> Message:
    """Build the tree: mixed of alternative of related, each only where it has more than one part (RFC 2046 5.1)."""
    unique = stamp.unique
    shown: list[Message] = []
    beside: list[Message] = []
    for place, attachment in enumerate(letter.attachments):
        part = _attached(attachment, _mark(unique, place))
        (shown if attachment.cid and attachment.disposition == "inline" else beside).append(part)
    bodies = [_text(text, subtype) for text, subtype in ((letter.text, "plain"), (letter.html, "html")) if text]
    if shown and letter.html:
        bodies[-1] = _multipart("related", [bodies[-1], *shown], f"{boundary(unique)}r", type="text/html")
    elif shown:
        beside = shown + beside
    body = bodies[0] if len(bodies) == 1 else _multipart("alternative", bodies, boundary(unique))
    return _multipart("mixed", [body, *beside], f"{boundary(unique)}m") if beside else body


def _text(text: str, subtype: str) -> Message:
    body = encode_body(text)
    part = Message(POLICY)
    part.add_header("Content-Type", f"text/{subtype}", charset=body.charset)
    part["Content-Transfer-Encoding"] = body.encoding
    part.set_payload(body.octets)
    return part


def _attached(attachment: Attachment, mark: str) -> Message:
    """Give the part of an attachment, with a mark for its octets."""
    part = Message(POLICY)
    part["Content-Type"] = attachment.content_type
    part["Content-Transfer-Encoding"] = "base64"
    if attachment.cid:
        part["Content-ID"] = f"<{attachment.cid}>"
    name = attachment.filename
    if not name:
        part["Content-Disposition"] = attachment.disposition
    elif name.isascii():
        part.add_header("Content-Disposition", attachment.disposition, filename=name)
    else:
        part.add_header("Content-Disposition", attachment.disposition, filename=("utf-8", "", name))  # RFC 2231 4
    part.set_payload(mark)
    return part


def _multipart(subtype: str, parts: list[Message], separator: str, **parameters: str) -> Message:
    whole = Message(POLICY)
    whole.add_header("Content-Type", f"multipart/{subtype}", **parameters, boundary=separator)
    whole.set_payload(list[Message | str](parts))
    return whole


def _mark(unique: str, place: int) -> str:
    """Give the line that stands for an attachment; nobody who wrote a text of the letter can have known it."""
    return f"=_{unique}_{place}_="


def _cut(octets: bytes, letter: Letter, stamp: Stamp) -> tuple[bytes | Slot, ...]:
    """Cut a message at the marks of its attachments, wherever the structure has put them."""
    pieces: list[bytes | Slot] = []
    marks = re.compile(re.escape(f"=_{stamp.unique}_").encode() + rb"([0-9]+)_=")
    done = 0
    for found in marks.finditer(octets):
        place = int(found[1])
        content = letter.attachments[place].content
        pieces.append(octets[done : found.start()])
        pieces.append(Slot(place, None if content is None else radix64_size(len(content))))
        done = found.end()
    pieces.append(octets[done:])
    return tuple(pieces)
