"""Listing: what became of the messages of a tenant, and what a person may do about them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import get, post
from litestar.di import NamedDependency, Provide
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from smarthost.mail.event import Kind
from smarthost.mail.key import DEFAULT_TENANT, Scope
from smarthost.mail.message import format_id, id_at, parse_id
from smarthost.mail.record import Record
from smarthost.reception.batches.record import place_of
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.handing import KIND, Kept, Result, time_of
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused, not_found
from smarthost.reception.http.routes import NEEDS
from smarthost.reception.http.standing import STATUSES, Standing, overall, standings
from smarthost.report.rows import event_row
from smarthost.spool.store import Filter

PAGE = 100  # records that are read at a time
MOST_READ = 2000  # records that one request looks through for those that fit

Status = Literal["queued", "scheduled", "held", "delayed", "relayed", "failed", "cancelled", "mixed", "unknown"]
assert set(STATUSES) == set(Status.__args__)  # type: ignore[attr-defined]


class Shown(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message. `from` is the reverse-path."""

    id: str
    status: str
    created_at: datetime
    reverse_path: str = msgspec.field(name="from")
    recipients: list[Standing]
    subject: str = ""
    tag: str = ""
    client_id: str = ""
    send_at: datetime | None = None
    size: int = 0
    metadata: dict[str, Any] = {}
    events: list[dict[str, Any]] = []


class MessageList(msgspec.Struct, frozen=True):
    """Messages, newest first; `next_cursor` is for the request that goes on, None at the end."""

    messages: list[Shown]
    next_cursor: str | None = None


class Done(msgspec.Struct, frozen=True):
    """What was changed: parts of the message, and those that could not be as they are in delivery just now."""

    id: str
    entries: int
    in_delivery: int = 0


Cursor = Annotated[str, QueryParameter(description="next_cursor of the page before", max_length=64)]
Limit = Annotated[int, QueryParameter(ge=1, le=500)]
Moment = Annotated[datetime | None, QueryParameter(description="RFC 3339, with a zone")]
Word = Annotated[str, QueryParameter(max_length=320)]


class Choice(msgspec.Struct, frozen=True):
    """Which messages are meant."""

    status: Status | None
    recipient: str
    tag: str
    since: datetime | None
    until: datetime | None

    def may_be(self, kept: Kept) -> bool:
        """Whether a message is one of those, as far as its record tells."""
        if self.tag and kept.tag != self.tag:
            return False
        wanted = self.recipient.lower()
        return not wanted or any(each.address.lower() == wanted for each in kept.recipients)


def choose(
    status: Annotated[Status | None, QueryParameter()] = None,
    recipient: Word = "",
    tag: Word = "",
    since: Moment = None,
    until: Moment = None,
) -> Choice:
    """Read the filters of a list."""
    return Choice(status, recipient, tag, since, until)


_CHOICE = {"choice": Provide(choose, sync_to_thread=False)}


@get("/api/v1/messages", opt={NEEDS: Scope.READ}, dependencies=_CHOICE)
async def list_messages(
    request: Asking, choice: NamedDependency[Choice], cursor: Cursor = "", limit: Limit = 50
) -> MessageList:
    """List the messages that came in by HTTP, newest first, those that the history still knows.

    A page may be short, even empty, although there are more: `next_cursor` tells.
    """
    parts, tenant = parts_of(request), caller_of(request).tenant
    lowest = format_id(id_at(_seconds(choice.since))) if choice.since is not None else ""
    if not cursor and choice.until is not None:
        cursor = format_id(id_at(_seconds(choice.until)))
    if cursor and parse_id(cursor) is None:
        raise Refused(400, "cursor: what next_cursor said is allowed")
    found: list[Shown] = []
    read = 0
    while read < MOST_READ:
        records = await parts.spool.records.page(KIND, tenant, cursor, PAGE, newest=True)
        for record in records:
            if lowest and record.id < lowest:
                return MessageList(found)
            read, cursor = read + 1, record.id
            kept = msgspec.json.decode(record.data, type=Kept)
            if not choice.may_be(kept):
                continue
            shown = await _show(parts, record, kept)
            if choice.status is None or shown.status == choice.status:
                found.append(shown)
            if len(found) == limit:
                return MessageList(found, cursor)
        if len(records) < PAGE:
            return MessageList(found)
    return MessageList(found, cursor)


@get("/api/v1/messages/{message_id:str}", opt={NEEDS: Scope.READ})
async def show_message(request: Asking, message_id: FromPath[str]) -> Shown:
    """Show one message, with all that happened to it."""
    parts, tenant = parts_of(request), caller_of(request).tenant
    record = await _find(parts, tenant, message_id)
    kept = msgspec.json.decode(record.data, type=Kept)
    return await _show(parts, record, kept, with_events=True)


