"""Notices: what providers and mail hosts say later of a message that they had taken, in whatever form it came."""

from enum import StrEnum

import msgspec

MOST_NOTICES = 1000  # of one document: nobody sends more, and what is read is not trusted
MOST_TEXT = 1000  # characters of a diagnostic


class NoticeKind(StrEnum):
    """What is said of a recipient."""

    PERMANENT = "permanent"  # the message is lost, and others would be
    TRANSIENT = "transient"  # the message is lost or late; another time it may go
    COMPLAINT = "complaint"  # the recipient says that it is spam
    RELAYED = "relayed"  # it went on, or was delivered


class Notice(msgspec.Struct, frozen=True):
    """What became of a recipient's message. `status` is RFC 3463's or ""; `diagnostic` is a peer's text.

    `return_path` is the reverse-path that the message had, by which a message of ours is known (`wire.verp`), and
    `message_id` its Message-ID with its brackets; "" where they are not told. Nothing here is proven.
    """

    recipient: str
    kind: NoticeKind
    status: str = ""
    diagnostic: str = ""
    return_path: str = ""
    message_id: str = ""
    category: str = ""


def tidy(text: object) -> str:
    """Give a text of a stranger as one line, bounded; "" for what is no text."""
    return " ".join(text.split())[:MOST_TEXT] if isinstance(text, str) else ""


def kind_of_status(status: str, fallback: NoticeKind) -> NoticeKind:
    """Give what a status of RFC 3463 says, by its class."""
    by_class = {"2": NoticeKind.RELAYED, "4": NoticeKind.TRANSIENT, "5": NoticeKind.PERMANENT}
    return by_class.get(status[:1], fallback)
