"""Webhooks: where the events of a tenant's messages are posted to; made, changed, and what they missed sent again."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from smarthost.client.call import Call, Page, as_json, get, no_answer, post, reader, segment

_PAGE = 100  # dead events that are asked for at a time


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook. `secret` is shown when it is made or changed, and is "" otherwise.

    `waiting` messages have an event that was not taken, and `last_error` says why the last one was not; `disabled`
    says why nothing is sent any more.
    """

    id: str
    url: str
    events: tuple[str, ...] = ()
    description: str = ""
    active: bool = True
    disabled: str = ""
    public_key: str = ""
    created_at: datetime | None = None
    cursor: int = 0
    waiting: int = 0
    last_error: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        """Show it without its secret."""
        return f"Webhook(id={self.id!r}, url={self.url!r}, active={self.active})"


class DeadEvent(msgspec.Struct, frozen=True):
    """An event that a webhook's receiver did not take, and that is not sent to it any more."""

    cursor: int
    at: datetime
    attempts: int
    error: str
    event: dict[str, object]


class _WebhookList(msgspec.Struct, frozen=True):
    webhooks: list[Webhook]


class _DeadList(msgspec.Struct, frozen=True):
    events: list[DeadEvent]
    next: int


class _Replayed(msgspec.Struct, frozen=True):
    replayed: int | None


_READ_ONE, _READ_LIST = reader(Webhook), reader(_WebhookList)
_READ_DEAD, _READ_REPLAYED = reader(_DeadList), reader(_Replayed)


def make(
    url: str, *, events: Sequence[str] = ("*",), description: str = "", active: bool = True, secret: str = ""
) -> Call[Webhook]:
    """Have events posted to a URL: of types ("message.relayed"), "message.*" or "*". Its secret is in the answer."""
    wish = {"url": url, "events": events, "description": description, "active": active, "secret": secret}
    return post("/webhooks", _READ_ONE, wish)


def list_webhooks() -> Call[list[Webhook]]:
    """Give all webhooks of the tenant."""
    return get("/webhooks", lambda octets: _READ_LIST(octets).webhooks)


def show(id: str) -> Call[Webhook]:
    """Give a webhook, and how it fares."""
    return get(f"/webhooks/{segment(id)}", _READ_ONE)


def change(
    id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | None = None,
    active: bool | None = None,
    secret: str | None = None,
) -> Call[Webhook]:
    """Change what is given. A `secret` of "" has a new one made, which is in the answer."""
    wish = {"url": url, "events": events, "description": description, "active": active, "secret": secret}
    content = as_json({name: value for name, value in wish.items() if value is not None})
    return Call(method="PATCH", path=f"/webhooks/{segment(id)}", read=_READ_ONE, content=content)


def remove(id: str) -> Call[None]:
    """Remove a webhook with all that waits for it."""
    return Call(method="DELETE", path=f"/webhooks/{segment(id)}", read=no_answer)


def list_dead(id: str, *, after: int = 0) -> Call[Page[DeadEvent]]:
    """Give the events that its receiver did not take for so long that they are not sent any more."""

    def read(octets: bytes) -> Page[DeadEvent]:
        listed = _READ_DEAD(octets)
        following = list_dead(id, after=listed.next) if len(listed.events) == _PAGE else None
        return Page(listed.events, following, str(listed.next))

    return get(f"/webhooks/{segment(id)}/dead", read, after=after, limit=_PAGE)


def replay(id: str, after: int) -> Call[None]:
    """Send everything behind a cursor again."""
    return post(f"/webhooks/{segment(id)}/replay", no_answer, {"after": after})


def replay_dead(id: str, cursors: Sequence[int] = ()) -> Call[int]:
    """Send dead events again, all or those of `cursors`; gives how many."""
    wish = {"dead": True, "cursors": cursors}
    return post(f"/webhooks/{segment(id)}/replay", lambda octets: _READ_REPLAYED(octets).replayed or 0, wish)
