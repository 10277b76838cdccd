"""Decides which entries are in memory: what is due now, within bounds; the rest stays on disk until its time."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from math import nextafter

from smarthost.mail.entry import Entry, Why
from smarthost.mail.message import format_id
from smarthost.queue.contents import Contents
from smarthost.queue.room import URGENT, Room
from smarthost.queue.waiting import NEVER, Key, Lane, Waiting
from smarthost.spool.store import Accepted, Spool

log = logging.getLogger(__name__)

LOOK = 0.05  # seconds between two looks at the line of queues that wait for room
LINE = 250  # queues in line that one look reads, where memory is full of what does not move
TURNS = 100  # queues that are looked at between two moments for the rest of the program
READ_AGAIN = 1.0  # seconds after a read that failed
PROBE_TIME = 60.0  # seconds; a block that follows so soon on another is the same one, after a probe that failed


class Scheduler:
    """Offers due entries to the promoter and keeps memory bounded, per queue and in all.

    A queue's share of memory is divided among its lanes, each priority of each user, and each lane is read from disk
    by itself: what is urgent, and one message of one user, overtakes a crowd that is on disk, too.

    The caller sets `offer` (takes one due entry) and `overdue` (takes entries whose deadline has passed); `left`, if it
    is set, is told the key of each entry that leaves memory or what waits there.
    """

    def __init__(self, spool: Spool, contents: Contents, clock: Callable[[], float]) -> None:
        """Join the parts; `start` reads what is on disk."""
        self._spool, self._clock = spool, clock
        self.contents = contents
        self.queues: dict[str, Waiting] = {}
        self._room = Room()
        self._line: deque[Waiting] = deque()  # of queues for which there was no room
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

    @property
    def total(self) -> int:
        """Count the entries in memory."""
        return self._room.total

    async def start(self) -> None:
        """Learn of every queue on disk and begin to load what is due."""
        await self.refresh()
        self._keep(self._run(), "scheduler")
        self._keep(self._watch_deadlines(), "deadlines")

    async def refresh(self) -> None:
        """Read the heads of all queues again, as after a start, a reload or a change by a person."""
        for head in await self._spool.heads():
            queue = self._queue(head.queue)
            self._note(queue, queue.lane(head.lane), head.due)

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
            lane = queue.lane(entry.lane)
            is_later = entry.due > now or lane.disk_due <= now or queue.blocked_until > now
            if is_later or self._room.of(queue, lane, now, is_new=True) <= 0:
                if entry.due < NEVER:
                    self._note(queue, lane, entry.due)
                continue
            self.contents.put(accepted.message.id, accepted.content)
            self._enter(queue, lane, entry)
            self.offer(entry)

    def settled(self, entry: Entry, queue_name: str) -> None:
        """Note that an entry's settle is on disk: it leaves memory, and its new due time is remembered."""
        if self.left is not None:
            self.left(entry.key)
        queue = self._queue(queue_name)
        lane = self._leave(queue, entry.key)
        self._was_written(entry.key)
        # A message that waits leaves its content on disk; another entry of it, if it is still here, reads it again.
        self.contents.drop(entry.message.id)
        if entry.recipients and entry.due < NEVER:
            self.note_due(entry)
        if lane is not None and lane.disk_due < NEVER and lane.count in (0, lane.half):
            self._note(queue, lane, lane.disk_due)

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
            if self._leave(queue, entry.key) is not None:
                self.contents.drop(entry.message.id)
            self._note(queue, queue.lane(entry.lane), entry.due)

    def block(self, name: str, until: float, reason: str, why: Why = Why.SITE_THROTTLED) -> None:
        """Read nothing of a queue before a time."""
        queue, now = self._queue(name), self._clock()
        if now > queue.blocked_until + PROBE_TIME or why is not queue.blocked_why:
            queue.blocked_since = now
        queue.blocked_until, queue.blocked_by, queue.blocked_why = until, reason, why
        self._plan(queue)

    def unblock(self, name: str) -> None:
        """Let a queue be read again at once."""
        queue = self._queue(name)
        if queue.blocked_until:
            queue.blocked_until, queue.blocked_by = 0.0, ""
            self._plan(queue)

    def forget(self, key: Key, queue_name: str) -> None:
        """Drop one entry from memory that a person has changed or deleted on disk."""
        if self.left is not None:
            self.left(key)
        self._was_written(key)
        queue = self._queue(queue_name)
        lane = self._leave(queue, key)
        if lane is not None:
            self.contents.drop(key[0])
            if lane.disk_due < NEVER and not lane.count:
                self._plan(queue)

    def claim(self, entry: Entry) -> bool:
        """Take an entry into memory though it is not due, to settle it; False when it is in memory already."""
        queue = self._queue(entry.queue)
        if entry.key in queue.loaded:
            return False
        self._enter(queue, queue.lane(entry.lane), entry)
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
            if queue.is_forgettable(now):
                del self.queues[name]

    def note_due(self, entry: Entry) -> None:
        """Remember that an entry is on disk, and when it is due."""
        queue = self._queue(entry.queue)
        self._note(queue, queue.lane(entry.lane), entry.due)

    def _queue(self, name: str) -> Waiting:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Waiting(name)
        return queue

    def _enter(self, queue: Waiting, lane: Lane, entry: Entry) -> None:
        queue.loaded[entry.key] = entry
        self._room.enter(lane, entry.key)

    def _leave(self, queue: Waiting, key: Key) -> Lane | None:
        """Take an entry out of memory; gives its lane, None when it was not there."""
        entry = queue.loaded.pop(key, None)
        if entry is None:
            return None
        lane = queue.lanes[entry.lane]
        lane.count -= 1
        self._room.leave(key)
        return lane

    def _note(self, queue: Waiting, lane: Lane, due: float) -> None:
        lane.disk_due = min(lane.disk_due, due)
        self._plan(queue)

    def _plan(self, queue: Waiting) -> None:
        """Put a queue down for its next turn."""
        turn = queue.next_turn
        if turn < NEVER and turn != queue.turn:
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
            now, looks = self._clock(), 0
            while self._turns and self._turns[0][0] <= now:
                looks += 1
                if looks % TURNS == 0:
                    await asyncio.sleep(0)
                turn, name = heappop(self._turns)
                queue = self.queues.get(name)
                if queue is None or queue.turn != turn:
                    continue
                queue.turn = NEVER
                if not queue.pulling:
                    await self._pull(queue, is_turn=not self._line)
            if await self._serve_line():
                continue
            self._changed.clear()
            wait = min(self._turns[0][0] - self._clock(), 60.0) if self._turns else 60.0
            if self._line:
                wait = min(wait, LOOK)
            if wait <= 0:
                await asyncio.sleep(0)
            else:
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _pull(self, queue: Waiting, *, is_turn: bool) -> None:
        """Load what is due of one queue, lane by lane, the most urgent first, as far as there is room.

        While others wait in line it is the turn of those, but for what is urgent.
        """
        now = self._clock()
        if queue.next_turn > now:
            self._plan(queue)
            return
        rooms = {}
        if queue.blocked_until <= now:
            is_turn = is_turn or self._room.is_stuck(now)
            lanes = sorted(lane.name for lane in queue.lanes.values() if lane.disk_due <= now)
            due = [name for name in lanes if is_turn or name < URGENT]
            rooms = {name: room for name in due if (room := self._room.of(queue, queue.lanes[name], now)) > 0}
        found = await self._pull_lanes(queue, rooms, now) if rooms else 0
        if found is None:
            self._come_back(queue, now + READ_AGAIN)
        elif queue.next_turn > now:
            self._plan(queue)
        elif not queue.is_starving(now):
            pass  # it goes on when what is in memory has left: `settled` says so
        elif is_turn and not self._room.is_full(now):
            self._come_back(queue, now + (0.0 if found else 0.1))
        elif not queue.is_in_line:
            queue.is_in_line = True
            self._line.append(queue)

    async def _serve_line(self) -> bool:
        """Read queues that waited for room as far as there is some now, and a few of them even where nothing moves.

        Gives whether there are more to be read at once.
        """
        for _ in range(LINE):
            now = self._clock()
            if not self._line or (self._room.is_full(now) and not self._room.is_stuck(now)):
                return False
            queue = self._line.popleft()
            queue.is_in_line = False
            if self.queues.get(queue.name) is queue and not queue.pulling:
                await self._pull(queue, is_turn=True)
        return not self._room.is_full(self._clock())

    async def _pull_lanes(self, queue: Waiting, rooms: dict[str, int], now: float) -> int | None:
        """Load of each lane as many as there is room for, in their order; gives how many came, None after a fault."""
        # The spool's "before" leaves the moment itself out; what is due at this very moment is due.
        until = nextafter(now, NEVER)
        limits = {}
        for name, room in rooms.items():
            lane = queue.lanes[name]
            limits[name] = limit = room + lane.count
            lane.disk_due = NEVER
            # To read early keeps sessions busy, but reads again what is in memory; in a crowd others are busy.
            lane.half = 0 if self._room.is_crowded else limit // 2
        queue.pulling = True
        try:
            with self.settles() as settled:
                pulled = await self._spool.pull(queue.name, tuple(limits.items()), until)
        except Exception:
            # One read that fails must not be the last one: nobody else looks at what is on disk.
            log.exception("queue %s could not be read", queue.name)
            for name in rooms:
                queue.lanes[name].disk_due = now
            return None
        finally:
            queue.pulling = False
        found = 0
        for (name, limit), (entries, later) in zip(limits.items(), pulled, strict=True):
            lane = queue.lanes[name]
            # A row that was settled while it was read is not what it was: its recipients have been sent to.
            fresh = [entry for entry in entries if entry.key not in queue.loaded and entry.key not in settled]
            found += self._load(queue, lane, fresh, rooms[name])
            if len(entries) >= limit:
                lane.disk_due = min(lane.disk_due, entries[-1].due)
            elif later is not None:
                lane.disk_due = min(lane.disk_due, later)
        return found

    def _load(self, queue: Waiting, lane: Lane, entries: list[Entry], room: int) -> int:
        """Offer entries of one lane as far as there is room; gives how many went."""
        for number, entry in enumerate(entries):
            if number == room or queue.blocked_until > self._clock():
                lane.disk_due = min(lane.disk_due, entry.due)
                return number
            self._enter(queue, lane, entry)
            try:
                self.reoffer(entry)
            except Exception:
                # A fault in this program: this one stays as it is, and the others go on.
                log.exception("message %s could not be offered", format_id(entry.message.id))
        return len(entries)

    def _come_back(self, queue: Waiting, when: float) -> None:
        """Have a queue looked at again at a time, though it is due already."""
        queue.turn = when
        heappush(self._turns, (when, queue.name))
        self._changed.set()

    async def _watch_deadlines(self) -> None:
        """Hand on entries whose expiry or delay warning has come, every few seconds, in bounded portions."""
        while not self.stopping:
            wait = READ_AGAIN
            try:
                with self.settles() as settled:
                    entries = await self._spool.deadlines(self._clock(), 500)
                if entries:
                    self.overdue([entry for entry in entries if entry.key not in settled])
                wait = 1.0 if len(entries) == 500 else 5.0
            except Exception:
                log.exception("the entries whose time is over could not be read")
            await asyncio.sleep(wait)
