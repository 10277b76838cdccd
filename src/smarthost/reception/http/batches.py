"""Batches over HTTP: listed, shown, with their events and their sums; suspended, resumed, cancelled."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from smarthost.mail.key import Scope
from smarthost.mail.message import format_id, parse_id
from smarthost.reception.batches.desk import Batches
from smarthost.reception.batches.record import State
from smarthost.reception.batches.tally import BOUNCE, COMPLAINT, FAILED, SENT, STOPPED, Tally
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.batch_answers import Status, status_of
from smarthost.reception.http.handing import time_of
from smarthost.reception.http.problem import Refused, not_found
from smarthost.reception.http.routes import NEEDS

EventType = Literal["SENT", "FAILED", "BOUNCE", "COMPLAINT", "SUPPRESSED"]

Cursor = Annotated[str, QueryParameter(description="next_cursor of the page before", max_length=64)]
Limit = Annotated[int, QueryParameter(ge=1, le=500)]
EventLimit = Annotated[int, QueryParameter(ge=1, le=1000)]
Offset = Annotated[int, QueryParameter(ge=0, le=2**31)]


class BatchCounts(msgspec.Struct, frozen=True):
    """Of how many recipients what was told. `pending` are those of whom no end is known yet."""

    total: int
    pending: int
    sent: int
    failed: int
    bounced: int
    complained: int
    suppressed: int
    cancelled: int


class ShownBatch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A batch. `template` is the name of its template when it came."""

    id: str
    status: Status
    created_at: datetime = msgspec.field(name="createdAt")
    template_id: str
    template: str = ""
    tag: str = ""
    priority: str = ""
    send_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: dict[str, Any] = {}
    counts: BatchCounts


class BatchList(msgspec.Struct, frozen=True):
    """Batches, newest first; `next_cursor` is for the request that goes on, None at the end."""

    batches: list[ShownBatch]
    next_cursor: str | None = None


class BatchEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What became of a recipient, whose place in the batch is `index`; `message_id` is that of its message."""

    type: EventType
    timestamp: datetime
    recipient: str
    index: int
    message_id: str = ""
    code: int = 0
    status: str = ""
    reason: str = ""


class BatchEvents(msgspec.Struct, frozen=True):
    """Events of a batch in their order, from `offset` on; `total` counts all that there are now."""

    events: list[BatchEvent]
    total: int
    limit: int
    offset: int


class BatchSummary(msgspec.Struct, frozen=True):
    """How a batch stands: `events` has the recipients for each type, `progress` is the part that is done with."""

    id: str
    status: Status
    total: int
    pending: int
    cancelled: int
    progress: float
    events: dict[EventType, int]


@get("/api/v1/batches", opt={NEEDS: Scope.READ})
async def list_batches(request: Asking, cursor: Cursor = "", limit: Limit = 50) -> BatchList:
    """List the batches, newest first."""
    if cursor and parse_id(cursor) is None:
        raise Refused(400, "cursor: what next_cursor said is allowed")
    now = parts_of(request).clock()
    found = await _desk(request).page(caller_of(request).tenant, cursor.upper(), limit)
    shown = [_shown(tally, now) for tally in found]
    return BatchList(shown, shown[-1].id if len(shown) == limit else None)


@get("/api/v1/batches/{batch_id:str}", opt={NEEDS: Scope.READ})
async def show_batch(request: Asking, batch_id: FromPath[str]) -> ShownBatch:
    """Show one batch."""
    return _shown(await _find(request, batch_id), parts_of(request).clock())


@get("/api/v1/batches/{batch_id:str}/events", opt={NEEDS: Scope.READ})
async def list_batch_events(
    request: Asking, batch_id: FromPath[str], limit: EventLimit = 100, offset: Offset = 0
) -> BatchEvents:
    """Give what became of the recipients, in the order in which it happened."""
    tally = await _find(request, batch_id)
    total = tally.stored.events
    events = [
        BatchEvent(
            type=each.type,  # type: ignore[arg-type]
            timestamp=datetime.fromtimestamp(each.at, UTC),
            recipient=each.recipient,
            index=each.place,
            message_id=format_id(each.message) if each.message else "",
            code=each.code,
            status=each.status,
            reason=each.reply,
        )
        for each in await tally.events(offset, limit)
    ]
    return BatchEvents(events, total, limit, offset)


@get("/api/v1/batches/{batch_id:str}/summary", opt={NEEDS: Scope.READ})
async def show_batch_summary(request: Asking, batch_id: FromPath[str]) -> BatchSummary:
    """Sum up a batch, at the same cost for ten recipients and for a hundred thousand."""
    tally = await _find(request, batch_id)
    batch, counts = tally.batch, _counts(tally)
    events: dict[EventType, int] = {
        "SENT": counts.sent,
        "FAILED": counts.failed,
        "BOUNCE": counts.bounced,
        "COMPLAINT": counts.complained,
        "SUPPRESSED": counts.suppressed,
    }
    status = status_of(batch, parts_of(request).clock())
    progress = round(1.0 - counts.pending / max(batch.total, 1), 4)
    return BatchSummary(batch.id, status, batch.total, counts.pending, counts.cancelled, progress, events)


@post("/api/v1/batches/{batch_id:str}/suspend", opt={NEEDS: Scope.SEND}, status_code=200)
async def suspend_batch(request: Asking, batch_id: FromPath[str]) -> ShownBatch:
    """Send nothing more of a batch until it is resumed; what waits in the queue is held."""
    return await _change(request, batch_id, _desk(request).suspend)


@post("/api/v1/batches/{batch_id:str}/resume", opt={NEEDS: Scope.SEND}, status_code=200)
async def resume_batch(request: Asking, batch_id: FromPath[str]) -> ShownBatch:
    """Go on with a batch that is suspended."""
    return await _change(request, batch_id, _desk(request).resume)


@post("/api/v1/batches/{batch_id:str}/cancel", opt={NEEDS: Scope.SEND}, status_code=200)
async def cancel_batch(request: Asking, batch_id: FromPath[str]) -> ShownBatch:
    """Send nothing more of a batch, ever; what waits in the queue is deleted."""
    return await _change(request, batch_id, _desk(request).cancel)


async def _change(request: Asking, batch_id: str, change: Callable[[Tally], Awaitable[bool]]) -> ShownBatch:
    tally = await _find(request, batch_id)
    try:
        is_changed = await change(tally)
    except OSError:
        raise Refused(503, "the queue could not be changed", headers={"Retry-After": "60"}) from None
    now = parts_of(request).clock()
    if not is_changed:
        raise Refused(409, f"the batch is {status_of(tally.batch, now)}")
    return _shown(tally, now)


async def _find(request: Asking, batch_id: str) -> Tally:
    """Give a tenant's batch; raises Refused (404)."""
    number = parse_id(batch_id)
    tally = None
    if number is not None:
        tally = await _desk(request).find(caller_of(request).tenant, format_id(number))
    if tally is None:
        raise not_found("batch")
    return tally


def _desk(request: Asking) -> Batches:
    desk = parts_of(request).batches
    if desk is None:
        raise Refused(503, "batches are not running")
    return desk


def _shown(tally: Tally, now: float) -> ShownBatch:
    batch, form = tally.batch, tally.batch.form
    return ShownBatch(
        id=batch.id,
        status=status_of(batch, now),
        created_at=datetime.fromtimestamp(batch.created, UTC),
        template_id=form.template_id,
        template=batch.template,
        tag=form.tag,
        priority="" if form.priority is None else str(form.priority),
        send_at=time_of(form.release),
        ended_at=time_of(batch.ended),
        metadata=form.metadata,
        counts=_counts(tally),
    )


def _counts(tally: Tally) -> BatchCounts:
    batch, stored = tally.batch, tally.stored
    told = stored.counts
    left = batch.total - stored.finished
    is_cancelled = batch.state is State.CANCELLED
    return BatchCounts(
        total=batch.total,
        pending=0 if is_cancelled else left,
        sent=told.get(SENT, 0),
        failed=told.get(FAILED, 0),
        bounced=told.get(BOUNCE, 0),
        complained=told.get(COMPLAINT, 0),
        suppressed=told.get(STOPPED, 0),
        cancelled=told.get("CANCELLED", 0) + (left if is_cancelled else 0),
    )


BATCHES: tuple[HTTPRouteHandler, ...] = (
    list_batches,
    show_batch,
    list_batch_events,
    show_batch_summary,
    suspend_batch,
    resume_batch,
    cancel_batch,
)
