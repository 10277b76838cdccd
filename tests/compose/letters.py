"""Letters for tests of composition, and what is read back from what was composed."""

from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8
from typing import cast

from smarthost.compose.bodies import Radix64Lines
from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mime import Composed, Slot, Stamp, compose
from smarthost.compose.submission import Submission, convert_submission

STAMP = Stamp(1763800000.5, "relay.example.org", "0123456789abcdef0123456789abcdef")
WHOLE = {"from": "a@example.org", "to": "b@example.net", "subject": "s", "text": "t"}


def make_letter(**fields: object) -> Letter:
    """Make a letter of a whole submission and fields that are changed or added; `author` is from."""
    if "author" in fields:
        fields["from"] = fields.pop("author")
    submission = convert_submission({**WHOLE, **fields})
    assert isinstance(submission, Submission), submission
    letter = check_submission(submission, SubmissionLimits())
    assert isinstance(letter, Letter), letter
    return letter


def blocks_of(composed: Composed, letter: Letter, block: int = 1000) -> Iterator[bytes]:
    """Give a message block by block, as the door writes it."""
    for piece in composed.pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        lines = Radix64Lines()
        content = letter.attachments[piece.attachment].content or b""
        for start in range(0, len(content), block):
            yield lines.feed(content[start : start + block])
        yield lines.end()


def octets_of(letter: Letter) -> bytes:
    """Compose a letter and give all of it."""
    return b"".join(blocks_of(compose(letter, STAMP), letter))


def parsed(letter: Letter) -> EmailMessage:
    """Compose a letter and read it as a recipient's program does."""
    message = message_from_bytes(octets_of(letter), policy=SMTPUTF8)
    assert not message.defects and not any(part.defects for part in message.walk())
    return cast(EmailMessage, message)


def tree(message: EmailMessage) -> object:
    """Give the structure of a message as nested lists."""
    if message.is_multipart():
        return [message.get_content_subtype(), *(tree(cast(EmailMessage, part)) for part in message.iter_parts())]
    return message.get_content_type()


__all__ = ["STAMP", "Slot", "blocks_of", "make_letter", "octets_of", "parsed", "tree"]
