"""Events: everything that happens to a tenant's messages, a page at a time, or as a stream that goes on."""

from datetime import datetime

import msgspec

from smarthost.client.call import Call, Page, get, no_answer, queried, reader
from smarthost.client.faults import Unreadable

SILENCE = 45.0  # seconds without a word after which a stream is dead: the relay says every 15 s that it is there
_PAGE = 500  # events that are asked for at a time
_LONGEST_FRAME = 1024 * 1024  # octets of one event


class Seconds(msgspec.Struct, frozen=True):
    """Where an attempt's time went, in seconds."""

    queued: float = 0.0
    connecting: float = 0.0
    transferring: float = 0.0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `event` is "accepted", "relayed", "delayed", "failed", "bounced" and so on.

    `id` is the message's; `cursor` grows from event to event, and is 0 in the story of one message. `code`, `status`
    and `reply` are the peer's; what there is nothing to say of is "" or 0.
    """

    event: str
    time: datetime
    cursor: int = 0
    id: str = ""
    envid: str = ""
    sender: str | None = None
    recipient: str = ""
    route: str = ""
    site: str = ""
    host: str = ""
    address: str = ""
    code: int = 0
    status: str = ""
    reply: str = ""
    stage: str | None = None
    attempt: int = 0
    tls: str = ""
    size: int = 0
    user: str = ""
    client: str = ""
    listener: str = ""
    signed: tuple[str, ...] = ()
    seconds: Seconds | None = None


class _EventList(msgspec.Struct, frozen=True):
    events: list[Event]
    next: int
    head: int


_READ_LIST, _READ_EVENT = reader(_EventList), reader(Event)


def list_events(*, after: int = 0) -> Call[Page[Event]]:
    """Give the events behind a cursor, in the order in which they were committed, up to now; 0 is the beginning."""

    def read(octets: bytes) -> Page[Event]:
        listed = _READ_LIST(octets)
        is_last = listed.next >= listed.head or (not listed.events and listed.next <= after)
        return Page(listed.events, None if is_last else list_events(after=listed.next), str(listed.next))

    return Call(
        method="GET",
        path="/events",
        read=read,
        query=(("after", str(after)), ("limit", str(_PAGE))),
        repeats=True,
    )


def newest() -> Call[int]:
    """Give the cursor of now: everything that happens later is behind it."""
    return get("/events", lambda octets: _READ_LIST(octets).head, limit=1)


def open_stream(after: int) -> Call[None]:
    """Ask for the stream of events behind a cursor."""
    return Call(
        method="GET",
        path="/events/stream",
        read=no_answer,
        query=queried({"after": after}),
        repeats=True,
        patience=SILENCE,
    )


class Frames:
    """Reads a stream of events (text/event-stream) as it comes, in pieces of any size."""

    def __init__(self) -> None:
        """Begin."""
        self._rest = b""

    def feed(self, octets: bytes) -> list[Event]:
        """Give the events that are complete with these octets; raises Unreadable."""
        *frames, self._rest = (self._rest + octets).split(b"\n\n")
        if len(self._rest) > _LONGEST_FRAME:
            raise Unreadable("the stream of events has none, but a great deal of something else")
        events = []
        for frame in frames:
            data = [line[5:].lstrip(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")]
            if data:
                events.append(_READ_EVENT(b"\n".join(data)))
        return events
