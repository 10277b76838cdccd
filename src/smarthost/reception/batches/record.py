"""What is kept of a batch, as records: itself, its template, its recipients in parts, its tally and its events."""

from enum import StrEnum
from typing import Any

import msgspec

from smarthost.compose.batch_form import BatchForm
from smarthost.mail.record import Record, RecordKey

BATCH, DRAFT, FORM = "batch", "batch_draft", "batch_template"
PART, SENT = "batch_part", "batch_sent"
TALLY, FLAGS, EVENTS, CURSOR = "batch_tally", "batch_flags", "batch_events", "batch_cursor"
PART_SIZE = 100  # recipients of a part, which go into the queue in one transaction
FLAGS_SIZE = 2000  # recipients of a record of flags
EVENTS_SIZE = 100  # events of a record
_BEHIND = "."  # between a batch's id and a recipient's place in an ENVID


class State(StrEnum):
    """What is to be done about a batch. A cancelled one is `cancelling` while mail of it may still be in the queue."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETED = "completed"


class Batch(msgspec.Struct):
    """A batch. Mutable: `state`, `ended`.

    `total` counts its recipients; `created`, `ended` are Unix times, 0 for not yet; `key` is the id of the API key
    by which it came, `client` the peer's address.
    """

    id: str
    tenant: str
    created: float
    total: int
    form: BatchForm
    state: State = State.ACTIVE
    ended: float = 0.0
    key: str = ""
    client: str = ""
    is_secure: bool = False
    template: str = ""  # its name, as it was

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is done any more."""
        return self.state in (State.CANCELLED, State.COMPLETED)

    @property
    def record_key(self) -> RecordKey:
        """By which it is found."""
        return BATCH, self.tenant, self.id

    def part_key(self, kind: str, number: int) -> RecordKey:
        """Name one of the records that belong to it, which sort by their numbers."""
        return kind, self.tenant, f"{self.id}-{number:06d}"


class Told(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """An event of a batch: type, Unix time, the recipient's place and address, and what was said."""

    type: str
    at: float
    place: int
    recipient: str
    message: int = 0
    code: int = 0
    status: str = ""
    reply: str = ""


class TallyRecord(msgspec.Struct):
    """How a batch stands: by type how many recipients it was told of; how many are done with, how many events."""

    counts: dict[str, int] = {}
    finished: int = 0
    events: int = 0


def number_of(record: Record) -> int:
    """Give the number that `Batch.part_key` has put into a record's id."""
    return int(record.id.rpartition("-")[2])


def envid_of(batch: str, place: int) -> str:
    """Give the ENVID of a recipient's message, by which its events are known (RFC 3461 4.4)."""
    return f"{batch}{_BEHIND}{place}"


def place_of(envid: str) -> tuple[str, int] | None:
    """Read a batch and a recipient's place out of an ENVID; None for any other."""
    batch, dot, place = envid.partition(_BEHIND)
    if not dot or len(batch) != _ID_LENGTH or not (place.isascii() and place.isdigit() and len(place) < _MOST_DIGITS):
        return None
    return batch, int(place)


_ID_LENGTH, _MOST_DIGITS = 12, 7


def encode(value: Any) -> bytes:
    """Write what a record holds."""
    return msgspec.json.encode(value)
