"""Operations: what a person may ask of the running relay, put together from the parts."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from smarthost import __version__
from smarthost.control_template_verbs import TemplateOperations
from smarthost.control_verbs import (
    KeyOperations,
    Question,
    Row,
    SuppressionOperations,
    SuspensionOperations,
    TrialOperations,
)
from smarthost.mail.entry import Entry
from smarthost.mail.message import Message, format_id
from smarthost.queue.operate import Operator, stored_filter
from smarthost.queue.scheduler import Scheduler
from smarthost.reasons import Reason, Reasons, since_when
from smarthost.report.rows import entry_row, event_row, message_row
from smarthost.report.timestamp import format_end, format_time
from smarthost.spool.store import Filter, Spool

PAGE = 500  # entries read from the spool at a time
BLOCK = 256 * 1024  # octets of content in one row of an export


class RelayOperations:
    """Implements `control_verbs.Operations` over the parts that the server joined, which sets the others."""

    suppression: SuppressionOperations
    suspension: SuspensionOperations
    keys: KeyOperations
    trial: TrialOperations
    templates: TemplateOperations

    def __init__(
        self,
        spool: Spool,
        scheduler: Scheduler,
        operator: Operator,
        reasons: Reasons,
        reload: Callable[[], Awaitable[list[str]]],
        clock: Callable[[], float],
    ) -> None:
        """Join the parts; `reload` reads the configuration again and gives what is wrong with it."""
        self._spool, self._scheduler, self._operator = spool, scheduler, operator
        self._reasons, self._reload, self._clock = reasons, reload, clock
        self.explainer: Callable[[Question], Awaitable[Row]] | None = None
        self.started_at = clock()
        self.listening: list[str] = []
        self.about: Callable[[], Row] = dict

    async def queue_list(self, wanted: Filter, limit: int) -> AsyncIterator[Row]:
        """Give entries by arrival, each with what it waits for just now, and what holds its site till when."""
        left = limit or -1
        async for entry, reason in self._entries(wanted):
            row = entry_row(entry) | {"why": str(reason.why)}
            if reason.cause and reason.until is not None:
                row |= {"until": format_time(reason.until), "cause": reason.cause}
            yield row
            left -= 1
            if left == 0:
                return

    async def queue_show(self, message: int) -> Row | None:
        """Give a message with its entries and its history."""
        entries = await self._spool.entries_of(message)
        events = await self._spool.events_of(message)
        if not entries and not events:
            return None
        return {
            "message": message_row(entries[0].message) if entries else {"id": format_id(message)},
            "entries": [entry_row(entry) for entry in entries],
            "events": [event_row(event) for event in events],
        }

    async def queue_flush(self, wanted: Filter) -> Row:
        """Make entries due now."""
        return await self._operator.flush(wanted)

    async def queue_hold(self, wanted: Filter, dry_run: bool) -> Row:
        """Park entries."""
        return await self._operator.hold(wanted, dry_run)

    async def queue_release(self, wanted: Filter, dry_run: bool) -> Row:
        """Let parked entries go on."""
        return await self._operator.release(wanted, dry_run)

    async def queue_retry(self, wanted: Filter, dry_run: bool) -> Row:
        """Route entries again and make them due now."""
        return await self._operator.retry_now(wanted, dry_run)

    async def queue_fail(self, wanted: Filter, dry_run: bool) -> Row:
        """Give entries up, with reports."""
        return await self._operator.fail(wanted, dry_run)

    async def queue_delete(self, wanted: Filter, dry_run: bool) -> Row:
        """Delete entries without reports."""
        return await self._operator.delete(wanted, dry_run)

    async def queue_export(self, wanted: Filter) -> AsyncIterator[Row]:
        """Give whole messages, in blocks of content."""
        last = 0
        async for entry, _ in self._entries(wanted):
            if entry.message.id == last:
                continue
            last = entry.message.id
            async for row in export_rows(self._spool, entry.message):
                yield row

    async def trace(self, message: int) -> AsyncIterator[Row]:
        """Give the events of a message, oldest first."""
        for event in await self._spool.events_of(message):
            yield event_row(event)

    async def why(self, message: int) -> AsyncIterator[Row]:
        """Say for each entry what it waits for, since when, and until when."""
        entries = await self._spool.entries_of(message)
        events = await self._spool.events_of(message) if entries else []
        for entry in entries:
            reason = self._reasons.of(entry)
            since = reason.since if reason.since is not None else since_when(entry, events)
            yield entry_row(entry) | {
                "why": str(reason.why),
                "text": reason.text,
                "since": format_time(since),
                "until": format_end(reason.until),
            }

    async def explain(self, question: Question) -> Row:
        """Say what would become of a message; the server sets who knows."""
        assert self.explainer is not None
        return await self.explainer(question)

    async def status(self) -> Row:
        """Give what an operator asks first."""
        counts = await self._spool.count()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(self._clock() - self.started_at, 1),
            "time": format_time(time.time()),
            "listening": self.listening,
            **self.about(),
            "queue": counts,
            "in_memory": self._scheduler.total,
        }

    async def reload(self) -> Row:
        """Read the configuration again."""
        return {"problems": await self._reload()}

    async def _entries(self, wanted: Filter) -> AsyncIterator[tuple[Entry, Reason]]:
        """Give entries with what holds them now; a filter's `why` means the reason that is shown."""
        after, stored = (0, 0), stored_filter(wanted)
        while page := await self._spool.select(stored, PAGE, after):
            after = page[-1].key
            for entry in page:
                reason = self._reasons.of(entry)
                if not wanted.why or reason.why == wanted.why:
                    yield entry, reason


async def export_rows(spool: Spool, message: Message) -> AsyncIterator[Row]:
    """Give one message as rows: its description, blocks of content, an end."""
    identity = format_id(message.id)
    recipients = [recipient.address for recipient in message.envelope.recipients]
    yield message_row(message) | {"recipients": recipients}
    content = (await spool.contents([message.id])).get(message.id)
    if content is None:
        yield {"id": identity, "end": True, "problem": "the content is missing or damaged"}
        return
    last: dict[str, Any] = {"id": identity, "content": content.head}
    offset = 0
    while content.file:
        block = await spool.read_file(content.file, offset, BLOCK)
        if not block:
            break
        yield last
        offset += len(block)
        last = {"id": identity, "content": block}
    yield last | {"end": True}
