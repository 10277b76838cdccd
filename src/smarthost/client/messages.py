"""Messages: sent as fields or as they are, listed, shown, and changed while they are in the queue."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from smarthost.client.call import Call, Page, get, moment, post, queried, reader, segment
from smarthost.client.events import Event
from smarthost.client.raw import Mail, as_content

WAITING = frozenset({"queued", "scheduled", "delayed", "held"})  # a message of which something is still to come
_PAGE = 100  # messages that are asked for at a time


class Address(msgspec.Struct, frozen=True):
    """An address with the name that is shown for it."""

    email: str
    name: str = ""


class StoredObject(msgspec.Struct, frozen=True):
    """An object in a store that speaks S3's protocol, from where the relay fetches it."""

    bucket: str
    key: str


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment; its octets come from exactly one of `content`, `url`, `s3` and `storage_path`.

    `cid` is the name by which the HTML refers to it ("cid:logo"); `content_md5` names the content in the relay's
    cache, in hex.
    """

    filename: str = ""
    content_type: str = ""
    content: bytes | None = None
    url: str | None = None
    s3: StoredObject | None = None
    storage_path: str | None = None
    cid: str = ""
    disposition: str = ""
    content_md5: str = ""


class RetryProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long the relay tries a message, in seconds: the delays between attempts, and when it gives up."""

    schedule: Sequence[float] = ()
    lifetime: float | None = None


Addresses = str | Address | Sequence[str | Address]


class NewMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message to be sent. `from_` and at least one of `to`, `cc` and `bcc` are needed, and `text`, `html` or both.

    `priority` is "immediate", "high", "medium", "low", or 0 to 3; `send_at` a time before which nothing is sent, one
    without a zone in the machine's own; `id` is the application's own name for it, under which it is sent once only;
    with `dry_run` nothing is sent at all. With a `template_id` subject and bodies are the template's, filled in with
    `variables`.
    """

    from_: str | Address = msgspec.field(name="from")
    to: Addresses = ()
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    subject: str = ""
    text: str = ""
    html: str = ""
    headers: Mapping[str, str] = {}
    attachments: Sequence[Attachment] = ()
    tag: str = ""
    priority: str | int | None = None
    send_at: datetime | None = None
    route: str = ""
    account_id: str = ""
    metadata: Mapping[str, Any] = {}
    return_path: str | None = None
    retry: RetryProfile | None = None
    template_id: str = ""
    variables: Mapping[str, Any] = {}
    id: str = ""
    dry_run: bool = False


class RecipientResult(msgspec.Struct, frozen=True):
    """What became of one recipient at the door: "accepted", or "suppressed" or "refused" with code and reason."""

    address: str
    result: str
    code: int = 0
    status: str = ""
    reason: str = ""


class SentMessage(msgspec.Struct, frozen=True):
    """A message that the relay has on disk. `id` is "" after a dry run."""

    id: str
    status: str
    recipients: list[RecipientResult]
    client_id: str = ""
    send_at: datetime | None = None
    dry_run: bool = False


class Standing(msgspec.Struct, frozen=True):
    """How one recipient of a message stands; `code`, `enhanced_status` and `reply` are the last that was heard."""

    address: str
    status: str
    code: int = 0
    enhanced_status: str = ""
    reply: str = ""
    attempts: int = 0
    next_attempt: datetime | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message and what became of it. `from_` is its reverse-path; lists leave `events` out."""

    id: str
    status: str
    created_at: datetime
    from_: str = msgspec.field(name="from")
    recipients: list[Standing]
    subject: str = ""
    tag: str = ""
    client_id: str = ""
    send_at: datetime | None = None
    size: int = 0
    metadata: dict[str, Any] = {}
    events: list[Event] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come any more."""
        return self.status not in WAITING


class Changed(msgspec.Struct, frozen=True):
    """How many parts of a message were changed, and how many could not be since they are in delivery just now."""

    id: str
    entries: int
    in_delivery: int = 0


class _MessageList(msgspec.Struct, frozen=True):
    messages: list[Message]
    next_cursor: str | None = None


_READ_SENT, _READ_ONE, _READ_CHANGED = reader(SentMessage), reader(Message), reader(Changed)
_READ_LIST = reader(_MessageList)


def send(message: NewMessage | Mapping[str, Any], *, idempotency_key: str = "") -> Call[SentMessage]:
    """Send a message: it is on the relay's disk when this returns.

    `message` may also be what docs/api.md has as JSON. Without an `idempotency_key` one is made, which is the same for
    all attempts of this call; give one that the application remembers to be safe against its own end as well.
    """
    if isinstance(message, NewMessage) and message.send_at is not None:
        message = msgspec.structs.replace(message, send_at=moment(message.send_at))
    return post("/messages", _READ_SENT, message, key=idempotency_key)


def send_raw(
    mail: Mail,
    *,
    to: str | Sequence[str] = (),
    reverse_path: str | None = None,
    id: str = "",
    dry_run: bool = False,
    idempotency_key: str = "",
) -> Call[SentMessage]:
    """Send a message as it is (RFC 5322): octets, a message of the standard library, or the path of a file.

    `to` are the recipients, else those of To, Cc and Bcc; `reverse_path` is the sender of the envelope, "" for none,
    else the author. Bcc is taken out by the relay.
    """
    recipients = (to,) if isinstance(to, str) else tuple(to)
    query = queried({"to": recipients, "id": id, "dry_run": dry_run or None})
    if reverse_path is not None:
        query = (*query, ("from", reverse_path or "<>"))
    return Call(
        method="POST", path="/messages", read=_READ_SENT, query=query, content=as_content(mail), key=idempotency_key
    )


def show(id: str) -> Call[Message]:
    """Give a message with everything that happened to it."""
    return get(f"/messages/{segment(id)}", _READ_ONE)


def list_messages(
    *,
    status: str = "",
    recipient: str = "",
    tag: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str = "",
) -> Call[Page[Message]]:
    """Give the messages that came by HTTP, newest first. `cursor` is a page's, to go on from there."""

    def read(octets: bytes) -> Page[Message]:
        listed = _READ_LIST(octets)
        following = ask(listed.next_cursor) if listed.next_cursor else None
        return Page(listed.messages, following, listed.next_cursor or "")

    def ask(at: str) -> Call[Page[Message]]:
        wanted = {"status": status, "recipient": recipient, "tag": tag, "since": since, "until": until}
        return get("/messages", read, **wanted, cursor=at, limit=_PAGE)

    return ask(cursor)


def cancel(id: str) -> Call[Changed]:
    """Send nothing more of a message; nobody gets a report. Raises Conflict where it is not in the queue any more."""
    return _change(id, "cancel")


def retry(id: str) -> Call[Changed]:
    """Have a message sent now, whatever it waits for. Raises Conflict where it is not in the queue any more."""
    return _change(id, "retry")


def hold(id: str) -> Call[Changed]:
    """Hold a message until it is released. Raises Conflict where it is not in the queue any more."""
    return _change(id, "hold")


def release(id: str) -> Call[Changed]:
    """Let a message go on that was held. Raises Conflict where it is not held."""
    return _change(id, "release")


def _change(id: str, action: str) -> Call[Changed]:
    return post(f"/messages/{segment(id)}/{action}", _READ_CHANGED)
