"""Messages as clients of a mail proxy see them: listed with what became of them, deleted, and cleaned up."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import RANKS
from smarthost.mail.event import Event, Kind
from smarthost.mail.key import Scope
from smarthost.mail.message import format_id, parse_id
from smarthost.mail.record import Record, RecordKey
from smarthost.reception.http.asking import Asking, caller_of, parts_of, tenant_named
from smarthost.reception.http.handing import KIND, Kept
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused, disk_full, not_found
from smarthost.reception.http.proxy_forms import Cleanup, WhichMessages, read_command
from smarthost.reception.http.recall import NAMES
from smarthost.reception.http.routes import NEEDS
from smarthost.reception.http.standing import CANCELLED, DELAYED, FAILED, MIXED, RELAYED, SCHEDULED, overall, standings
from smarthost.spool.store import Fault, Filter, RecordStore

PAGE = 100  # records that are read at a time
MOST_READ = 5000  # records that one request looks through
MOST_IDS = 1000  # messages that one request deletes
RETENTION = 86400  # seconds for which a clean-up leaves messages alone unless it says how long
_DONE, _FAILED = (RELAYED,), (FAILED, MIXED, CANCELLED)
_ENDS = frozenset({Kind.RELAYED, Kind.FAILED, Kind.EXPIRED, Kind.DELETED})

WhichTenant = Annotated[str, QueryParameter(description="the operator's word for whose", max_length=64)]


class ProxyMessageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A message: the client's id, or ours where it gave none; ours is `pk`. Times are Unix seconds.

    `status` is "pending", "deferred" (until `deferred_until`), "sent", "error".
    """

    id: str
    pk: str
    tenant_id: str
    account_id: str | None
    priority: int
    batch_code: str | None
    status: str
    subject: str
    to: list[str]
    created_ts: int
    deferred_ts: int | None = None
    deferred_until: int | None = None
    sent_ts: int | None = None
    error_ts: int | None = None
    error: str | None = None


class ProxyMessageList(msgspec.Struct, frozen=True):
    """Messages, newest first."""

    messages: list[ProxyMessageRow]
    ok: bool = True


class Removed(msgspec.Struct, frozen=True):
    """How many messages were removed, and the ids of those that were not: unknown, or in delivery just now."""

    removed: int
    not_found: list[str]
    ok: bool = True


class Cleaned(msgspec.Struct, frozen=True):
    """How many messages were forgotten."""

    removed: int
    ok: bool = True


