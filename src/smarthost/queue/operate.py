"""What a person does to the queue: flush, hold, release, retry, fail, delete; each on a filter, in bounded portions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from smarthost.mail.entry import PARKED, Entry, Why
from smarthost.mail.event import Event, Kind
from smarthost.policy.backoff import Retry, deadline
from smarthost.queue.scheduler import Key, Scheduler
from smarthost.report.feed import Feed
from smarthost.spool.store import Change, Fault, Filter, Spool

# Reasons that only memory knows: an entry's row never has one of them.
LIVE = frozenset({Why.SITE_THROTTLED, Why.SITE_BUSY, Why.RATE_LIMITED, Why.LOGIN_PAUSED})
PORTION = 500  # entries that are changed in one transaction
_NEVER = float("inf")


class Withdraw(Protocol):
    """Takes an entry out of its ready queue; False when it is in delivery just now."""

    def __call__(self, queue: str, key: Key) -> bool:
        """Take it out."""


class Tally:
    """What a bulk verb did: entries, messages, and entries that were in delivery and so left alone."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.entries = 0
        self.busy = 0
        self._messages: set[int] = set()

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        self.entries += 1
        self._messages.add(entry.message.id)

    def as_row(self) -> dict[str, int]:
        """Give the counts by name."""
        row = {"entries": self.entries, "messages": len(self._messages)}
        return row | {"in_delivery": self.busy} if self.busy else row


class Operator:
    """Changes entries on disk and in memory alike; the settler is the only other place that does.

    `withdraw` takes an entry from a ready queue, `fail` gives a claimed entry up with its reports, `awake` lets
    queues be tried at once, `reason_of` says what holds an entry at this moment; the assembly sets them.
    """

    def __init__(
        self, spool: Spool, scheduler: Scheduler, feed: Feed, retry: Retry, clock: Callable[[], float]
    ) -> None:
        """Join the parts; `retry` is replaced at a reload."""
        self._spool, self._scheduler, self._feed, self.retry, self._clock = spool, scheduler, feed, retry, clock
        self.withdraw: Withdraw = lambda queue, key: False
        self.fail_entry: Callable[[Entry, str], None] = lambda entry, reason: None
        self.awake: Callable[[set[str]], None] = lambda queues: None
        self.reason_of: Callable[[Entry], Why] = lambda entry: entry.why

    async def flush(self, wanted: Filter, dry_run: bool = False) -> dict[str, int]:
        """Make entries due now, parked ones left out, and let their queues be tried at once."""
        queues: set[str] = set()

        def change(entry: Entry) -> bool:
            if entry.why in PARKED:
                return False
            entry.due = self._clock()
            queues.add(entry.queue)
            return True

        row = await self._change(wanted, dry_run, change, None)
        if not dry_run:
            self.awake(queues)
        return row

    async def hold(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Park entries until they are released."""

        def change(entry: Entry) -> bool:
            if entry.why in PARKED:
                return False
            entry.why, entry.due, entry.deadline = Why.HELD, _NEVER, _NEVER
            return True

        return await self._change(wanted, dry_run, change, Kind.HELD)

    async def release(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Let parked entries go on, with the lifetime that is left to them but at least one attempt."""

        def change(entry: Entry) -> bool:
            if entry.why not in PARKED:
                return False
            self._make_due(entry)
            return True

        return await self._change(wanted, dry_run, change, Kind.RELEASED)

    async def retry_now(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Make entries due now and forget which hosts failed; they are routed again on their way."""
        queues: set[str] = set()

        def change(entry: Entry) -> bool:
            entry.hosts_tried = ()
            self._make_due(entry)
            queues.add(entry.queue)
            return True

        row = await self._change(wanted, dry_run, change, Kind.RELEASED)
        if not dry_run:
            self.awake(queues)
        return row

    async def fail(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Give entries up, with the reports that their senders asked for."""
        tally = Tally()
        async for portion in self._portions(wanted):
            for entry in portion:
                if not dry_run and not self._take(entry, tally):
                    continue
                tally.add(entry)
                if not dry_run:
                    self._scheduler.claim(entry)
                    self.fail_entry(entry, "the message was given up by the postmaster")
        return tally.as_row()

    async def delete(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Delete entries without any report; the history keeps that it was done."""
        tally = Tally()
        async for portion in self._portions(wanted):
            taken = [entry for entry in portion if dry_run or self._take(entry, tally)]
            for entry in taken:
                tally.add(entry)
            if not dry_run and taken:
                await self._write(Change(removed=tuple(entry.key for entry in taken)), taken, Kind.DELETED)
        return tally.as_row()

    def _make_due(self, entry: Entry) -> None:
        now = self._clock()
        entry.why, entry.due = Why.RETRY if entry.attempts else Why.NEW, now
        entry.expires = max(entry.expires, now + self.retry.schedule[0])
        entry.deadline = deadline(self.retry, entry.message.arrival.at, entry.expires, entry.warned)

    async def _change(
        self, wanted: Filter, dry_run: bool, change: Callable[[Entry], bool], kind: Kind | None
    ) -> dict[str, int]:
        tally = Tally()
        async for portion in self._portions(wanted):
            changed = []
            for entry in portion:
                queue = entry.queue
                if not change(entry):
                    continue
                if not dry_run and not self._take(entry, tally):
                    continue
                tally.add(entry)
                changed.append((queue, entry))
            if dry_run or not changed:
                continue
            entries = [entry for _, entry in changed]
            await self._write(Change(updated=tuple(entries)), entries, kind)
            for queue, entry in changed:
                if entry.due < _NEVER:
                    self._scheduler.note_due(queue, entry.due)
        return tally.as_row()

    def _take(self, entry: Entry, tally: Tally) -> bool:
        """Get an entry out of memory, so that only its row is left; False when it is in delivery."""
        if not self._scheduler.is_loaded(entry.key, entry.queue):
            return True
        if not self.withdraw(entry.queue, entry.key):
            tally.busy += 1
            return False
        self._scheduler.forget(entry.key, entry.queue)
        return True

    async def _portions(self, wanted: Filter) -> AsyncIterator[list[Entry]]:
        after, stored = (0, 0), stored_filter(wanted)
        while portion := await self._spool.select(stored, PORTION, after):
            after = portion[-1].key
            yield [entry for entry in portion if self.reason_of(entry) == wanted.why] if wanted.why else portion

    async def _write(self, change: Change, entries: Sequence[Entry], kind: Kind | None) -> None:
        """Write a change and its events, and wait until they are on disk; raises OSError when that cannot be."""
        events = [] if kind is None else [self._event(entry, kind) for entry in entries]
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        if events:
            self._spool.record(events)
        self._spool.change(change, written.set_result)
        fault = await written
        if fault is not None:
            raise OSError(f"the queue could not be changed: {fault}")
        for event in events:
            self._feed.publish(event)

    def _event(self, entry: Entry, kind: Kind) -> Event:
        return Event(
            time=self._clock(),
            event=kind,
            message=entry.message.id,
            sender=entry.message.envelope.reverse_path,
            recipient=entry.recipients[0].address if len(entry.recipients) == 1 else "",
        )


def stored_filter(wanted: Filter) -> Filter:
    """Give what the spool can choose by: a reason that only memory knows has to be looked at entry by entry."""
    return msgspec.structs.replace(wanted, why="") if wanted.why in LIVE else wanted
