"""The durable store's interface: what the hall and the wings may ask of a spool, whatever stands behind it."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from smarthost.mail.entry import Entry
from smarthost.mail.event import Event
from smarthost.mail.message import Message
from smarthost.mail.record import Record, RecordKey
from smarthost.mail.suppression import Key, Suppression
from smarthost.policy.ledger import LimitState

INLINE_LIMIT = 256 * 1024  # octets of content that live in the row; larger content has a file of its own


class Fault(StrEnum):
    """Why a commit did not happen."""

    DISK_FULL = "disk_full"  # nothing was written; try again when there is space
    IO_ERROR = "io_error"  # the state on disk is unknown: stop, and recover at the next start


# Called once, on the event loop, after the commit; None means that everything is on disk. After an I/O error it is not
# called at all: the state on disk is unknown, so nobody may be answered; the spool says so by its `on_fatal`.
Done = Callable[[Fault | None], None]


class SpoolError(Exception):
    """The spool cannot be opened; the text is a sentence for the person who starts the relay."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """What will be sent for a message, before transparency: `head`, then the octets of the file if there is one.

    Small content is all in `head`; for large content `head` holds the signatures only. `file` is the file's name in
    the spool's content folder, or "". `size` is the octets of both. `is_dotted` is false where it is certain that no
    line of either begins with a dot; that is not kept on disk.
    """

    head: bytes
    file: str = ""
    size: int = 0
    is_dotted: bool = True


class Accepted(msgspec.Struct, gc=False):
    """A message with its content, its entries and what history says of them, to be made durable in one transaction.

    Whoever makes one with a content file has fsynced that file and its folder before. `records` are what the door that
    it came by remembers of it.
    """

    message: Message
    content: Content
    entries: tuple[Entry, ...]
    events: tuple[Event, ...] = ()
    records: tuple[Record, ...] = ()


class Settlement(msgspec.Struct, gc=False):
    """What one attempt changed; one transaction, with the reports that it causes.

    `entry` is written as it now stands (its row replaced), or its row is deleted when it has no recipients left;
    the message goes with its last entry. `events` go to the history. `dead` are recipients that failed and whose
    message is kept all the same: entries with new numbers.
    """

    entry: Entry
    events: tuple[Event, ...] = ()
    reports: tuple[Accepted, ...] = ()
    dead: tuple[Entry, ...] = ()


class Group(msgspec.Struct, frozen=True, gc=False):
    """Messages, each with whom to tell, records that stay or go, and events: on disk all together, or not at all."""

    accepted: tuple[tuple[Accepted, Done], ...] = ()
    records: tuple[Record, ...] = ()
    removed: tuple[RecordKey, ...] = ()
    events: tuple[Event, ...] = ()


class Change(msgspec.Struct, gc=False):
    """What a person changes: keys of entries that go, entries that come (splits, with new numbers), entries as they
    now stand. A message that keeps an entry is kept; entries of a message that is gone are not added.
    """

    removed: tuple[tuple[int, int], ...] = ()
    added: tuple[Entry, ...] = ()
    updated: tuple[Entry, ...] = ()


class QueueHead(msgspec.Struct, frozen=True, gc=False):
    """The earliest due time (Unix seconds) of a queue's lane on disk, parked entries left out."""

    queue: str
    lane: str
    due: float


# Entries that are due, and when the next one is; None where there is none, or where not all that is due was given.
Pulled = tuple[list[Entry], float | None]


class Filter(msgspec.Struct, frozen=True):
    """Which entries a person means; "" and 0 leave a test out. Patterns are shell globs, case-insensitive.

    `older` is an age in seconds; `ids` are message ids; `why` is a `Why` value.
    """

    sender: str = ""
    recipient: str = ""
    destination: str = ""
    route: str = ""
    user: str = ""
    tag: str = ""
    older: float = 0.0
    why: str = ""
    ids: tuple[int, ...] = ()


class Space(NamedTuple):
    """What is left of the file system under the spool: free octets and inodes as parts of 1.0, and free octets."""

    ratio: float
    octets: int
    inode_ratio: float


