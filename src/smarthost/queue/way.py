"""Way: what a draft needs of the intake that began it."""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Protocol

from smarthost.mail.entry import Entry
from smarthost.mail.message import Message, MessageIds
from smarthost.mail.reply import Reply
from smarthost.queue.recall import Recall
from smarthost.queue.rules import Rules
from smarthost.queue.signers import Signers
from smarthost.queue.signing import Workers
from smarthost.report.counters import Counters
from smarthost.spool.store import Accepted, ContentFile, Fault


class Store(Protocol):
    """What a draft needs of the spool."""

    def new_file(self, message: int) -> ContentFile:
        """Start the content file of a message id; raises OSError."""

    def accept(self, accepted: Accepted, done: Callable[[Fault | None], None]) -> None:
        """Make a message durable, then call `done`; from any thread."""


class Way(Protocol):
    """What a draft needs of the intake that began it. `recall` is None where keys of senders are not heeded."""

    loop: AbstractEventLoop
    rules: Rules
    ids: MessageIds
    counters: Counters
    signers: Signers
    files: Workers
    recall: Recall | None

    @property
    def spool(self) -> Store:
        """Where messages and contents go."""

    def entries_for(self, message: Message, keeps_return_path: bool) -> tuple[Entry, ...] | Reply:
        """Route the recipients of a message into entries; `keeps_return_path` where its sender named one itself."""

    def accepted(self, accepted: Accepted) -> None:
        """Take a message that is on disk."""
