"""MemorySpool: the store's promises without a disk, for simulation and tests."""

import asyncio
import copy
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import BinaryIO

from smarthost.mail.entry import Entry
from smarthost.mail.event import Event
from smarthost.mail.message import Message, format_id
from smarthost.mail.suppression import Key as SuppressionKey
from smarthost.mail.suppression import Suppression
from smarthost.policy.ledger import LimitState
from smarthost.policy.suppression_marks import mark_of
from smarthost.spool.event_log import MemoryEventLog
from smarthost.spool.match import Matcher
from smarthost.spool.memory_records import MemoryRecords
from smarthost.spool.stats import Stats
from smarthost.spool.store import (
    Accepted,
    Change,
    Content,
    Done,
    Fault,
    Filter,
    Group,
    Pulled,
    QueueHead,
    Settlement,
    Space,
)

Key = tuple[int, int]
Timed = tuple[float, int, int]  # a time with an entry's key, as the indexes sort them


class MemoryFile:
    """A content file while it is written; see `store.ContentFile`."""

    def __init__(self, files: dict[str, bytes], message: int) -> None:
        """Start empty."""
        self.name = format_id(message)
        self.size = 0
        self._files = files
        self._blocks: list[bytes] = []

    def write(self, block: bytes) -> None:
        """Append octets."""
        self._blocks.append(block)
        self.size += len(block)

    def seal(self) -> None:
        """Keep the file."""
        self._files[self.name] = b"".join(self._blocks)

    def reopen(self) -> BinaryIO:
        """Give what was written for reading."""
        return BytesIO(b"".join(self._blocks))

    def discard(self) -> None:
        """Delete the file."""
        self._files.pop(self.name, None)


class MemorySuppressions:
    """A `store.SuppressionStore` without a disk; `write` is how the spool writes."""

    def __init__(
        self, rows: dict[SuppressionKey, Suppression], write: Callable[[Callable[[], None], Done | None], None]
    ) -> None:
        """Keep rows in a dictionary of the spool's."""
        self._rows, self._write = rows, write

    def write(
        self, kept: Sequence[Suppression], removed: Sequence[SuppressionKey] = (), done: Done | None = None
    ) -> None:
        """Write rows as the spool writes settles."""
        rows, gone = tuple(kept), tuple(removed)

        def act() -> None:
            for key in gone:
                self._rows.pop(key, None)
            self._rows.update((row.key, row) for row in rows)

        self._write(act, done)

    async def page(self, after: SuppressionKey, limit: int) -> list[Suppression]:
        """Give rows behind a key."""
        return [self._rows[key] for key in sorted(self._rows) if key > after][:limit]

    async def marks(self, after: SuppressionKey, limit: int) -> list[tuple[SuppressionKey, int]]:
        """Give keys and marks behind a key."""
        return [(row.key, mark_of(row)) for row in await self.page(after, limit)]

    async def find(self, keys: Sequence[SuppressionKey]) -> dict[SuppressionKey, Suppression]:
        """Give those rows that there are."""
        return {key: self._rows[key] for key in keys if key in self._rows}

    async def expired(self, before: float, limit: int) -> list[Suppression]:
        """Give rows that are over."""
        rows = sorted(self._rows.values(), key=lambda row: row.expires)
        return [row for row in rows if row.expires <= before][:limit]