class ContentFile(Protocol):
    """A content file while it is written. All methods may block: they are for a worker thread."""

    @property
    def name(self) -> str:
        """The name for `Content.file`."""

    @property
    def size(self) -> int:
        """The octets written so far."""

    def write(self, block: bytes) -> None:
        """Append octets; raises OSError, with ENOSPC when the disk is full."""

    def seal(self) -> None:
        """Make the file and its name durable; the message may be accepted afterwards. Raises OSError."""

    def reopen(self) -> BinaryIO:
        """Give what was written for reading, and free the name for a new file of the same message; raises OSError."""

    def discard(self) -> None:
        """Delete the file: its message will not be accepted, or was refused. Harmless when it is gone."""


class SuppressionStore(Protocol):
    """Rows of the suppression list by owner and address. `write` may be called from any thread and returns at once."""

    def write(self, kept: Sequence[Suppression], removed: Sequence[Key] = (), done: Done | None = None) -> None:
        """Put rows in the place of those with the same key and remove others, with the next settles."""

    async def page(self, after: Key, limit: int) -> list[Suppression]:
        """Give at most `limit` rows behind a key, by owner and address."""

    async def marks(self, after: Key, limit: int) -> list[tuple[Key, int]]:
        """Give the keys and marks (`policy.suppression_marks`) of at most `limit` rows behind a key, as `page` does."""

    async def find(self, keys: Sequence[Key]) -> dict[Key, Suppression]:
        """Give those of some rows that there are."""

    async def expired(self, before: float, limit: int) -> list[Suppression]:
        """Give at most `limit` rows that expired before a Unix time."""


