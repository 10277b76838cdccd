"""What the door is given by the assembly: where mail goes, who may come in, who listens to what happened."""

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from smarthost.crypto.tls import ServerTls
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.record import Record
from smarthost.mail.reply import Reply
from smarthost.reception.credentials import Credentials
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed


class Draft(Protocol):
    """A message that is coming in, as the door sees it (`queue.draft`).

    `refused` is set as soon as a refusal is known; `backlog` counts octets that are not yet on disk, and `on_drained`
    is called when it has fallen. `is_dotted` is told at the end: false when no line of the content begins with a dot.
    `remember` gives what is kept of the message beside it; it may be called from any thread. `keeps_return_path` is set
    where the sender named a return path.
    """

    arrival: Arrival
    refused: Reply | None
    backlog: int
    is_dotted: bool
    keeps_return_path: bool
    on_drained: Callable[[], None] | None
    remember: Callable[[Message], tuple[Record, ...]] | None

    def write(self, block: bytes) -> None:
        """Take clean content."""

    def commit(self, done: Callable[[Reply], None]) -> None:
        """Make it durable; calls `done` once, on the loop, maybe at once."""

    def abandon(self) -> None:
        """Forget it."""


class Intake(Protocol):
    """Where drafts begin, as the door sees it (`queue.intake`)."""

    def begin(self, arrival: Arrival, envelope: Envelope) -> Draft:
        """Begin a message."""


class Limits(Protocol):
    """What may come in now (`reception.door_limits`); nothing is asked while it is not `active`."""

    @property
    def active(self) -> bool:
        """Whether there is any limit."""

    def refuse_sender(self, user: str, reverse_path: str) -> Reply | None:
        """Say whether a message may come from here now."""

    def refuse_recipient(self, user: str, reverse_path: str, destination: str, count: int) -> Reply | None:
        """Say whether a recipient may be added now to `count` others."""

    def take(self, user: str, reverse_path: str, recipients: Iterable[Recipient]) -> Reply | None:
        """Count a message, or refuse it and count nothing."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a session needs from outside.

    `route_refusal` (reverse-path, recipient, identity) gives the refusal of a route that rejects; `has_space` is false
    when the disk is nearly full; `clock` gives Unix seconds; `tls` is None where no listener uses TLS.
    """

    intake: Intake
    credentials: Credentials
    feed: Feed
    counters: Counters
    clock: Callable[[], float]
    route_refusal: Callable[[str, Recipient, str], Reply | None]
    has_space: Callable[[], bool]
    limits: Limits
    tls: ServerTls | None = None
