"""Batches: one template to many recipients, each with variables of their own, in one request."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from smarthost.client.call import Call, Content, Page, get, joined, moment, post, reader, segment
from smarthost.client.messages import Address, Addresses

OVER = frozenset({"COMPLETED", "CANCELLED"})  # a batch of which nothing is to come any more
_BATCHES, _EVENTS = 100, 1000  # that are asked for at a time


class BatchRecipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recipient with what its template is filled in with; `email` may have a name: "Ada <ada@example.net>"."""

    email: str
    variables: Mapping[str, Any] = {}


Recipients = Iterable[BatchRecipient | Mapping[str, Any] | str]


class NewBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A batch without its recipients. `priority` and `send_at` are as those of a message."""

    template_id: str
    from_: str | Address = msgspec.field(name="from", default="")
    reply_to: Addresses = ()
    headers: Mapping[str, str] = {}
    tag: str = ""
    priority: str | int | None = None
    send_at: datetime | None = None
    route: str = ""
    account_id: str = ""
    metadata: Mapping[str, Any] = {}
    return_path: str | None = None


class BadAddress(msgspec.Struct, frozen=True):
    """A recipient whose address is none: it is sent nothing."""

    email: str
    reason: str


class SentBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that the relay has on disk. `rejected` tells up to a hundred of its `invalid` recipients."""

    id: str
    status: str
    created_at: datetime = msgspec.field(name="createdAt")
    recipients: int = 0
    invalid: int = 0
    rejected: list[BadAddress] = []


class BatchCounts(msgspec.Struct, frozen=True):
    """Of how many recipients what was told. `pending` are those of whom no end is known yet."""

    total: int = 0
    pending: int = 0
    sent: int = 0
    failed: int = 0
    bounced: int = 0
    complained: int = 0
    suppressed: int = 0
    cancelled: int = 0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. `status` is "SCHEDULED", "SENDING", "SUSPENDED", "COMPLETED" or "CANCELLED"."""

    id: str
    status: str
    created_at: datetime = msgspec.field(name="createdAt")
    template_id: str = ""
    template: str = ""
    tag: str = ""
    priority: str = ""
    send_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: dict[str, Any] = {}
    counts: BatchCounts = BatchCounts()


class BatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a recipient, whose place in the batch is `index`.

    `type` is "SENT", "FAILED", "BOUNCE", "COMPLAINT" or "SUPPRESSED".
    """

    type: str
    timestamp: datetime
    recipient: str
    index: int = 0
    message_id: str = ""
    code: int = 0
    status: str = ""
    reason: str = ""


class BatchSummary(msgspec.Struct, frozen=True):
    """How a batch stands: `events` has the recipients for each type, `progress` (0 to 1) is what is done with."""

    id: str
    status: str
    total: int
    pending: int = 0
    cancelled: int = 0
    progress: float = 0.0
    events: dict[str, int] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come any more."""
        return self.status in OVER


class _BatchList(msgspec.Struct, frozen=True):
    batches: list[Batch]
    next_cursor: str | None = None


class _EventList(msgspec.Struct, frozen=True):
    events: list[BatchEvent]
    total: int
    offset: int


_READ_SENT, _READ_ONE, _READ_SUMMARY = reader(SentBatch), reader(Batch), reader(BatchSummary)
_READ_LIST, _READ_EVENTS = reader(_BatchList), reader(_EventList)
_PATIENCE = 300.0  # seconds: the relay has to write and check a hundred thousand recipients before it answers
_ENCODER = msgspec.json.Encoder()


def send(
    batch: NewBatch, recipients: Recipients | Callable[[], Recipients], *, idempotency_key: str = ""
) -> Call[SentBatch]:
    """Send a template to many: all of them are on the relay's disk when this returns.

    Recipients that are given are written down first, since they may have to be sent again; a function that gives
    them, the same each time, is called for each attempt instead, so that they are never all in memory.
    """
    if batch.send_at is not None:
        batch = msgspec.structs.replace(batch, send_at=moment(batch.send_at))
    head = _ENCODER.encode(batch)
    if callable(recipients):
        give = recipients

        def blocks() -> Iterator[bytes]:
            return joined(_pieces(head, give()))

        content = Content(blocks)
    else:
        content = Content(b"".join(_pieces(head, recipients)))
    return Call(
        method="POST", path="/batches", read=_READ_SENT, content=content, key=idempotency_key, patience=_PATIENCE
    )


def list_batches(*, cursor: str = "") -> Call[Page[Batch]]:
    """Give the batches, newest first. `cursor` is a page's, to go on from there."""

    def read(octets: bytes) -> Page[Batch]:
        listed = _READ_LIST(octets)
        following = list_batches(cursor=listed.next_cursor) if listed.next_cursor else None
        return Page(listed.batches, following, listed.next_cursor or "")

    return get("/batches", read, cursor=cursor, limit=_BATCHES)


def show(id: str) -> Call[Batch]:
    """Give a batch."""
    return get(f"/batches/{segment(id)}", _READ_ONE)


def list_batch_events(id: str, *, offset: int = 0) -> Call[Page[BatchEvent]]:
    """Give what became of the recipients, in the order in which it happened, up to now."""

    def read(octets: bytes) -> Page[BatchEvent]:
        listed = _READ_EVENTS(octets)
        end = listed.offset + len(listed.events)
        following = list_batch_events(id, offset=end) if listed.events and end < listed.total else None
        return Page(listed.events, following, str(end))

    return get(f"/batches/{segment(id)}/events", read, offset=offset, limit=_EVENTS)


def summary(id: str) -> Call[BatchSummary]:
    """Give how a batch stands, in sums."""
    return get(f"/batches/{segment(id)}/summary", _READ_SUMMARY)


def suspend(id: str) -> Call[Batch]:
    """Send nothing more of a batch until it is resumed. Raises Conflict where it is over."""
    return post(f"/batches/{segment(id)}/suspend", _READ_ONE)


def resume(id: str) -> Call[Batch]:
    """Go on with a batch that is suspended. Raises Conflict where it is not."""
    return post(f"/batches/{segment(id)}/resume", _READ_ONE)


def cancel(id: str) -> Call[Batch]:
    """Send nothing more of a batch, ever. Raises Conflict where it is over."""
    return post(f"/batches/{segment(id)}/cancel", _READ_ONE)


def _pieces(head: bytes, recipients: Recipients) -> Iterator[bytes]:
    """Write the JSON of a batch, with the recipients at its end: the relay reads what they are for first."""
    yield head[:-1] + b',"recipients":['
    comma = b""
    for each in recipients:
        yield comma + _ENCODER.encode({"email": each} if isinstance(each, str) else each)
        comma = b","
    yield b"]}"