class MemorySpool:
    """A `store.Spool` for one thread, that of the loop; `Done` is called with the loop's next turn.

    While `full` is set, accepts are refused and settles wait, as on a full disk.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """Start empty."""
        self.last_id = 0
        self.gather = 0.0
        self.stats = Stats()  # stays empty: nothing is gathered here
        self._loop = loop
        self._clock = clock
        self._full = False
        self._stuck: list[tuple[Callable[[], None], Done | None]] = []
        self._messages: dict[int, tuple[Message, Content]] = {}
        self._numbers: dict[int, set[int]] = {}
        self._entries: dict[Key, Entry] = {}
        self._due: dict[tuple[str, str], list[Timed]] = {}  # by queue and lane
        self._deadlines: list[Timed] = []
        self._events: dict[int, list[Event]] = {}
        self._files: dict[str, bytes] = {}
        self.suppressions = MemorySuppressions({}, self._write)
        self.records = MemoryRecords(self._write)
        self.event_log = MemoryEventLog()
        self._limits: dict[str, LimitState] = {}

    @property
    def full(self) -> bool:
        """Whether the disk that is not there is full."""
        return self._full

    @full.setter
    def full(self, full: bool) -> None:
        self._full = full
        if not full:
            stuck, self._stuck = self._stuck, []
            for act, done in stuck:
                self._write(act, done)

    @property
    def settles_stuck(self) -> bool:
        """Whether settles wait for space."""
        return bool(self._stuck)

    def new_file(self, message: int) -> MemoryFile:
        """Start the content file of a message id."""
        return MemoryFile(self._files, message)

    def free_space(self) -> Space:
        """Say that there is much space, or none."""
        return Space(0.0, 0, 1.0) if self._full else Space(1.0, 1 << 40, 1.0)

    async def close(self) -> None:
        """Let the answers that are under way arrive."""
        await asyncio.sleep(0)

    def accept(self, accepted: Accepted, done: Done) -> None:
        """Keep a message."""
        if self._full:
            self._loop.call_soon_threadsafe(done, Fault.DISK_FULL)
            return
        self._keep(accepted.message, accepted.content, map(copy.copy, accepted.entries))
        self._tell(accepted.events)
        self.records.keep(accepted.records)
        self._loop.call_soon_threadsafe(done, None)

    def accept_group(self, group: Group, done: Done) -> None:
        """Keep a group."""
        for accepted, told in group.accepted:
            self.accept(accepted, told)
        if not self._full:
            self._tell(group.events)
            self.records.keep(group.records, group.removed)
        self._loop.call_soon_threadsafe(done, Fault.DISK_FULL if self._full else None)

    def settle(self, settlement: Settlement, done: Done) -> None:
        """Keep an attempt's result."""
        entry = copy.copy(settlement.entry)
        dead = [copy.copy(each) for each in settlement.dead]
        reports = [(one.message, one.content, [copy.copy(each) for each in one.entries]) for one in settlement.reports]

        def act() -> None:
            for each in dead:
                if each.message.id in self._messages:
                    self._add(each)
            self._update(entry)
            self._tell(settlement.events)
            for report in reports:
                self._keep(*report)
            for accepted in settlement.reports:
                self._tell(accepted.events)

        self._write(act, done)

    def record(self, events: Sequence[Event]) -> None:
        """Add events to the history."""
        kept = tuple(events)
        self._write(lambda: self._tell(kept), None)

    def change(self, change: Change, done: Done) -> None:
        """Do what a person asked to entries."""
        added = [copy.copy(entry) for entry in change.added]
        updated = [copy.copy(entry) for entry in change.updated]

        def act() -> None:
            for entry in added:
                if entry.message.id in self._messages:
                    self._add(entry)
            for entry in updated:
                self._update(entry)
            for key in change.removed:
                self._remove(key)

        self._write(act, done)

    def delete(self, keys: Sequence[Key], done: Done) -> None:
        """Delete entries, and messages that lose their last one."""
        self.change(Change(removed=tuple(keys)), done)

    def keep_limits(self, states: Sequence[LimitState], done: Done) -> None:
        """Keep what is remembered of limits."""
        kept = {state.name: state for state in states}

        def act() -> None:
            self._limits |= kept
            self._limits = {name: state for name, state in self._limits.items() if state.state}

        self._write(act, done)

    async def limit_states(self) -> list[LimitState]:
        """Give all that is remembered of limits, by name."""
        return [self._limits[name] for name in sorted(self._limits)]

    def _write(self, act: Callable[[], None], done: Done | None) -> None:
        if self._full:
            self._stuck.append((act, done))
            return
        act()
        if done is not None:
            self._loop.call_soon_threadsafe(done, None)

    def _keep(self, message: Message, content: Content, entries: Iterable[Entry]) -> None:
        if content.file and content.file not in self._files:
            raise ValueError(f"content file {content.file!r} of message {format_id(message.id)} was not sealed")
        self._messages[message.id] = message, content
        self.last_id = max(self.last_id, message.id)
        for entry in entries:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        if entry.key in self._entries:
            raise ValueError(f"entry {entry.number} of message {format_id(entry.message.id)} is there already")
        self._entries[entry.key] = entry
        self._numbers.setdefault(entry.message.id, set()).add(entry.number)
        for times, when in self._indexes(entry):
            insort(times, (when, *entry.key))

    def _take_out(self, key: Key) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        for times, when in self._indexes(entry):
            del times[bisect_left(times, (when, *key))]
        if not self._due.get((entry.queue, entry.lane), True):
            del self._due[entry.queue, entry.lane]
        return True

    def _indexes(self, entry: Entry) -> Iterable[tuple[list[Timed], float]]:
        if entry.due != math.inf:
            yield self._due.setdefault((entry.queue, entry.lane), []), entry.due
        if entry.deadline != math.inf:
            yield self._deadlines, entry.deadline

    def _update(self, entry: Entry) -> None:
        if not entry.recipients:
            self._remove(entry.key)
        elif self._take_out(entry.key):
            self._add(entry)

    def _remove(self, key: Key) -> None:
        if not self._take_out(key):
            return
        numbers = self._numbers[key[0]]
        numbers.discard(key[1])
        if not numbers:
            del self._numbers[key[0]]
            _, content = self._messages.pop(key[0])
            self._files.pop(content.file, None)

    def _tell(self, events: Sequence[Event]) -> None:
        self.event_log.add(events)
        for event in events:
            self._events.setdefault(event.message, []).append(event)

    async def heads(self) -> list[QueueHead]:
        """Give every lane of every queue that has an entry with a due time, with the earliest one."""
        return [QueueHead(queue, lane, times[0][0]) for (queue, lane), times in sorted(self._due.items())]

    async def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Give at most `limit` entries of a queue's lane that are due before a time."""
        return self._before(self._due.get((queue, lane), []), before, limit)

    async def next_due(self, queue: str, lane: str, after: float) -> float | None:
        """Give the earliest due time of a queue's lane that is at or after a time."""
        times = self._due.get((queue, lane), [])
        place = bisect_left(times, (after,))
        return times[place][0] if place < len(times) else None

    async def pull(self, queue: str, lanes: Sequence[tuple[str, int]], before: float) -> list[Pulled]:
        """Give for each lane what is due and, where that is all of it, when more will be."""
        pulled: list[Pulled] = []
        for lane, limit in lanes:
            entries = await self.due(queue, lane, before, limit)
            pulled.append((entries, None if len(entries) >= limit else await self.next_due(queue, lane, before)))
        return pulled

    async def deadlines(self, before: float, limit: int) -> list[Entry]:
        """Give at most `limit` entries whose deadline is before a time."""
        return self._before(self._deadlines, before, limit)

    def _before(self, times: list[Timed], before: float, limit: int) -> list[Entry]:
        end = min(limit, bisect_left(times, (before,)))
        return [copy.copy(self._entries[message, number]) for _, message, number in times[:end]]

    async def contents(self, ids: Sequence[int]) -> dict[int, Content]:
        """Give the contents of messages, without those that are gone."""
        return {message: self._messages[message][1] for message in ids if message in self._messages}

    async def read_file(self, file: str, offset: int, count: int) -> bytes:
        """Read octets of a content file; raises FileNotFoundError."""
        if file not in self._files:
            raise FileNotFoundError(file)
        return self._files[file][offset : offset + count]

    def open_file(self, file: str) -> BinaryIO:
        """Open a content file; raises FileNotFoundError."""
        if file not in self._files:
            raise FileNotFoundError(file)
        return BytesIO(self._files[file])

    async def verify_file(self, message: int) -> bool:
        """Say whether a content file is whole."""
        kept = self._messages.get(message)
        return kept is None or not kept[1].file or kept[1].file in self._files

    async def select(self, wanted: Filter, limit: int, after: Key = (0, 0)) -> list[Entry]:
        """Give entries that match, by arrival, from behind a key on."""
        matcher = Matcher(wanted, self._clock())
        keys = (key for key in sorted(self._entries) if key > after and matcher.matches(self._entries[key]))
        return [copy.copy(self._entries[key]) for key, _ in zip(keys, range(limit), strict=False)]

    async def entries_of(self, message: int) -> list[Entry]:
        """Give the entries of a message that are still in the queue."""
        return [copy.copy(self._entries[message, number]) for number in sorted(self._numbers.get(message, ()))]

    async def events_of(self, message: int) -> list[Event]:
        """Give the history of a message, oldest first."""
        return list(self._events.get(message, ()))

    async def count(self) -> dict[str, int]:
        """Count entries by state."""
        total, active = len(self._entries), sum(map(len, self._due.values()))
        return {"active": active, "parked": total - active, "total": total}

    async def oldest(self, *, parked: bool = False) -> float | None:
        """Give the arrival (Unix seconds) of the oldest message with an active entry, or a parked one."""
        found = [key for key, entry in self._entries.items() if (entry.due == math.inf) is parked]
        return self._entries[min(found)].message.arrival.at if found else None

    async def forget_history(self, before: float) -> int:
        """Delete events of messages that left the queue before a time, and of rejections; gives how many."""
        self.event_log.forget(before)
        forgotten = 0
        for message, events in list(self._events.items()):
            if message and (message in self._messages or events[-1].time >= before):
                continue
            kept = [] if message else [event for event in events if event.time >= before]
            forgotten += len(events) - len(kept)
            if kept:
                self._events[message] = kept
            else:
                del self._events[message]
        return forgotten
