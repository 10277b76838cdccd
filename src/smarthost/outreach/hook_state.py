"""What is known of one webhook's progress, in memory and as the records that outlive the relay."""

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Sequence

import msgspec

from smarthost.crypto.sealing import SealBroken, Sealer
from smarthost.mail.record import Record, RecordKey
from smarthost.policy.webhook import DeadEvent, Webhook
from smarthost.spool.store import Done, LoggedEvent, RecordStore

WEBHOOK, STATE, LINE, DEAD = "webhook", "webhook-state", "webhook-line", "webhook-dead"
DEAD_KEPT = 30 * 86400.0  # seconds for which an event that nobody took can be looked at and replayed
_PAGE = 500


class Line(msgspec.Struct):
    """Events of one message that wait for the first of them, by their cursors, after it was not taken.

    `key` is the message's id, or the negative cursor of an event that waits alone; `body` is what is sent of an event
    that was dead, since the history may have forgotten it.
    """

    key: int
    cursors: list[int]
    attempts: int = 0
    due: float = 0.0
    error: str = ""
    body: bytes = b""


class _Position(msgspec.Struct, frozen=True):
    position: int


UNREADABLE = "its secret cannot be read with this relay's key"


def record_of(hook: Webhook, sealer: Sealer) -> Record:
    """Write a webhook as its record, with its secrets sealed."""
    sealed = {"secret": _seal(hook.secret, hook, sealer), "former": _seal(hook.former, hook, sealer)}
    return Record(WEBHOOK, hook.tenant, hook.id, msgspec.json.encode(msgspec.structs.replace(hook, **sealed)))


def webhook_of(record: Record, sealer: Sealer) -> Webhook:
    """Read a webhook from its record; one whose secrets cannot be read is not active."""
    hook = msgspec.json.decode(record.data, type=Webhook)
    try:
        opened = {"secret": _open(hook.secret, hook, sealer), "former": _open(hook.former, hook, sealer)}
    except SealBroken:
        return msgspec.structs.replace(hook, secret="", former="", active=False, disabled=UNREADABLE)
    return msgspec.structs.replace(hook, **opened)


def _seal(secret: str, hook: Webhook, sealer: Sealer) -> str:
    return b64encode(sealer.seal(secret, f"{hook.tenant}/{hook.id}")).decode() if secret else ""


def _open(sealed: str, hook: Webhook, sealer: Sealer) -> str:
    return sealer.open(b64decode(sealed), f"{hook.tenant}/{hook.id}") if sealed else ""


def state_record(hook: Webhook, position: int) -> Record:
    """Write up to where a webhook's events are sent or stand in lines."""
    return Record(STATE, hook.tenant, hook.id, msgspec.json.encode(_Position(position)))


def line_record(hook: Webhook, line: Line) -> Record:
    """Write a line."""
    return Record(LINE, hook.tenant, f"{hook.id}.{line.key}", msgspec.msgpack.encode(line), due=line.due)


def dead_record(hook: Webhook, dead: DeadEvent) -> Record:
    """Write an event that is not sent any more."""
    data = msgspec.msgpack.encode(dead)
    return Record(DEAD, hook.tenant, dead_id(hook, dead.cursor), data, expires=dead.at + DEAD_KEPT)


def dead_id(hook: Webhook, cursor: int) -> str:
    """Give the id of a dead event's record; they sort by cursor."""
    return f"{hook.id}.{cursor:020d}"


def dead_of(record: Record) -> DeadEvent:
    """Read an event that is not sent any more."""
    return msgspec.msgpack.decode(record.data, type=DeadEvent)


async def records_of(records: RecordStore, hook: Webhook, kind: str) -> list[Record]:
    """Give all records of a kind that belong to a webhook."""
    found: list[Record] = []
    after = f"{hook.id}."
    while True:
        page = await records.page(kind, hook.tenant, after, _PAGE)
        mine = [each for each in page if each.id.startswith(f"{hook.id}.")]
        found += mine
        if len(mine) < _PAGE:
            return found
        after = mine[-1].id


