"""Decides which entries are in memory: what is due now, within bounds; the rest stays on disk until its time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from math import nextafter

from smarthost.mail.entry import Entry, Why
from smarthost.queue.contents import Contents
from smarthost.spool.store import Accepted, Spool

log = logging.getLogger(__name__)

QUEUE_BOUND = 1024  # entries of one queue in memory; KumoMTA's max_ready
TOTAL_BOUND = 20_000  # entries in memory in all; Postfix's qmgr_message_active_limit
CROWDED_BOUND = 32  # entries of one queue in memory while the total is over its half
PROBE_TIME = 60.0  # seconds; a block that follows so soon on another is the same one, after a probe that failed
_NEVER = float("inf")
Key = tuple[int, int]


class Waiting:
    """What the scheduler knows of one queue. `loaded` are its entries in memory, until their settle is on disk.

    `disk_due` is the earliest due time among entries that are on disk only, infinite when there is none;
    `blocked_until` is a Unix time before which nothing is read from disk; `blocked_why`, `blocked_by` and
    `blocked_since` say why and since when, for people.
    """

    __slots__ = (
        "blocked_by",
        "blocked_since",
        "blocked_until",
        "blocked_why",
        "disk_due",
        "loaded",
        "name",
        "pulling",
        "turn",
    )

    def __init__(self, name: str) -> None:
        """Begin with nothing known."""
        self.name = name
        self.loaded: dict[Key, Entry] = {}
        self.disk_due = _NEVER
        self.blocked_until = 0.0
        self.blocked_why = Why.SITE_THROTTLED
        self.blocked_by = ""
        self.blocked_since = 0.0
        self.pulling = False
        self.turn = _NEVER

    @property
    def next_turn(self) -> float:
        """When this queue should be looked at: its earliest due time, but not while it is blocked."""
        return max(self.disk_due, self.blocked_until) if self.disk_due < _NEVER else _NEVER


class Scheduler:
    """Offers due entries to the promoter and keeps memory bounded, per queue and in all.

    The caller sets `offer` (takes one due entry) and `overdue` (takes entries whose deadline has passed); `left`, if it
    is set, is told the key of each entry that leaves memory or what waits there.
    """

    def __init__(self, spool: Spool, contents: Contents, clock: Callable[[], float]) -> None:
        """Join the parts; `start` reads what is on disk."""
        self._spool, self._clock = spool, clock
        self.contents = contents
        self.queues: dict[str, Waiting] = {}
        self.total = 0
        self.offer: Callable[[Entry], None] = lambda entry: None
        self.reoffer: Callable[[Entry], None] = lambda entry: None
        self.overdue: Callable[[list[Entry]], None] = lambda entries: None
        self.left: Callable[[Key], None] | None = None
        self._turns: list[tuple[float, str]] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: dict[int, set[Key]] = {}  # by their identity, since sets are equal too easily
        self._unwritten: dict[Key, int] = {}
        self._leaving: dict[Key, Entry] = {}
        self.stopping = False

    async def start(self) -> None:
        """Learn of every queue on disk and begin to load what is due."""
        await self.refresh()
        self._keep(self._run(), "scheduler")
        self._keep(self._watch_deadlines(), "deadlines")

    async def refresh(self) -> None:
        """Read the heads of all queues again, as after a start, a reload or a change by a person."""
        for head in await self._spool.heads():
            self._note(self._queue(head.queue), head.due)

    async def stop(self) -> None:
        """Offer nothing any more."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def admit(self, accepted: Accepted) -> None:
        """Take a message that has just been committed: into memory if it is due and there is room."""
        now = self._clock()
        for entry in accepted.entries:
            queue = self._queue(entry.queue)
            if entry.key in queue.loaded:
                continue  # its row was read before this commit was told of
            if entry.due > now or queue.disk_due <= now or queue.blocked_until > now or not self._has_room(queue):
                if entry.due < _NEVER:
                    self._note(queue, entry.due)
                continue
            self.contents.put(accepted.message.id, accepted.content)
            queue.loaded[entry.key] = entry
            self.total += 1
            self.offer(entry)

    def settled(self, entry: Entry, queue_name: str) -> None:
        """Note that an entry's settle is on disk: it leaves memory, and its new due time is remembered."""
        if self.left is not None:
            self.left(entry.key)
        queue = self._queue(queue_name)
        if queue.loaded.pop(entry.key, None) is not None:
            self.total -= 1
        self._was_written(entry.key)
        # A message that waits leaves its content on disk; another entry of it, if it is still here, reads it again.
        self.contents.drop(entry.message.id)
        if entry.recipients and entry.due < _NEVER:
            self._note(self._queue(entry.queue), entry.due)
        if queue.disk_due < _NEVER and len(queue.loaded) == QUEUE_BOUND // 2:
            self._note(queue, queue.disk_due)

    def partly_settled(self, entry: Entry) -> None:
        """Note that a part of an entry's attempt is on its way to disk: until then its row is not what it is."""
        self._unwritten[entry.key] = self._unwritten.get(entry.key, 0) + 1

    def partly_written(self, entry: Entry) -> None:
        """Note that such a part is on disk; an entry that was to leave memory meanwhile leaves now."""
        key = entry.key
        self._was_written(key)
        left = self._unwritten[key] = self._unwritten[key] - 1
        if not left:
            del self._unwritten[key]
            if key in self._leaving:
                self.unload((self._leaving.pop(key),))

    def is_unwritten(self, key: Key) -> bool:
        """Whether a part of an entry's attempt is not on disk yet, so that nobody else may write its row."""
        return key in self._unwritten

    def _was_written(self, key: Key) -> None:
        for seen in self._watchers.values():
            seen.add(key)

    def unload(self, entries: Iterable[Entry]) -> None:
        """Put entries that were not tried back on disk only; nothing is written, since nothing changed."""
        for entry in entries:
            if self.left is not None:
                self.left(entry.key)
            if entry.key in self._unwritten:
                self._leaving[entry.key] = entry
                continue
            queue = self._queue(entry.queue)
            if queue.loaded.pop(entry.key, None) is not None:
                self.total -= 1
                self.contents.drop(entry.message.id)
            self._note(queue, entry.due)

    def block(self, name: str, until: float, reason: str, why: Why = Why.SITE_THROTTLED) -> None:
        """Read nothing of a queue before a time."""
        queue, now = self._queue(name), self._clock()
        if now > queue.blocked_until + PROBE_TIME or why is not queue.blocked_why:
            queue.blocked_since = now
        queue.blocked_until, queue.blocked_by, queue.blocked_why = until, reason, why
        self._note(queue, queue.disk_due)

    def unblock(self, name: str) -> None:
        """Let a queue be read again at once."""
        queue = self._queue(name)
        if queue.blocked_until:
            queue.blocked_until, queue.blocked_by = 0.0, ""
            self._note(queue, queue.disk_due)

    def forget(self, key: Key, queue_name: str) -> None:
        """Drop one entry from memory that a person has changed or deleted on disk."""
        if self.left is not None:
            self.left(key)
        self._was_written(key)
        queue = self._queue(queue_name)
        if queue.loaded.pop(key, None) is not None:
            self.total -= 1

    def claim(self, entry: Entry) -> bool:
        """Take an entry into memory though it is not due, to settle it; False when it is in memory already."""
        queue = self._queue(entry.queue)
        if entry.key in queue.loaded:
            return False
        queue.loaded[entry.key] = entry
        self.total += 1
        return True

    def is_loaded(self, key: Key, queue_name: str) -> bool:
        """Whether an entry is in memory: ready, or in delivery."""
        queue = self.queues.get(queue_name)
        return queue is not None and key in queue.loaded

    @contextmanager
    def settles(self) -> Iterator[set[Key]]:
        """Give a set that gets the key of each entry that is settled or changed meanwhile: its row is another one."""
        seen: set[Key] = set()
        self._watchers[id(seen)] = seen
        try:
            yield seen
        finally:
            del self._watchers[id(seen)]

    def tidy(self) -> None:
        """Forget queues of which nothing is left, so that memory does not grow with the destinations ever seen."""
        now = self._clock()
        for name, queue in tuple(self.queues.items()):
            if not queue.loaded and queue.disk_due == _NEVER and queue.blocked_until <= now and not queue.pulling:
                del self.queues[name]

    def note_due(self, queue_name: str, due: float) -> None:
        """Remember that a queue has an entry on disk that is due at a time."""
        self._note(self._queue(queue_name), due)

    def _queue(self, name: str) -> Waiting:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Waiting(name)
        return queue

    def _has_room(self, queue: Waiting) -> bool:
        bound = CROWDED_BOUND if self.total > TOTAL_BOUND // 2 else QUEUE_BOUND
        return len(queue.loaded) < bound and self.total < TOTAL_BOUND

    def _note(self, queue: Waiting, due: float) -> None:
        queue.disk_due = min(queue.disk_due, due)
        turn = queue.next_turn
        if turn < _NEVER and turn != queue.turn:
            queue.turn = turn
            heappush(self._turns, (turn, queue.name))
            if self._turns[0][0] == turn:
                self._changed.set()

    def _keep(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def _run(self) -> None:
        """Look at each queue when its turn comes."""
        while not self.stopping:
            now = self._clock()
            while self._turns and self._turns[0][0] <= now:
                turn, name = heappop(self._turns)
                queue = self.queues.get(name)
                if queue is None or queue.turn != turn:
                    continue
                queue.turn = _NEVER
                if not queue.pulling:
                    await self._pull(queue)
            self._changed.clear()
            wait = min(self._turns[0][0] - self._clock(), 60.0) if self._turns else 60.0
            if wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _pull(self, queue: Waiting) -> None:
        """Load what is due of one queue, as far as there is room."""
        now = self._clock()
        if queue.next_turn > now:
            self._note(queue, queue.disk_due)
            return
        if not self._has_room(queue):
            self._come_back(queue, now + 0.1)
            return
        bound = CROWDED_BOUND if self.total > TOTAL_BOUND // 2 else QUEUE_BOUND
        queue.pulling = True
        queue.disk_due = _NEVER
        limit = bound + len(queue.loaded)
        try:
            # The spool's "before" leaves the moment itself out; what is due at this very moment is due.
            until = nextafter(now, _NEVER)
            with self.settles() as settled:
                entries = await self._spool.due(queue.name, until, limit)
                later = await self._spool.next_due(queue.name, until) if len(entries) < limit else None
        except BaseException:
            queue.disk_due = now
            self._come_back(queue, now + 1.0)
            raise
        finally:
            queue.pulling = False
        # A row that was settled while it was read is not what it was: its recipients have been sent to.
        fresh = [entry for entry in entries if entry.key not in queue.loaded and entry.key not in settled][:bound]
        for entry in fresh:
            if not self._has_room(queue) or queue.blocked_until > now:
                queue.disk_due = min(queue.disk_due, entry.due)
                break
            queue.loaded[entry.key] = entry
            self.total += 1
            self.reoffer(entry)
        if len(entries) >= limit:
            queue.disk_due = min(queue.disk_due, entries[-1].due)
            self._come_back(queue, now + (0.0 if fresh and self._has_room(queue) else 0.1))
        else:
            self._note(queue, queue.disk_due if later is None else later)

    def _come_back(self, queue: Waiting, when: float) -> None:
        """Have a queue looked at again at a time, though it is due already."""
        queue.turn = when
        heappush(self._turns, (when, queue.name))
        self._changed.set()

    async def _watch_deadlines(self) -> None:
        """Hand on entries whose expiry or delay warning has come, every few seconds, in bounded portions."""
        while not self.stopping:
            with self.settles() as settled:
                entries = await self._spool.deadlines(self._clock(), 500)
            if entries:
                self.overdue([entry for entry in entries if entry.key not in settled])
            await asyncio.sleep(1.0 if len(entries) == 500 else 5.0)
