"""Events: everything that happens to a tenant's messages, a page at a time or as a stream that goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response import Stream as StreamResponse

from smarthost.mail.key import Scope
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.callers import Caller
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused
from smarthost.reception.http.routes import NEEDS
from smarthost.report.rows import event_row
from smarthost.spool.store import LoggedEvent

STREAMED = 200  # events that are read at a time
HEARTBEAT = 15.0  # seconds after which a stream says that it is still there

After = Annotated[int, QueryParameter(ge=0, le=2**53, description="next of the page before; 0 is the beginning")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


class EventList(msgspec.Struct, frozen=True):
    """Events in the order in which they were committed; `next` is for the request that goes on.

    A page may be empty although there is more: as long as `next` is below `head`.
    """

    events: list[dict[str, Any]]
    next: int
    head: int


@get("/api/v1/events", opt={NEEDS: Scope.READ})
async def list_events(request: Asking, after: After = 0, limit: Limit = 100) -> EventList:
    """Give the events behind a cursor."""
    log, tenant = parts_of(request).spool.event_log, caller_of(request).tenant
    page = await log.after(after, limit, tenant)
    return EventList([_row(each) for each in page.events], page.end, log.head)


@get("/api/v1/events/stream", opt={NEEDS: Scope.READ})
async def stream_events(
    request: Asking, after: Annotated[int | None, QueryParameter(ge=0, le=2**53)] = None
) -> StreamResponse:
    """Give events as they happen (text/event-stream), from a cursor on, else from now.

    Last-Event-ID goes before the cursor, so that a client which comes back misses nothing.
    """
    parts, caller = parts_of(request), caller_of(request)
    shown = request.headers.get("last-event-id", "")
    if shown and not (shown.isascii() and shown.isdigit() and len(shown) < 17):
        raise Refused(400, "Last-Event-ID: the id of an event is allowed")
    parts.streams.check(caller)
    cursor = int(shown) if shown else parts.spool.event_log.head if after is None else after
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamResponse(_stream(parts, caller, cursor), media_type="text/event-stream", headers=headers)


async def _stream(parts: HttpParts, caller: Caller, cursor: int) -> AsyncIterator[bytes]:
    log = parts.spool.event_log
    with parts.streams.opened(caller) as stream:
        stop = log.listen(stream.wake.set)
        try:
            yield b": events\n\n"
            while not stream.is_over:
                stream.wake.clear()
                page = await log.after(cursor, STREAMED, caller.tenant)
                cursor = page.end
                if page.events:
                    yield b"".join([_frame(each) for each in page.events])
                elif cursor >= log.head and not stream.is_over:
                    try:
                        async with asyncio.timeout(HEARTBEAT):
                            await stream.wake.wait()
                    except TimeoutError:
                        yield b": still here\n\n"
        finally:
            stop()


def _frame(logged: LoggedEvent) -> bytes:
    data = msgspec.json.encode(_row(logged))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (logged.cursor, logged.event.event.value.encode(), data)


def _row(logged: LoggedEvent) -> dict[str, Any]:
    return {"cursor": logged.cursor} | event_row(logged.event)


EVENTS: tuple[HTTPRouteHandler, ...] = (list_events, stream_events)