ActiveOnly = Annotated[bool, QueryParameter(description="only those that are still to be sent")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


@get("/messages", opt={NEEDS: Scope.READ})
async def list_proxy_messages(
    request: Asking, tenant_id: WhichTenant = "", active_only: ActiveOnly = False, limit: Limit = 500
) -> ProxyMessageList:
    """List a tenant's messages, newest first."""
    return ProxyMessageList(await _listed(request, tenant_id, active_only, limit))


@get("/messages/list", opt={NEEDS: Scope.READ})
async def list_proxy_rows(
    request: Asking, tenant_id: WhichTenant = "", active_only: ActiveOnly = False, limit: Limit = 500
) -> list[ProxyMessageRow]:
    """List a tenant's messages, newest first, and nothing beside them."""
    return await _listed(request, tenant_id, active_only, limit)


async def _listed(request: Asking, tenant_id: str, active_only: bool, limit: int) -> list[ProxyMessageRow]:
    parts, tenant = parts_of(request), tenant_named(caller_of(request), tenant_id)
    found: list[ProxyMessageRow] = []
    read, after = 0, ""
    while read < MOST_READ:
        records = await parts.spool.records.page(KIND, tenant, after, PAGE, newest=True)
        for record in records:
            read, after = read + 1, record.id
            row = await _row(parts, record)
            if not active_only or row.status in ("pending", "deferred"):
                found.append(row)
            if len(found) == limit:
                return found
        if len(records) < PAGE:
            break
    return found


@get("/messages/get", opt={NEEDS: Scope.READ})
async def get_proxy_message(
    request: Asking, message_id: Annotated[str, QueryParameter(max_length=255)], tenant_id: WhichTenant = ""
) -> ProxyMessageRow:
    """Show one message, by the client's id or ours."""
    parts, tenant = parts_of(request), tenant_named(caller_of(request), tenant_id)
    found = await _find(parts, tenant, [message_id])
    if message_id not in found:
        raise not_found("message")
    return await _row(parts, found[message_id])


@post(["/commands/delete-messages", "/messages/delete_batch"], opt={NEEDS: Scope.SEND}, status_code=200)
async def delete_proxy_messages(request: Asking) -> Removed:
    """Send nothing more of some messages, and forget them.

    What nobody was sent may come again under the same id; what somebody was sent may not.
    """
    parts, wanted = parts_of(request), await read_command(request, WhichMessages)
    tenant = tenant_named(caller_of(request), wanted.tenant_id)
    if len(wanted.ids) > MOST_IDS:
        raise Refused(422, "a field is wrong", errors=[("ids", f"{MOST_IDS} are allowed in one request")])
    names = list(dict.fromkeys(wanted.ids))
    found = await _find(parts, tenant, names)
    forgotten: list[RecordKey] = []
    removed, left = 0, [name for name in names if name not in found]
    for name, record in found.items():
        keys = await _delete(parts, tenant, record)
        if keys:
            removed += 1
            forgotten += keys
        else:
            left.append(name)
    await _forget(parts.spool.records, forgotten)
    return Removed(removed, left)


@post("/commands/cleanup-messages", opt={NEEDS: Scope.SEND}, status_code=200)
async def clean_up_proxy_messages(request: Asking) -> Cleaned:
    """Forget messages that ended, as they also are after `[http] message_keep`; their ids stay taken until then.

    Nothing is forgotten while the tenant's application has not been told everything.
    """
    parts, wanted = parts_of(request), await read_command(request, Cleanup)
    tenant = tenant_named(caller_of(request), wanted.tenant_id)
    keep = RETENTION if wanted.older_than_seconds is None else wanted.older_than_seconds
    before, after, read = parts.clock() - keep, "", 0
    forgotten: list[RecordKey] = []
    if parts.tenants is None or parts.tenants.is_told(tenant):
        while read < MOST_READ and (records := await parts.spool.records.page(KIND, tenant, after, PAGE)):
            read, after = read + len(records), records[-1].id
            forgotten += [each.key for each in records if await _ended(parts, each) < before]
    await _forget(parts.spool.records, forgotten)
    return Cleaned(len(forgotten))


async def _find(parts: HttpParts, tenant: str, names: Sequence[str]) -> dict[str, Record]:
    """Give the records of a tenant's messages, by the names that they were asked by: the client's, or ours."""
    known = await parts.spool.records.find([(NAMES, tenant, name) for name in names])
    ours: dict[str, RecordKey] = {}
    for name in names:
        record = known.get((NAMES, tenant, name))
        number = record.data.decode() if record is not None else name
        if (identity := parse_id(number)) is not None:
            ours[name] = (KIND, tenant, format_id(identity))
    found = await parts.spool.records.find(list(ours.values()))
    return {name: found[key] for name, key in ours.items() if key in found}


async def _delete(parts: HttpParts, tenant: str, record: Record) -> list[RecordKey]:
    """Take the rest of a message out of the queue; gives what is to be forgotten, nothing while it is in delivery."""
    kept = msgspec.json.decode(record.data, type=Kept)
    if await parts.spool.entries_of(kept.id):
        try:
            counts = await parts.operator.delete(Filter(ids=(kept.id,)), False)
        except OSError:
            raise Refused(503, "the queue could not be changed", headers={"Retry-After": "60"}) from None
        if counts.get("in_delivery", 0):
            return []
    events = await parts.spool.events_of(kept.id)
    was_sent = any(event.event in (Kind.RELAYED, Kind.FAILED, Kind.EXPIRED) for event in events)
    return [record.key] if was_sent or not kept.client_id else [record.key, (NAMES, tenant, kept.client_id)]


async def _ended(parts: HttpParts, record: Record) -> float:
    """Give when the last thing happened to a message; infinite while it is in the queue."""
    kept = msgspec.json.decode(record.data, type=Kept)
    if await parts.spool.entries_of(kept.id):
        return float("inf")
    events = await parts.spool.events_of(kept.id)
    return max((event.time for event in events), default=kept.at)


async def _forget(records: RecordStore, keys: Sequence[RecordKey]) -> None:
    """Forget records; raises Refused (503) when that cannot be written."""
    if not keys:
        return
    done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
    records.write((), keys, lambda fault: None if done.done() else done.set_result(fault))
    if await asyncio.shield(done) is not None:
        raise disk_full()


async def _row(parts: HttpParts, record: Record) -> ProxyMessageRow:
    kept = msgspec.json.decode(record.data, type=Kept)
    # In this order: what is settled in between is told as it was before, and never as lost.
    entries = await parts.spool.entries_of(kept.id)
    events = await parts.spool.events_of(kept.id)
    standing = standings(kept.recipients, entries, events)
    status = overall(standing)
    ended = max((event.time for event in events if event.event in _ENDS), default=0.0)
    until = _deferred_until(parts, entries, status)
    return ProxyMessageRow(
        id=kept.client_id or record.id,
        pk=record.id,
        tenant_id=record.tenant,
        account_id=kept.account_id or None,
        priority=RANKS[kept.priority],
        batch_code=kept.batch_code or None,
        status=_word(status, until),
        subject=kept.subject,
        to=[each.address for each in kept.recipients],
        created_ts=int(kept.at),
        deferred_ts=int(kept.send_at) or None,
        deferred_until=until,
        sent_ts=int(ended) if status in _DONE and ended else None,
        error_ts=int(ended or kept.at) if status in _FAILED else None,
        error=_error(events, entries) if status in (*_FAILED, DELAYED) else None,
    )


def _word(status: str, until: int | None) -> str:
    if status in _DONE:
        return "sent"
    if status in _FAILED:
        return "error"
    return "deferred" if until is not None else "pending"


def _deferred_until(parts: HttpParts, entries: Sequence[Entry], status: str) -> int | None:
    """Give until when a message waits: for its time, after a failure, or for a limit; None where it does not."""
    if status in (SCHEDULED, DELAYED):
        due = [entry.due for entry in entries if entry.due < float("inf")]
        return int(min(due) + 0.999) if due else None
    limits = [until for entry in entries if (until := parts.deferred_until(entry)) is not None]
    return int(min(limits) + 0.999) if limits else None


def _error(events: Sequence[Event], entries: Sequence[Entry]) -> str | None:
    """Give what the last server said."""
    last = next((entry.last for entry in entries if entry.last), "")
    said = next((event.reply for event in reversed(events) if event.reply and event.event in _ENDS), "")
    return last or said or None


PROXY_LISTING: tuple[HTTPRouteHandler, ...] = (
    list_proxy_messages,
    list_proxy_rows,
    get_proxy_message,
    delete_proxy_messages,
    clean_up_proxy_messages,
)
