"""Suppressions: the addresses to which nothing is sent; listed, added and removed; this needs the scope admin."""

from datetime import datetime

import msgspec

from smarthost.client.call import Call, Page, as_json, get, moment, no_answer, reader, segment

_PAGE = 500  # addresses that are asked for at a time


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """An address to which nothing is sent. `source` is "automatic" or "manual".

    `tenant` is None where that holds for everybody's mail.
    """

    email: str
    tenant: str | None = None
    source: str = ""
    reason: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None


class NewSuppression(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address to which nothing is to be sent, until a time or for good."""

    email: str
    reason: str = ""
    expires_at: datetime | None = None


class SuppressionsKept(msgspec.Struct, frozen=True):
    """How many addresses are new on the list, how many were there, and all of them."""

    added: int
    known: int
    suppressions: list[Suppression] = []


class _SuppressionList(msgspec.Struct, frozen=True):
    suppressions: list[Suppression]
    next_cursor: str | None = None


_READ_KEPT, _READ_LIST = reader(SuppressionsKept), reader(_SuppressionList)


def list_suppressions(
    *, email: str = "", reason: str = "", source: str = "", cursor: str = ""
) -> Call[Page[Suppression]]:
    """Give the addresses to which nothing is sent. `email` may be a pattern ("*@example.net")."""

    def read(octets: bytes) -> Page[Suppression]:
        listed = _READ_LIST(octets)
        following = ask(listed.next_cursor) if listed.next_cursor else None
        return Page(listed.suppressions, following, listed.next_cursor or "")

    def ask(at: str) -> Call[Page[Suppression]]:
        return get("/admin/suppressions", read, email=email, reason=reason, source=source, cursor=at, limit=_PAGE)

    return ask(cursor)


def add(*addresses: str | NewSuppression) -> Call[SuppressionsKept]:
    """Send nothing to addresses; all are taken, or none where one of them is wrong."""
    wish = []
    for each in addresses:
        made = NewSuppression(each) if isinstance(each, str) else each
        if made.expires_at is not None:
            made = msgspec.structs.replace(made, expires_at=moment(made.expires_at))
        wish.append(made)
    # The same again is the same: a lost answer does no harm.
    content = as_json({"suppressions": wish})
    return Call(method="POST", path="/admin/suppressions", read=_READ_KEPT, content=content, repeats=True)


def remove(email: str) -> Call[None]:
    """Send to an address again, and forget its failures."""
    return Call(method="DELETE", path=f"/admin/suppressions/{segment(email)}", read=no_answer)
