"""Tally: counts what became of a batch's recipients, and keeps its events in the order in which they happened."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from smarthost.mail.event import Event, Kind
from smarthost.mail.record import Record, RecordKey
from smarthost.policy.suppression import SUPPRESSED, SUPPRESSED_ON_SEND
from smarthost.reception.batches.record import (
    EVENTS,
    EVENTS_SIZE,
    FLAGS,
    FLAGS_SIZE,
    TALLY,
    Batch,
    TallyRecord,
    Told,
    encode,
)
from smarthost.spool.store import RecordStore

SENT, FAILED, BOUNCE, COMPLAINT, STOPPED = "SENT", "FAILED", "BOUNCE", "COMPLAINT", "SUPPRESSED"
CANCELLED = "CANCELLED"
TYPES = (SENT, FAILED, BOUNCE, COMPLAINT, STOPPED)
_TYPES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.RELAYED: SENT,
        Kind.FAILED: FAILED,
        Kind.EXPIRED: FAILED,
        Kind.REJECTED: FAILED,
        Kind.BOUNCED: BOUNCE,
        Kind.COMPLAINED: COMPLAINT,
        Kind.DELETED: CANCELLED,
    }
)
_BITS = MappingProxyType({SENT: 1, FAILED: 2, BOUNCE: 4, COMPLAINT: 8, STOPPED: 16, CANCELLED: 32})
_ENDS = 1 | 2 | 16 | 32
_OF_SUPPRESSION = frozenset({SUPPRESSED.text, SUPPRESSED_ON_SEND})
_told = msgspec.json.Decoder(list[Told])


def type_of(event: Event) -> str:
    """Give what an event is for a batch, "" for nothing."""
    found = _TYPES.get(event.event, "")
    return STOPPED if found == FAILED and event.reply in _OF_SUPPRESSION else found


class Tally:
    """The tally of one batch, in memory. What was changed since it was written is given by `take_records`.

    Each recipient counts once for each type, however often it is told: after a crash one may be sent twice, which the
    events show. `turn` is held by who puts a part of it into the queue, or changes what is there.
    """

    def __init__(self, batch: Batch, stored: TallyRecord, records: RecordStore) -> None:
        """Go on where the record stands."""
        self.batch, self.stored = batch, stored
        self._records = records
        self._flags: dict[int, bytearray] = {}
        self._tail: list[Told] | None = None
        self._new_flags: set[int] = set()
        self._full: dict[int, list[Told]] = {}  # records of events that are whole and not written
        self._under_way: dict[int, list[Told]] = {}  # those that are being written
        self.is_changed = False
        self.turn = asyncio.Lock()

    @property
    def is_finished(self) -> bool:
        """Whether every recipient is done with."""
        return self.stored.finished >= self.batch.total

    async def take(self, event: Event, place: int) -> None:
        """Count an event of a recipient's message."""
        kind = type_of(event)
        if not kind or place >= self.batch.total:
            return
        flags = await self._flags_of(place)
        before = flags[place % FLAGS_SIZE]
        after = flags[place % FLAGS_SIZE] = before | _BITS[kind]
        stored = self.stored
        if after != before:
            stored.counts[kind] = stored.counts.get(kind, 0) + 1
            stored.finished += bool(after & _ENDS) and not before & _ENDS
            self._new_flags.add(place // FLAGS_SIZE)
        if kind != CANCELLED:
            await self._append(
                Told(
                    kind,
                    event.time,
                    place,
                    event.recipient,
                    event.message,
                    event.code,
                    event.status,
                    event.reply[:500],
                )
            )
        self.is_changed = True

    async def is_done(self, place: int) -> bool:
        """Whether a recipient is done with."""
        return bool((await self._flags_of(place))[place % FLAGS_SIZE] & _ENDS)

    def take_records(self, expires: float) -> list[Record]:
        """Give the records that have changed, as they stand now; they expire at a Unix time."""
        batch, stored = self.batch, self.stored
        key = (TALLY, batch.tenant, batch.id)
        found = [Record(*key, encode(stored), expires=expires if batch.is_over else float("inf"))]
        for number in self._new_flags:
            found.append(Record(*batch.part_key(FLAGS, number), bytes(self._flags[number]), expires=expires))
        if self._tail is not None:
            self._full[stored.events // EVENTS_SIZE] = self._tail
        self._under_way |= self._full
        for number, events in self._full.items():
            if events:
                found.append(Record(*batch.part_key(EVENTS, number), encode(events), expires=expires))
        self._new_flags, self._full, self.is_changed = set(), {}, False
        return found

    def written(self) -> None:
        """Know that what `take_records` gave is on disk."""
        self._under_way.clear()

    async def events(self, offset: int, limit: int) -> list[Told]:
        """Give events by their places in the order, without those that were forgotten."""
        end = min(offset + limit, self.stored.events)
        if offset >= end:
            return []
        numbers = range(offset // EVENTS_SIZE, (end - 1) // EVENTS_SIZE + 1)
        unwritten = self._under_way | self._full
        if self._tail is not None:
            unwritten[self.stored.events // EVENTS_SIZE] = self._tail
        keys: list[RecordKey] = [self.batch.part_key(EVENTS, each) for each in numbers if each not in unwritten]
        found = await self._records.find(keys)
        events: list[Told] = []
        for number in numbers:
            some = unwritten.get(number)
            if some is None:
                record = found.get(self.batch.part_key(EVENTS, number))
                some = _told.decode(record.data) if record is not None else []
            begin = number * EVENTS_SIZE
            events += some[max(offset - begin, 0) : end - begin]
        return events

    async def _append(self, told: Told) -> None:
        number = self.stored.events // EVENTS_SIZE
        if self._tail is None:
            key = self.batch.part_key(EVENTS, number)
            record = (await self._records.find([key])).get(key)
            self._tail = _told.decode(record.data) if record is not None else []
        self._tail.append(told)
        self.stored.events += 1
        if self.stored.events % EVENTS_SIZE == 0:
            self._full[number], self._tail = self._tail, []

    async def _flags_of(self, place: int) -> bytearray:
        number = place // FLAGS_SIZE
        flags = self._flags.get(number)
        if flags is None:
            key = self.batch.part_key(FLAGS, number)
            record = (await self._records.find([key])).get(key)
            size = min(FLAGS_SIZE, self.batch.total - number * FLAGS_SIZE)
            flags = self._flags.setdefault(number, bytearray(record.data if record is not None else bytes(size)))
        return flags
