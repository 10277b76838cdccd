"""Envelope and its recipients: what the client asked for (RFC 5321, RFC 3461)."""

from enum import IntFlag, StrEnum
from types import MappingProxyType

import msgspec


class Ret(StrEnum):
    """What a failure report shall return: the whole message or its header only (RFC 3461 4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


class Body(StrEnum):
    """What the client declared about the content's octets (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class Notify(IntFlag):
    """When a recipient's sender wants a report (RFC 3461 4.1); 0 means that nothing was asked."""

    UNSPECIFIED = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Priority(StrEnum):
    """How urgent a message is; what is more urgent goes first where several wait (`policy.fairness`)."""

    IMMEDIATE = "immediate"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


_URGENT, _MORE_URGENT = 5, 1  # of MT-PRIORITY: MIXER's urgent is 4, STANAG 4406's flash 4 and override 6
RANKS = MappingProxyType({priority: rank for rank, priority in enumerate(Priority)})  # 0 is the most urgent


class Recipient(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One forward-path, as asked; it never changes.

    `address` is the mailbox, complete with a domain, in the client's own spelling; `domain` is the A-label form of
    its domain, lower case, or an address literal; `orcpt` is the decoded ORCPT value "type;address" or "".
    `return_path` is the reverse-path with which it is sent to, if that is another one than the envelope's.
    """

    address: str
    domain: str
    notify: int = 0
    orcpt: str = ""
    return_path: str = ""


class Pace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one message is tried, where its sender said so: seconds between attempts, and until it is given up.

    () and None leave to the relay what was not said. The last delay repeats.
    """

    schedule: tuple[float, ...] = ()
    lifetime: float | None = None


class Envelope(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """What MAIL and RCPT said. `reverse_path` "" is the null reverse-path, everywhere.

    `envid` is the decoded ENVID or ""; `body` and `smtputf8` are what the client declared, not what was measured;
    `hold_until` is a Unix time in seconds before which nothing is sent, or 0; `mt_priority` is what MAIL said of it,
    -9 to 9 (RFC 6710), None where it said nothing. `tls_optional` says that the message's header has "TLS-Required: No"
    and that REQUIRETLS, which would stand above it, was not given (RFC 8689). `hold_for` are the seconds of HOLDFOR
    where `hold_until` comes from there (RFC 4865), else 0. `pace` is None unless the sender asked to be tried otherwise
    than the relay does.
    """

    reverse_path: str
    recipients: tuple[Recipient, ...]
    ret: Ret | None = None
    envid: str = ""
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    requiretls: bool = False
    hold_until: float = 0.0
    priority: Priority = Priority.MEDIUM
    mt_priority: int | None = None
    tls_optional: bool = False
    hold_for: int = 0
    pace: Pace | None = None


def priority_of(mt_priority: int) -> Priority:
    """Give the one of our four that an MT-PRIORITY of -9 to 9 belongs to; 0 is what mail without it has (RFC 6710)."""
    if mt_priority >= _MORE_URGENT:
        return Priority.IMMEDIATE if mt_priority >= _URGENT else Priority.HIGH
    return Priority.MEDIUM if mt_priority == 0 else Priority.LOW
