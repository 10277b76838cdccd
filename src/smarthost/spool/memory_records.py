"""Records without a disk, for simulation and tests."""

import math
from collections.abc import Callable, Sequence

from smarthost.mail.record import Record, RecordKey
from smarthost.spool.store import Done

SOME = 500  # records that one `forget_expired` deletes, as on disk


class MemoryRecords:
    """A `store.RecordStore` in a dictionary; `write` is how the spool writes."""

    def __init__(self, write: Callable[[Callable[[], None], Done | None], None]) -> None:
        """Start empty."""
        self._rows: dict[RecordKey, Record] = {}
        self._write = write

    def keep(self, records: Sequence[Record], removed: Sequence[RecordKey] = ()) -> None:
        """Put records in their places at once, and remove others, as part of what the spool is writing."""
        for key in removed:
            self._rows.pop(key, None)
        self._rows.update((record.key, record) for record in records)

    def write(self, kept: Sequence[Record], removed: Sequence[RecordKey] = (), done: Done | None = None) -> None:
        """Write records as the spool writes settles."""
        rows, gone = tuple(kept), tuple(removed)

        def act() -> None:
            self.keep(rows, gone)

        self._write(act, done)

    async def find(self, keys: Sequence[RecordKey]) -> dict[RecordKey, Record]:
        """Give those records that there are."""
        return {key: self._rows[key] for key in keys if key in self._rows}

    async def page(
        self, kind: str, tenant: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[Record]:
        """Give a tenant's records of a kind behind an id."""
        names = sorted((key[2] for key in self._rows if key[:2] == (kind, tenant)), reverse=newest)
        behind = [name for name in names if not after or (name < after if newest else name > after)]
        return [self._rows[kind, tenant, name] for name in behind[:limit]]

    async def all(self, kind: str, after: tuple[str, str] = ("", ""), limit: int = 500) -> list[Record]:
        """Give every tenant's records of a kind behind a tenant and id."""
        return [self._rows[key] for key in sorted(self._rows) if key[0] == kind and key[1:] > after][:limit]

    async def due(self, kind: str, before: float, limit: int) -> list[Record]:
        """Give records of a kind that are due before a time."""
        rows = [row for row in self._rows.values() if row.kind == kind and row.due < before]
        return sorted(rows, key=lambda row: (row.due, row.tenant, row.id))[:limit]

    async def next_due(self, kind: str) -> float | None:
        """Give the earliest due time of a kind."""
        return min((row.due for row in self._rows.values() if row.kind == kind and row.due < math.inf), default=None)

    async def count(self, kind: str, tenant: str) -> int:
        """Count a tenant's records of a kind."""
        return sum(key[:2] == (kind, tenant) for key in self._rows)

    async def has_expired(self, now: float) -> bool:
        """Say whether there is anything to forget."""
        return any(row.expires <= now for row in self._rows.values())

    def forget_expired(self, now: float, done: Done) -> None:
        """Delete some of what expired."""

        def act() -> None:
            rows = sorted((row for row in self._rows.values() if row.expires <= now), key=lambda row: row.expires)
            for row in rows[:SOME]:
                del self._rows[row.key]

        self._write(act, done)