@post("/api/v1/messages/{message_id:str}/cancel", opt={NEEDS: Scope.SEND}, status_code=200)
async def cancel_message(request: Asking, message_id: FromPath[str]) -> Done:
    """Send nothing more of a message; nobody gets a report."""
    operator = parts_of(request).operator
    return await _act(request, message_id, lambda wanted: operator.delete(wanted, False))


@post("/api/v1/messages/{message_id:str}/retry", opt={NEEDS: Scope.SEND}, status_code=200)
async def retry_message(request: Asking, message_id: FromPath[str]) -> Done:
    """Send a message now, whatever it waits for."""
    operator = parts_of(request).operator
    return await _act(request, message_id, lambda wanted: operator.retry_now(wanted, False))


@post("/api/v1/messages/{message_id:str}/hold", opt={NEEDS: Scope.SEND}, status_code=200)
async def hold_message(request: Asking, message_id: FromPath[str]) -> Done:
    """Hold a message until it is released."""
    operator = parts_of(request).operator
    return await _act(request, message_id, lambda wanted: operator.hold(wanted, False))


@post("/api/v1/messages/{message_id:str}/release", opt={NEEDS: Scope.SEND}, status_code=200)
async def release_message(request: Asking, message_id: FromPath[str]) -> Done:
    """Let a message go on that was held."""
    operator = parts_of(request).operator
    return await _act(request, message_id, lambda wanted: operator.release(wanted, False))


async def _act(request: Asking, message_id: str, change: Callable[[Filter], Awaitable[dict[str, int]]]) -> Done:
    """Change what is in the queue of a tenant's message; raises Refused (404, 409)."""
    parts, tenant = parts_of(request), caller_of(request).tenant
    number = parse_id(message_id)
    entries = await parts.spool.entries_of(number) if number is not None else []
    if number is None or not entries or (entries[0].message.user or DEFAULT_TENANT) != tenant:
        await _find(parts, tenant, message_id)
        raise Refused(409, "nothing of this message is in the queue any more")
    try:
        counts = await change(Filter(ids=(number,)))
    except OSError:
        raise Refused(503, "the queue could not be changed", headers={"Retry-After": "60"}) from None
    done = Done(format_id(number), counts["entries"], counts.get("in_delivery", 0))
    if not done.entries:
        what = "is in delivery just now" if done.in_delivery else "does not stand so that this could be done"
        raise Refused(409, f"the message {what}")
    return done


async def _find(parts: HttpParts, tenant: str, message_id: str) -> Record:
    """Give the record of a tenant's message; raises Refused (404)."""
    number = parse_id(message_id)
    if number is None:
        raise not_found("message")
    key = (KIND, tenant, format_id(number))
    record = (await parts.spool.records.find([key])).get(key)
    return record if record is not None else await _of_batch(parts, tenant, number)


async def _of_batch(parts: HttpParts, tenant: str, number: int) -> Record:
    """Give what would be kept of a batch's message, which has no record; raises Refused (404) for any other."""
    for event in await parts.spool.events_of(number):
        is_mine = (event.user or DEFAULT_TENANT) == tenant and place_of(event.envid) is not None
        if event.event is Kind.ACCEPTED and is_mine and event.listener == "http":
            result = Result(event.recipient, "accepted")
            kept = Kept(number, event.time, event.sender or "", [result], size=event.size)
            return Record(KIND, tenant, format_id(number), msgspec.json.encode(kept))
    raise not_found("message")


async def _show(parts: HttpParts, record: Record, kept: Kept, with_events: bool = False) -> Shown:
    # In this order: what is settled in between is told as it was before, and never as lost.
    entries = await parts.spool.entries_of(kept.id)
    events = await parts.spool.events_of(kept.id)
    standing = standings(kept.recipients, entries, events)
    return Shown(
        id=record.id,
        status=overall(standing),
        created_at=datetime.fromtimestamp(kept.at, UTC),
        reverse_path=kept.reverse_path,
        recipients=standing,
        subject=kept.subject,
        tag=kept.tag,
        client_id=kept.client_id,
        send_at=time_of(kept.send_at),
        size=kept.size,
        metadata=kept.metadata,
        events=[event_row(event) for event in events] if with_events else [],
    )


def _seconds(when: datetime) -> float:
    """Give a time as Unix seconds, one without a zone as if it were UTC."""
    return max((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp(), 0.0)


LISTING: tuple[HTTPRouteHandler, ...] = (
    list_messages,
    show_message,
    cancel_message,
    retry_message,
    hold_message,
    release_message,
)
