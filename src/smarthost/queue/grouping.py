"""Grouping: messages that come in together are made durable together, in one transaction with what is kept of them."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope
from smarthost.mail.event import Event
from smarthost.mail.message import Arrival, Message
from smarthost.mail.record import Record, RecordKey
from smarthost.mail.reply import Reply
from smarthost.queue.draft import Draft
from smarthost.queue.intake import Intake
from smarthost.queue.way import Store
from smarthost.spool.store import Accepted, ContentFile, Done, Fault, Group


class Grouping:
    """The intake and the spool of the drafts of one group: what they have accepted waits here for the others.

    Used on the event loop, except for what drafts call. `refused` are envelopes of drafts that came to nothing, each
    with the reply. What is not written with the group was never accepted.
    """

    def __init__(self, intake: Intake) -> None:
        """Begin empty."""
        self._intake = intake
        self.loop, self.rules, self.ids = intake.loop, intake.rules, intake.ids
        self.recall = intake.recall
        self.counters, self.signers, self.files = intake.counters, intake.signers, intake.files
        self.refused: list[tuple[Envelope, Reply]] = []
        self._gathered: list[tuple[Accepted, Done]] = []
        self._lock = Lock()
        self._open = 0
        self._is_written = False
        self._moved = asyncio.Event()

    @property
    def spool(self) -> Store:
        """Where drafts put what they have."""
        return self

    def begin(self, arrival: Arrival, envelope: Envelope) -> Draft:
        """Begin a draft of this group."""
        return Draft(self, arrival, envelope)

    def commit(self, draft: Draft) -> None:
        """Have a draft signed, routed and put to the others."""
        self._open += 1
        draft.commit(partial(self._answered, draft.envelope))

    async def gathered(self) -> list[Message]:
        """Wait until each draft is here or was refused; gives the messages that are."""
        while self._open:
            self._moved.clear()
            await self._moved.wait()
        return [accepted.message for accepted, _ in self._gathered]

    async def write(
        self, records: Sequence[Record], removed: Sequence[RecordKey], events: Sequence[Event]
    ) -> Fault | None:
        """Make everything durable; after it the queue has the messages. A fault means that nothing was written."""
        self._is_written = True
        written: asyncio.Future[Fault | None] = self.loop.create_future()
        group = Group(tuple(self._gathered), tuple(records), tuple(removed), tuple(events))
        self._intake.spool.accept_group(group, lambda fault: None if written.done() else written.set_result(fault))
        return await asyncio.shield(written)

    def abandon(self) -> None:
        """Forget what was gathered, with the files of its contents."""
        gathered, self._gathered = self._gathered, []
        self._is_written = True
        for _, done in gathered:
            done(Fault.DISK_FULL)

    def new_file(self, message: int) -> ContentFile:
        """Start a content file, as the spool does."""
        return self._intake.spool.new_file(message)

    def accept(self, accepted: Accepted, done: Callable[[Fault | None], None]) -> None:
        """Any thread: keep what a draft has made until the others are ready."""
        with self._lock:
            self._gathered.append((accepted, done))
        self.loop.call_soon_threadsafe(self._arrived)

    def entries_for(self, message: Message, keeps_return_path: bool) -> tuple[Entry, ...] | Reply:
        """Route the recipients of a message."""
        return self._intake.entries_for(message, keeps_return_path)

    def accepted(self, accepted: Accepted) -> None:
        """Let the queue have a message that is on disk."""
        self._intake.accepted(accepted)

    def _arrived(self) -> None:
        self._open -= 1
        self._moved.set()

    def _answered(self, envelope: Envelope, reply: Reply) -> None:
        """Take a refusal of a draft; what is answered after the commit, `write` has said."""
        if not self._is_written:
            self.refused.append((envelope, reply))
            self._arrived()
