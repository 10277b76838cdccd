"""Events: what happened to a message, as the history, the mail log and the metrics hear it."""

from enum import StrEnum
from typing import Any

import msgspec

from smarthost.mail.message import Message
from smarthost.mail.outcome import Stage


class Kind(StrEnum):
    """What an event says; the mail log's `event`."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ATTEMPTED = "attempted"
    RELAYED = "relayed"
    DELAYED = "delayed"
    FAILED = "failed"
    REPORTED = "reported"
    HELD = "held"
    RELEASED = "released"
    EXPIRED = "expired"
    DELETED = "deleted"
    SUSPENDED = "suspended"
    SLOWED = "slowed"
    SWITCHED = "switched"
    RESUMED = "resumed"
    SUPPRESSED = "suppressed"
    UNSUPPRESSED = "unsuppressed"
    BOUNCED = "bounced"  # said later by a host or provider that had taken the message
    COMPLAINED = "complained"


_ACCEPTED = Kind.ACCEPTED  # looked up for each message: an attribute of an enum costs more than a name of the module


class Seconds(msgspec.Struct, frozen=True, gc=False):
    """Where an attempt's time went, in seconds."""

    queued: float
    connecting: float
    transferring: float


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of a message's story. Its fields are the mail log's; "" and 0 mean that there is nothing to say.

    `time` is a Unix time in seconds; `message` is the id as a number, 0 for a rejection. Fields are only ever
    appended: the history keeps their values without their names, and the two events that every message has are built
    by position, at a third of the price.
    """

    time: float
    event: Kind
    message: int = 0
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
    stage: Stage | None = None
    attempt: int = 0
    tls: str = ""
    size: int = 0
    user: str = ""
    client: str = ""
    listener: str = ""
    signed: tuple[str, ...] = ()
    seconds: Seconds | None = None


def mend(value: Any) -> Any:
    """Give plain values with "?" for what is no UTF-8 in their texts, so that any encoder takes them."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: mend(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mend(inner) for inner in value]
    return value


def accepted_event(message: Message) -> Event:
    """Tell of a message's acceptance."""
    arrival, envelope = message.arrival, message.envelope
    return Event(
        arrival.at,
        _ACCEPTED,
        message.id,
        envelope.envid,
        envelope.reverse_path,
        envelope.recipients[0].address if len(envelope.recipients) == 1 else "",
        size=message.size,
        user=arrival.identity,
        client=arrival.client,
        listener=arrival.door,
        tls=arrival.tls,
        signed=message.signatures,
    )
