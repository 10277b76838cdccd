"""What a person does to the queue: flush, hold, release, retry, fail, delete; each on a filter, in bounded portions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from smarthost.mail.entry import PARKED, Entry, Why
from smarthost.mail.event import Event, Kind
from smarthost.policy.backoff import Retry, at_pace, deadline
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import NEVER, Key
from smarthost.report.feed import Feed
from smarthost.spool.store import Change, Fault, Filter, Spool

# Reasons that memory knows: an entry's row has none of them, or not each row that waits for it.
LIVE = frozenset(
    {
        Why.SITE_THROTTLED,
        Why.SITE_BUSY,
        Why.RELAY_BUSY,
        Why.DNS_BUSY,
        Why.RATE_LIMITED,
        Why.LOGIN_PAUSED,
        Why.QUOTA_USED,
        Why.NO_UPSTREAM,
        Why.AUTOMATION,
        Why.SUSPENDED,
        Why.UNRESOLVED,
        Why.TLS_POLICY,
    }
)
PORTION = 500  # entries that are changed in one transaction
PATIENCE = 5.0  # seconds for which entries in delivery are waited for
LOOK_AGAIN, LOOK_SELDOM = 0.05, 0.5  # seconds between two looks at them, at first and at last


def _is_any(entry: Entry) -> bool:
    return True


def _is_alive(entry: Entry) -> bool:
    return entry.why is not Why.DEAD_LETTER


def _is_parked(entry: Entry) -> bool:
    return entry.why in PARKED


def _is_kept(entry: Entry) -> bool:
    return entry.why in PARKED and entry.why is not Why.DEAD_LETTER


def _means_dead(wanted: Filter) -> bool:
    """Whether dead letters are meant: they have failed, so that nobody sends them again without naming them."""
    return bool(wanted.ids) or wanted.why == Why.DEAD_LETTER


def _is_put_off(entry: Entry) -> bool:
    return entry.why is Why.SUSPENDED


def _is_active(entry: Entry) -> bool:
    return entry.why not in PARKED


def _is_tried(entry: Entry) -> bool:
    return entry.why not in PARKED and entry.why is not Why.SCHEDULED


class Withdraw(Protocol):
    """Takes an entry out of its ready queue; False when it is in delivery just now."""

    def __call__(self, queue: str, key: Key) -> bool:
        """Take it out."""


class Tally:
    """What a bulk verb did: entries, messages, entries that stayed in delivery and so were left alone; and where."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.entries = 0
        self.busy = 0
        self.queues: set[str] = set()
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
        """Make entries due now, parked and scheduled ones left out, and let their queues be tried at once."""

        def change(entry: Entry) -> None:
            entry.due = self._clock()

        tally = await self._change(wanted, dry_run, _is_tried, change, None)
        if not dry_run:
            self.awake(tally.queues)
        return tally.as_row()

    async def hold(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Park entries until they are released."""

        def change(entry: Entry) -> None:
            entry.hosts_tried = entry.avoids
            entry.why, entry.due, entry.deadline = Why.HELD, NEVER, NEVER

        return (await self._change(wanted, dry_run, _is_active, change, Kind.HELD)).as_row()

    async def release(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Let parked entries go on, with the lifetime that is left to them but at least one attempt.

        One whose time of sending has not come waits for that. A dead letter goes if it is named.
        """

        def change(entry: Entry) -> None:
            self._make_due(entry)
            if entry.message.envelope.hold_until > entry.due:
                entry.why, entry.due = Why.SCHEDULED, entry.message.envelope.hold_until

        fits = _is_parked if _means_dead(wanted) else _is_kept
        return (await self._change(wanted, dry_run, fits, change, Kind.RELEASED)).as_row()

    async def retry_now(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Make entries due now, scheduled ones too, and forget which hosts failed; they are routed again by then.

        A dead letter goes if it is named.
        """

        def change(entry: Entry) -> None:
            entry.hosts_tried = ()
            self._make_due(entry)

        fits = _is_any if _means_dead(wanted) else _is_alive
        tally = await self._change(wanted, dry_run, fits, change, Kind.RELEASED)
        if not dry_run:
            self.awake(tally.queues)
        return tally.as_row()

    async def put_off(self, wanted: Filter, until: float, reason: str) -> dict[str, int]:
        """Have entries that are due wait until a Unix time, maybe infinite; they still expire."""

        def change(entry: Entry) -> None:
            entry.why, entry.due, entry.last = Why.SUSPENDED, until, reason

        now = self._clock()
        tally = await self._change(wanted, False, lambda entry: _is_active(entry) and entry.due <= now, change, None)
        return tally.as_row()

    async def resume(self, wanted: Filter) -> dict[str, int]:
        """Make entries due that were put off for a person, with the lifetime that is left to them."""
        return (await self._change(wanted, False, _is_put_off, self._make_due, None)).as_row()

    async def fail(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Give entries up, with the reports that their senders asked for; dead letters have been."""
        tally = Tally()
        async for entries in self._taken(wanted, dry_run, tally, _is_alive):
            if not dry_run:
                for entry in entries:
                    self.fail_entry(entry, "the message was given up by the postmaster")
        return tally.as_row()

    async def delete(self, wanted: Filter, dry_run: bool) -> dict[str, int]:
        """Delete entries without any report; the history keeps that it was done."""
        tally = Tally()
        async for entries in self._taken(wanted, dry_run, tally):
            if not dry_run:
                await self._write(Change(removed=tuple(entry.key for entry in entries)), entries, Kind.DELETED)
        return tally.as_row()

    def _make_due(self, entry: Entry) -> None:
        now = self._clock()
        entry.hosts_tried = entry.avoids
        entry.why, entry.due = Why.RETRY if entry.attempts else Why.NEW, now
        pace = entry.message.envelope.pace
        entry.expires = max(entry.expires, now + at_pace(self.retry, pace).schedule[0])
        entry.deadline = deadline(self.retry, entry.message.released_at, entry.expires, entry.warned)

    async def _change(
        self,
        wanted: Filter,
        dry_run: bool,
        fits: Callable[[Entry], bool],
        change: Callable[[Entry], None],
        kind: Kind | None,
    ) -> Tally:
        """Change entries and write them."""
        tally = Tally()
        async for entries in self._taken(wanted, dry_run, tally, fits):
            if dry_run:
                continue
            for entry in entries:
                change(entry)
            await self._write(Change(updated=tuple(entries)), entries, kind)
            for entry in entries:
                tally.queues.add(entry.queue)
                if entry.due < NEVER:
                    self._scheduler.note_due(entry)
        return tally

    async def _taken(
        self, wanted: Filter, dry_run: bool, tally: Tally, fits: Callable[[Entry], bool] = _is_any
    ) -> AsyncIterator[list[Entry]]:
        """Give portions of entries, taken out of memory as they are on disk; with `dry_run` only as they are on disk.

        An entry that is in delivery, or was when it was read, is looked at again, for a few seconds.
        """
        until, pause = asyncio.get_running_loop().time() + PATIENCE, LOOK_AGAIN
        with self._scheduler.settles() as settled:
            before: set[Key] | None = None
            while True:
                left: set[Key] = set()
                async for portion in self._portions(wanted, settled):
                    mine = [entry for entry in portion if fits(entry) and (before is None or entry.key in before)]
                    if not dry_run:
                        left.update(entry.key for entry in mine if entry.key in settled or not self._take(entry))
                        mine = [entry for entry in mine if entry.key not in left]
                    for entry in mine:
                        tally.add(entry)
                    if mine:
                        yield mine
                if not left or asyncio.get_running_loop().time() > until:
                    tally.busy = len(left)
                    return
                await asyncio.sleep(pause)
                before, pause = left, min(pause * 1.5, LOOK_SELDOM)
                wanted = msgspec.structs.replace(wanted, ids=tuple({message for message, _ in left}))

    def _take(self, entry: Entry) -> bool:
        """Get an entry out of its ready queue and claim it, so that nobody loads it; False if it is in delivery."""
        if self._scheduler.is_loaded(entry.key, entry.queue):
            return self.withdraw(entry.queue, entry.key)
        return self._scheduler.claim(entry)

    async def _portions(self, wanted: Filter, settled: set[Key]) -> AsyncIterator[list[Entry]]:
        """Read what fits, a portion at a time; `settled` then has the keys of entries that changed meanwhile."""
        after, stored = (0, 0), stored_filter(wanted)
        while True:
            settled.clear()
            portion = await self._spool.select(stored, PORTION, after)
            if not portion:
                return
            after = portion[-1].key
            yield [entry for entry in portion if self.reason_of(entry) == wanted.why] if wanted.why else portion

    async def _write(self, change: Change, entries: Sequence[Entry], kind: Kind | None) -> None:
        """Write a change and its events, and wait until they are on disk; raises OSError when that cannot be.

        The entries are nobody's afterwards.
        """
        events = [] if kind is None else [self._event(entry, kind) for entry in entries]
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        if events:
            self._spool.record(events)
        self._spool.change(change, written.set_result)
        try:
            fault = await written
        finally:
            for entry in entries:
                self._scheduler.forget(entry.key, entry.queue)
        if fault is not None:
            await self._scheduler.refresh()  # what was due and not written is due still
            raise OSError(f"the queue could not be changed: {fault}")
        for event in events:
            self._feed.publish(event)

    def _event(self, entry: Entry, kind: Kind) -> Event:
        return Event(
            time=self._clock(),
            event=kind,
            message=entry.message.id,
            envid=entry.message.envelope.envid,
            sender=entry.message.envelope.reverse_path,
            recipient=entry.recipients[0].address if len(entry.recipients) == 1 else "",
            user=entry.message.user,
        )


def stored_filter(wanted: Filter) -> Filter:
    """Give what the spool can choose by: a reason that only memory knows has to be looked at entry by entry."""
    return msgspec.structs.replace(wanted, why="") if wanted.why in LIVE else wanted