class RecordStore(Protocol):
    """Records by kind, tenant and id. `write` may be called from any thread and returns at once."""

    def write(self, kept: Sequence[Record], removed: Sequence[RecordKey] = (), done: Done | None = None) -> None:
        """Put records in the place of those with the same key and remove others, with the next settles."""

    async def find(self, keys: Sequence[RecordKey]) -> dict[RecordKey, Record]:
        """Give those of some records that there are; one that expired stays until `forget_expired`."""

    async def page(
        self, kind: str, tenant: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[Record]:
        """Give at most `limit` records of a tenant behind an id, by id; `newest` goes from the last one back."""

    async def all(self, kind: str, after: tuple[str, str] = ("", ""), limit: int = 500) -> list[Record]:
        """Give at most `limit` records of every tenant behind a tenant and id, by both: for what looks at all."""

    async def due(self, kind: str, before: float, limit: int) -> list[Record]:
        """Give at most `limit` records of a kind, of every tenant, that are due before a Unix time, earliest first."""

    async def next_due(self, kind: str) -> float | None:
        """Give the earliest due time of a kind; None when none is due ever."""

    async def count(self, kind: str, tenant: str) -> int:
        """Count a tenant's records of a kind."""

    async def has_expired(self, now: float) -> bool:
        """Say whether a record expired at a Unix time or before."""

    def forget_expired(self, now: float, done: Done) -> None:
        """Delete some of those that expired at a Unix time or before, with the next settles."""


class LoggedEvent(NamedTuple):
    """An event of the log, with its cursor and its tenant: who brought the message, "default" for nobody known."""

    cursor: int
    tenant: str
    event: Event


class EventPage(NamedTuple):
    """Some events in the order of the commits, and the cursor up to which was looked: the next question's."""

    events: list[LoggedEvent]
    end: int


class EventLog(Protocol):
    """Every event by a cursor that grows with the commits and is never used twice: whoever has read up to a cursor
    never misses an event at or below it. What the history has forgotten is left out.
    """

    @property
    def head(self) -> int:
        """The highest cursor that there can be now; reading from here gives what comes later."""

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call a listener on the loop after each commit that may have brought events; what is given back ends that."""

    async def beyond(self, cursor: int) -> None:
        """Return when there may be events behind a cursor."""

    async def after(self, cursor: int, limit: int, tenant: str | None = None) -> EventPage:
        """Give at most `limit` events behind a cursor, of one tenant or of all; maybe none although there are more
        behind `end`, as a question reads a part of the log.
        """


class Spool(Protocol):
    """A durable store. `accept`, `settle`, `record`, `change` and `delete` may be called from any thread and return
    at once; what they are given is copied before they return.
    """

    @property
    def last_id(self) -> int:
        """The highest message id that was ever made durable; survives the message and its history."""

    @property
    def settles_stuck(self) -> bool:
        """Whether settles wait in memory because the disk is full: delivery shall pause meanwhile."""

    @property
    def suppressions(self) -> SuppressionStore:
        """The suppression list; its rows are written by the same transactions."""

    @property
    def records(self) -> RecordStore:
        """Every other durable object, written by the same transactions."""

    @property
    def event_log(self) -> EventLog:
        """All events in the order of the commits."""

    def new_file(self, message: int) -> ContentFile:
        """Start the content file of a message id; raises OSError, with ENOSPC when the disk is full."""

    def free_space(self) -> Space:
        """Measure the file system under the spool."""

    async def close(self) -> None:
        """Commit what waits, answer it and let go of the folder."""

    def accept(self, accepted: Accepted, done: Done) -> None:
        """Make a message durable, with the accepts and settles that wait beside it; then call `done`."""

    def accept_group(self, group: Group, done: Done) -> None:
        """Make a group durable in one transaction, as `accept` does; then call whom its messages name, and `done`."""

    def settle(self, settlement: Settlement, done: Done) -> None:
        """Make an attempt's result durable; started within 20 ms even when nothing else is to be written."""

    def record(self, events: Sequence[Event]) -> None:
        """Add events to the history with the next transaction; nobody waits for them."""

    def change(self, change: Change, done: Done) -> None:
        """Do what a person asked to entries, in one transaction; entries that are gone stay gone."""

    def delete(self, keys: Sequence[tuple[int, int]], done: Done) -> None:
        """Delete entries, and messages that lose their last one, in one transaction."""

    def keep_limits(self, states: Sequence[LimitState], done: Done) -> None:
        """Write what is remembered of limits, with the settles that wait; the latest of a name stays."""

    async def limit_states(self) -> list[LimitState]:
        """Give all that is remembered of limits, by name."""

    async def heads(self) -> list[QueueHead]:
        """Give every lane of every queue that has an entry with a due time, with the earliest one."""

    async def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Give at most `limit` entries of a queue's lane (`Entry.lane`) that are due before a time, earliest first,
        then by arrival.
        """

    async def next_due(self, queue: str, lane: str, after: float) -> float | None:
        """Give the earliest due time of a queue's lane that is at or after a time; None when there is none."""

    async def pull(self, queue: str, lanes: Sequence[tuple[str, int]], before: float) -> list[Pulled]:
        """Give for each lane, with its limit, what `due` gives; where that is all, also what `next_due` gives."""

    async def deadlines(self, before: float, limit: int) -> list[Entry]:
        """Give at most `limit` entries whose deadline is before a time, earliest first; parked ones have none."""

    async def contents(self, ids: Sequence[int]) -> dict[int, Content]:
        """Give the contents of messages; one that is gone or corrupt is missing from the answer."""

    async def read_file(self, file: str, offset: int, count: int) -> bytes:
        """Read octets of a content file; raises FileNotFoundError or OSError."""

    def open_file(self, file: str) -> BinaryIO:
        """Open a content file for a worker thread; raises FileNotFoundError or OSError."""

    async def verify_file(self, message: int) -> bool:
        """Read a message's whole content file against its recorded size and CRC; true when there is no file."""

    async def select(self, wanted: Filter, limit: int, after: tuple[int, int] = (0, 0)) -> list[Entry]:
        """Give entries that match, by arrival, from behind a key on."""

    async def entries_of(self, message: int) -> list[Entry]:
        """Give the entries of a message that are still in the queue."""

    async def events_of(self, message: int) -> list[Event]:
        """Give the history of a message, oldest first."""

    async def count(self) -> dict[str, int]:
        """Count entries by state: "active" (they have a due time), "parked", and "total"."""

    async def oldest(self, *, parked: bool = False) -> float | None:
        """Give the arrival (Unix seconds) of the oldest message with an active entry, or a parked one; None without."""

    async def forget_history(self, before: float) -> int:
        """Delete events of messages that left the queue before a time; give how many."""
