"""Dead letters over HTTP: messages that failed and are kept for a time, to be seen, sent again or cleaned up."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from smarthost.mail.entry import Entry, Why
from smarthost.mail.key import Scope
from smarthost.mail.message import format_id, parse_id
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused, not_found
from smarthost.reception.http.routes import NEEDS
from smarthost.spool.store import Filter

PAGE = 500  # entries that are read at a time

Cursor = Annotated[str, QueryParameter(description="next_cursor of the page before", max_length=64)]
Limit = Annotated[int, QueryParameter(ge=1, le=500)]


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message that failed for some recipients, and is kept until a time."""

    id: str
    reverse_path: str = msgspec.field(name="from")
    recipients: list[str]
    reason: str
    created_at: datetime
    kept_until: datetime
    tag: str = ""
    size: int = 0


class DeadLetterList(msgspec.Struct, frozen=True):
    """Dead letters, oldest first; `next_cursor` is for the request that goes on, None at the end."""

    dead_letters: list[DeadLetter]
    next_cursor: str | None = None


class Changed(msgspec.Struct, frozen=True):
    """How many dead letters were changed."""

    entries: int


@get("/api/v1/dead-letters", opt={NEEDS: Scope.READ})
async def list_dead_letters(request: Asking, cursor: Cursor = "", limit: Limit = 50) -> DeadLetterList:
    """List the messages that failed and are kept."""
    parts, tenant = parts_of(request), caller_of(request).tenant
    after = _read_cursor(cursor)
    found: list[Entry] = []
    while page := await parts.spool.select(_filter(tenant), PAGE, after):
        for entry in page:
            after = entry.key
            # A user of another spelling is another tenant, whom the filter's globs take for the same.
            if entry.message.arrival.identity == tenant:
                found.append(entry)
            if len(found) == limit:
                return DeadLetterList([_shown(each) for each in found], f"{format_id(after[0])}-{after[1]}")
    return DeadLetterList([_shown(each) for each in found])


@post("/api/v1/dead-letters/{message_id:str}/resend", opt={NEEDS: Scope.SEND}, status_code=200)
async def resend_dead_letter(request: Asking, message_id: FromPath[str]) -> Changed:
    """Send a message again to those for whom it failed."""
    parts = parts_of(request)
    wanted = await _find(parts, caller_of(request).tenant, message_id)
    return Changed((await parts.operator.retry_now(wanted, False))["entries"])


@delete("/api/v1/dead-letters/{message_id:str}", opt={NEEDS: Scope.SEND}, status_code=200)
async def delete_dead_letter(request: Asking, message_id: FromPath[str]) -> Changed:
    """Forget a message that failed."""
    parts = parts_of(request)
    wanted = await _find(parts, caller_of(request).tenant, message_id)
    return Changed((await parts.operator.delete(wanted, False))["entries"])


async def _find(parts: HttpParts, tenant: str, message_id: str) -> Filter:
    """Give the filter for a tenant's dead letter; raises Refused (404)."""
    number = parse_id(message_id)
    entries = await parts.spool.entries_of(number) if number is not None else []
    mine = [entry for entry in entries if entry.why is Why.DEAD_LETTER]
    if number is None or not mine or mine[0].message.arrival.identity != tenant:
        raise not_found("dead letter")
    return Filter(ids=(number,), why=Why.DEAD_LETTER.value)


def _filter(tenant: str) -> Filter:
    return Filter(user=tenant, why=Why.DEAD_LETTER.value)


def _read_cursor(cursor: str) -> tuple[int, int]:
    if not cursor:
        return 0, 0
    identity, _, number = cursor.partition("-")
    message = parse_id(identity)
    if message is None or not (number.isascii() and number.isdigit() and len(number) < 19):
        raise Refused(400, "cursor: what next_cursor said is allowed")
    return message, int(number)


def _shown(entry: Entry) -> DeadLetter:
    message = entry.message
    return DeadLetter(
        id=format_id(message.id),
        reverse_path=message.envelope.reverse_path,
        recipients=[recipient.address for recipient in entry.recipients],
        reason=entry.last,
        created_at=datetime.fromtimestamp(message.arrival.at, UTC),
        kept_until=datetime.fromtimestamp(entry.expires, UTC),
        tag=message.tag,
        size=message.size,
    )


DEAD_LETTERS: tuple[HTTPRouteHandler, ...] = (list_dead_letters, resend_dead_letter, delete_dead_letter)
