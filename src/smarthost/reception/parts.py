"""What the door is given by the assembly: where mail goes, who may come in, who listens to what happened."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from smarthost.crypto.tls import ServerTls
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.record import Record
from smarthost.mail.reply import Reply
from smarthost.reception.credentials import Credentials
from smarthost.reception.door_limits import DoorLimits
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed


class Draft(Protocol):
    """A message that is coming in, as the door sees it (`queue.draft`).

    `refused` is set as soon as a refusal is known; `backlog` counts octets that are not yet on disk, and `on_drained`
    is called when it has fallen. `is_dotted` is told at the end: false when no line of the content begins with a dot.
    `remember` gives what is kept of the message beside it; it may be called from any thread.
    """

    arrival: Arrival
    refused: Reply | None
    backlog: int
    is_dotted: bool
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
    limits: DoorLimits
    tls: ServerTls | None = None
