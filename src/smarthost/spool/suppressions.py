"""The suppression list on disk, as the embedded spool keeps it."""

import math
from collections.abc import Callable, Sequence

from smarthost.mail.event import mend
from smarthost.mail.suppression import REASON_MOST, Key, Origin, Suppression
from smarthost.policy.suppression_marks import mark_for
from smarthost.spool.batch import Part
from smarthost.spool.reader import Reader
from smarthost.spool.record import Row
from smarthost.spool.store import Done
from smarthost.spool.writer import Writer

_COLUMNS = "owner, address, failures, since, expires, origin, reason"
_PAGE = f"SELECT {_COLUMNS} FROM suppression WHERE (owner, address) > (?, ?) ORDER BY owner, address LIMIT ?"
# Little of each row: at the start all are read, and made into objects they would cost several times as much.
_MARKS = (
    "SELECT owner, address, failures, since > 0, origin FROM suppression WHERE (owner, address) > (?, ?) "
    "ORDER BY owner, address LIMIT ?"
)
_FIND = f"SELECT {_COLUMNS} FROM suppression WHERE owner = ? AND address = ?"
_EXPIRED = f"SELECT {_COLUMNS} FROM suppression WHERE expires <= ? ORDER BY expires LIMIT ?"


class StoredSuppressions:
    """A `store.SuppressionStore` in the spool's database."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        """Read and write by the spool's own threads."""
        self._reader, self._writer = reader, writer

    def write(self, kept: Sequence[Suppression], removed: Sequence[Key] = (), done: Done | None = None) -> None:
        """Write rows with the next settles; a later word on a key counts."""
        rows: dict[Key, Row | None] = {(mend(owner), mend(address)): None for owner, address in removed}
        for suppression in kept:
            row = to_row(suppression)
            rows[row[0], row[1]] = row

        def fill(part: Part) -> None:
            part.suppressions |= rows
            if done is not None:
                part.dones.append(done)

        self._writer.settle(fill)

    async def page(self, after: Key, limit: int) -> list[Suppression]:
        """Give rows behind a key."""
        return await self._reader.ask(read_page, self._reader.rows, after, limit)

    async def marks(self, after: Key, limit: int) -> list[tuple[Key, int]]:
        """Give keys and marks behind a key."""
        return await self._reader.ask(_read_marks, self._reader.rows, after, limit)

    async def find(self, keys: Sequence[Key]) -> dict[Key, Suppression]:
        """Give those rows that there are, by an indexed look-up each."""
        return await self._reader.ask(_find, self._reader.rows, tuple(keys))

    async def expired(self, before: float, limit: int) -> list[Suppression]:
        """Give rows that are over."""
        rows = await self._reader.ask(self._reader.rows, _EXPIRED, (before, limit))
        return list(map(_read, rows))


Rows = Callable[[str, Row], list[Row]]


def has_list(ask: Rows) -> bool:
    """Whether a spool has a suppression list at all: one of schema 1, which no newer relay has opened yet, has none."""
    return bool(ask("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'suppression'", ()))


def read_page(ask: Rows, after: Key, limit: int) -> list[Suppression]:
    """Give at most `limit` rows behind a key, read by a reader's `rows`."""
    return list(map(_read, ask(_PAGE, (*after, limit))))


def _read_marks(ask: Rows, after: Key, limit: int) -> list[tuple[Key, int]]:
    return [
        ((owner, address), mark_for(failures, is_suppressed=bool(is_suppressed), origin=origin))
        for owner, address, failures, is_suppressed, origin in ask(_MARKS, (*after, limit))
    ]


def _find(ask: Rows, keys: Sequence[Key]) -> dict[Key, Suppression]:
    found = [_read(row) for key in keys for row in ask(_FIND, key)]
    return {row.key: row for row in found}


def to_row(row: Suppression) -> Row:
    """Write a row; text that is no UTF-8 has its odd octets replaced, for others wait for the same transaction."""
    expires = None if row.expires == math.inf else row.expires
    texts = mend((row.owner, row.address, row.reason[:REASON_MOST]))
    return texts[0], texts[1], row.failures, row.since, expires, str(row.origin), texts[2]


def _read(row: Row) -> Suppression:
    owner, address, failures, since, expires, origin, reason = row
    return Suppression(
        owner, address, failures, since, math.inf if expires is None else expires, Origin(origin), reason
    )
