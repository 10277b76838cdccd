"""Dead letters: messages that failed and that the relay keeps for a time, to be seen, sent again or cleaned up."""

from datetime import datetime

import msgspec

from smarthost.client.call import Call, Page, get, post, reader, segment

_PAGE = 100  # dead letters that are asked for at a time


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that failed for some recipients, and is kept until a time."""

    id: str
    from_: str = msgspec.field(name="from")
    recipients: list[str]
    reason: str
    created_at: datetime
    kept_until: datetime
    tag: str = ""
    size: int = 0


class DeadLettersChanged(msgspec.Struct, frozen=True):
    """How many dead letters were changed."""

    entries: int


class _DeadLetterList(msgspec.Struct, frozen=True):
    dead_letters: list[DeadLetter]
    next_cursor: str | None = None


_READ_LIST, _READ_CHANGED = reader(_DeadLetterList), reader(DeadLettersChanged)


def list_dead_letters(*, cursor: str = "") -> Call[Page[DeadLetter]]:
    """Give the messages that failed and are kept, oldest first. `cursor` is a page's, to go on from there."""

    def read(octets: bytes) -> Page[DeadLetter]:
        listed = _READ_LIST(octets)
        following = list_dead_letters(cursor=listed.next_cursor) if listed.next_cursor else None
        return Page(listed.dead_letters, following, listed.next_cursor or "")

    return get("/dead-letters", read, cursor=cursor, limit=_PAGE)


def resend(id: str) -> Call[DeadLettersChanged]:
    """Send a message again to those for whom it failed."""
    return post(f"/dead-letters/{segment(id)}/resend", _READ_CHANGED)


def remove(id: str) -> Call[DeadLettersChanged]:
    """Forget a message that failed."""
    return Call(method="DELETE", path=f"/dead-letters/{segment(id)}", read=_READ_CHANGED)
