"""Records on disk, as the embedded spool keeps them: one table for every kind of object."""

import math
from collections.abc import Sequence

from smarthost.mail.record import Record, RecordKey
from smarthost.spool.batch import Part
from smarthost.spool.reader import Reader
from smarthost.spool.record import Row, record_row
from smarthost.spool.store import Done
from smarthost.spool.writer import Writer

_COLUMNS = "kind, tenant, id, data, due, expires"
_FIND = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND tenant = ? AND id = ?"
_PAGE = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND tenant = ? AND id > ? ORDER BY id LIMIT ?"
_PAGE_BACK = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND tenant = ? AND id < ? ORDER BY id DESC LIMIT ?"
_ALL = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND (tenant, id) > (?, ?) ORDER BY tenant, id LIMIT ?"
_DUE = (
    f"SELECT {_COLUMNS} FROM record INDEXED BY record_due WHERE kind = ? AND due < ? AND due IS NOT NULL "
    "ORDER BY due, tenant, id LIMIT ?"
)
_NEXT_DUE = "SELECT due FROM record INDEXED BY record_due WHERE kind = ? AND due IS NOT NULL ORDER BY due LIMIT 1"
_COUNT = "SELECT count(*) FROM record WHERE kind = ? AND tenant = ?"
_EXPIRED = "SELECT 1 FROM record WHERE expires <= ? LIMIT 1"


class StoredRecords:
    """A `store.RecordStore` in the spool's database."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        """Read and write by the spool's own threads."""
        self._reader, self._writer = reader, writer

    def write(self, kept: Sequence[Record], removed: Sequence[RecordKey] = (), done: Done | None = None) -> None:
        """Write records with the next settles; a later word on a key counts."""
        rows: dict[RecordKey, Row | None] = dict.fromkeys(removed)
        rows |= {record.key: record_row(record) for record in kept}

        def fill(part: Part) -> None:
            part.records |= rows
            if done is not None:
                part.dones.append(done)

        self._writer.settle(fill)

    async def find(self, keys: Sequence[RecordKey]) -> dict[RecordKey, Record]:
        """Give those records that there are."""
        rows = await self._reader.ask(self._reader.each, _FIND, keys)
        return {record.key: record for record in map(_record, rows)}

    async def page(
        self, kind: str, tenant: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[Record]:
        """Give a tenant's records of a kind behind an id."""
        if not newest:
            return await self._read(_PAGE, (kind, tenant, after, limit))
        return await self._read(_PAGE_BACK, (kind, tenant, after or "\U0010ffff", limit))

    async def all(self, kind: str, after: tuple[str, str] = ("", ""), limit: int = 500) -> list[Record]:
        """Give every tenant's records of a kind behind a tenant and id."""
        return await self._read(_ALL, (kind, *after, limit))

    async def due(self, kind: str, before: float, limit: int) -> list[Record]:
        """Give records of a kind that are due before a time."""
        return await self._read(_DUE, (kind, before, limit))

    async def next_due(self, kind: str) -> float | None:
        """Give the earliest due time of a kind."""
        rows = await self._reader.ask(self._reader.rows, _NEXT_DUE, (kind,))
        return float(rows[0][0]) if rows else None

    async def count(self, kind: str, tenant: str) -> int:
        """Count a tenant's records of a kind."""
        rows = await self._reader.ask(self._reader.rows, _COUNT, (kind, tenant))
        return int(rows[0][0])

    async def has_expired(self, now: float) -> bool:
        """Say whether there is anything to forget."""
        return bool(await self._reader.ask(self._reader.rows, _EXPIRED, (now,)))

    def forget_expired(self, now: float, done: Done) -> None:
        """Delete some of what expired, with the next settles."""

        def fill(part: Part) -> None:
            part.records_until = max(part.records_until, now)
            part.dones.append(done)

        self._writer.settle(fill)

    async def _read(self, sql: str, arguments: Row) -> list[Record]:
        return [_record(row) for row in await self._reader.ask(self._reader.rows, sql, arguments)]


def _record(row: Row) -> Record:
    kind, tenant, name, data, due, expires = row
    return Record(kind, tenant, name, data, _time(due), _time(expires))


def _time(at: float | None) -> float:
    return math.inf if at is None else at
