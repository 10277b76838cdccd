"""Entry: the recipients of one message that travel together, and why they wait."""

from enum import StrEnum
from types import MappingProxyType

import msgspec

from smarthost.mail.envelope import RANKS, Recipient
from smarthost.mail.message import Message


class Why(StrEnum):
    """Why an entry waits; each has a sentence in `policy.waiting`."""

    NEW = "new"
    RETRY = "retry"
    NEXT_HOST = "next_host"
    AMBIGUOUS = "ambiguous"
    SITE_THROTTLED = "site_throttled"
    SITE_BUSY = "site_busy"
    RELAY_BUSY = "relay_busy"
    RATE_LIMITED = "rate_limited"
    LOGIN_PAUSED = "login_paused"
    QUOTA_USED = "quota_used"
    NO_UPSTREAM = "no_upstream"
    AUTOMATION = "automation"
    SUSPENDED = "suspended"
    DNS_BUSY = "dns_busy"
    UNRESOLVED = "unresolved"
    TLS_POLICY = "tls_policy"
    SCHEDULED = "scheduled"
    HELD = "held"
    REPORT_FAILED = "report_failed"
    INTERNAL_ERROR = "internal_error"
    CONTENT_LOST = "content_lost"
    DEAD_LETTER = "dead_letter"


# An entry in one of these states has no due time: it waits for a person.
PARKED = frozenset({Why.HELD, Why.REPORT_FAILED, Why.INTERNAL_ERROR, Why.CONTENT_LOST, Why.DEAD_LETTER})


_DIGITS = MappingProxyType({priority: str(rank) for priority, rank in RANKS.items()})


class Entry(msgspec.Struct, gc=False):
    """Recipients of one message in one queue. Mutable: only `delivery.settle` and `queue.operate` change it.

    (`message.id`, `number`) is its key, kept for life. `attempts` counts attempts that were spent. `due` is the Unix
    time of the next attempt (infinite while parked); `expires` of giving up; `deadline` is the earlier of the expiry
    and the next delay warning (infinite while parked); `warned` counts the delay warnings that were sent.
    `last` is the last outcome's "code status text (host)" for people, "" before the first. `hosts_tried` names hosts
    that failed this entry in a row, so that the next attempt starts behind them; while `why` is `next_host` the attempt
    goes on at another one. After an ambiguous end it names the one that may have the message, with which the next
    attempt begins.
    """

    message: Message
    number: int
    queue: str
    recipients: tuple[Recipient, ...]
    due: float
    expires: float
    deadline: float
    attempts: int = 0
    warned: int = 0
    why: Why = Why.NEW
    last: str = ""
    hosts_tried: tuple[str, ...] = ()

    @property
    def avoids(self) -> tuple[str, ...]:
        """The hosts that are tried after all others."""
        return () if self.why is Why.AMBIGUOUS else self.hosts_tried

    @property
    def sticks_to(self) -> tuple[str, ...]:
        """The host that may have taken the message already, and recognises it at best: it is tried first."""
        return self.hosts_tried if self.why is Why.AMBIGUOUS else ()

    @property
    def key(self) -> tuple[int, int]:
        """The entry's identity: message id and number."""
        return self.message.id, self.number

    @property
    def lane(self) -> str:
        """Among whom it waits for its turn: the rank of its priority, then its user: "2app1"; never another one."""
        message = self.message
        return _DIGITS[message.envelope.priority] + message.arrival.identity