class HookState:
    """Up to where the log was read, what of it is not taken yet, and the lines. Nothing here waits but `load`.

    `position` is written with the lines in one transaction: every event up to it was taken, is dead, or stands in a
    line. What was taken since the last `flush` is sent again after a crash.
    """

    def __init__(self, hook: Webhook, records: RecordStore) -> None:
        """Start empty; `load` fills it."""
        self.hook, self._records = hook, records
        self.read = 0
        self.lines: dict[int, Line] = {}
        self.ready: deque[LoggedEvent] = deque()
        self._open: dict[int, int] = {}  # cursors that were read and not taken, ascending, with their keys
        self._waiting: dict[int, deque[LoggedEvent]] = {}  # by key: behind one that is ready or on its way
        self._written = -1
        self._changed: dict[int, Line] = {}
        self._removed: set[RecordKey] = set()
        self._dead: list[DeadEvent] = []

    async def load(self, head: int) -> None:
        """Read what was written; a webhook that is new starts at `head`."""
        key = (STATE, self.hook.tenant, self.hook.id)
        found = (await self._records.find([key])).get(key)
        self.read = head if found is None else msgspec.json.decode(found.data, type=_Position).position
        for record in await records_of(self._records, self.hook, LINE):
            line = msgspec.msgpack.decode(record.data, type=Line)
            self.lines[line.key] = line

    @property
    def position(self) -> int:
        """The cursor up to which every event was taken or stands in a line."""
        return next(iter(self._open)) - 1 if self._open else self.read

    @property
    def open_events(self) -> int:
        """How many events were read and neither taken nor put into a line."""
        return len(self._open)

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to write."""
        return self.position != self._written or bool(self._changed or self._removed or self._dead)

    def take_in(self, logged: LoggedEvent) -> None:
        """Add an event that was read: to its message's line, behind an earlier one, or to those that are ready."""
        key = logged.event.message or -logged.cursor
        line = self.lines.get(key)
        if line is not None:
            line.cursors.append(logged.cursor)
            self._changed[key] = line
            return
        self._open[logged.cursor] = key
        behind = self._waiting.get(key)
        if behind is None:
            self._waiting[key] = deque()
            self.ready.append(logged)
        else:
            behind.append(logged)

    def taken(self, logged: LoggedEvent) -> None:
        """Note that the receiver has an event that was in no line; the next of its message is ready."""
        key = self._open.pop(logged.cursor)
        behind = self._waiting[key]
        if behind:
            self.ready.append(behind.popleft())
        else:
            del self._waiting[key]

    def put_in_line(self, logged: LoggedEvent, line: Line) -> None:
        """Move an event that was not taken, and what waits behind it, into a line of their own."""
        for each in (logged, *self._waiting.pop(line.key)):
            del self._open[each.cursor]
            line.cursors.append(each.cursor)
        self.lines[line.key] = self._changed[line.key] = line

    def key_of(self, logged: LoggedEvent) -> int:
        """Give the key of an event that is on its way."""
        return self._open[logged.cursor]

    def changed(self, line: Line) -> None:
        """Note that a line is not what is written."""
        self._changed[line.key] = line

    def advance(self, line: Line, now: float, dead: DeadEvent | None = None) -> None:
        """Go on to a line's next event, since the first was taken or is dead; an empty line goes."""
        line.cursors.pop(0)
        line.attempts, line.error, line.due, line.body = 0, "", now, b""
        if dead is not None:
            self._dead.append(dead)
        if line.cursors:
            self._changed[line.key] = line
        else:
            del self.lines[line.key]
            self._changed.pop(line.key, None)
            self._removed.add((LINE, self.hook.tenant, f"{self.hook.id}.{line.key}"))

    def flush(self, done: Done | None = None) -> None:
        """Write what is not written, in one transaction with the next settles."""
        kept = [line_record(self.hook, line) for line in self._changed.values()]
        kept += [dead_record(self.hook, dead) for dead in self._dead]
        kept.append(state_record(self.hook, self.position))
        removed: Sequence[RecordKey] = tuple(self._removed - {record.key for record in kept})
        self._written = self.position
        self._changed, self._removed, self._dead = {}, set(), []
        self._records.write(kept, removed, done)
