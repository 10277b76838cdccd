"""The spool in memory with a disk's manners: commits take time, and a crash loses what was not committed."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from smarthost.mail.entry import Entry, Why
from smarthost.mail.event import Event
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import Accepted, Content, Done

GATHER = 0.02  # seconds; the longest that a commit takes while the disk is well
_Rows = TypeVar("_Rows")
_STATE = ("_messages", "_numbers", "_entries", "_due", "_deadlines", "_events", "_files", "_limits")
STALL, STALLS = 2.0, 0.02  # seconds of a disk that is busy with something else, and how often it is


class SimSpool(MemorySpool):
    """Commits in order, each after a moment. `told` hears every event that is committed, and when."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        rng: Random,
        told: Callable[[Event], None],
    ) -> None:
        """Start empty."""
        super().__init__(loop, clock)
        self._rng, self._told, self._listener = rng, told, told
        self._kept: dict[str, Any] = {}
        self._suppressed: dict[Any, Any] = {}
        self._ready_at = 0.0

    def freeze(self) -> None:
        """End of a life: what is not committed now is lost; the next life finds the rest."""
        self._kept = {name: getattr(self, name) for name in _STATE}
        for name in _STATE:
            setattr(self, name, type(self._kept[name])())
        self._suppressed = dict(self.suppressions._rows)
        self._told = lambda event: None

    def reborn(self, loop: asyncio.AbstractEventLoop) -> "SimSpool":
        """Give the spool as the next life finds it."""
        other = SimSpool(loop, self._clock, self._rng, self._listener)
        for name, kept in self._kept.items():
            setattr(other, name, kept)
        other.last_id = self.last_id
        other.suppressions._rows = dict(self._suppressed)
        return other

    def accept(self, accepted: Accepted, done: Done) -> None:
        """Keep a message, in a moment; its rows are as they stand now."""
        taken = Accepted(
            accepted.message,
            accepted.content,
            tuple(copy.copy(entry) for entry in accepted.entries),
            accepted.events,
        )
        self._later(lambda: super(SimSpool, self).accept(taken, done))

    def _write(self, act: Callable[[], None], done: Done | None) -> None:
        self._later(lambda: super(SimSpool, self)._write(act, done))

    def _later(self, write: Callable[[], None]) -> None:
        rng = self._rng
        wait = rng.uniform(0.0, STALL) if rng.random() < STALLS else rng.uniform(0.0, GATHER)
        self._ready_at = max(self._ready_at + 2e-6, self._loop.time() + wait)
        self._loop.call_at(self._ready_at, write)

    async def due(self, queue: str, lane: str, before: float, limit: int) -> list[Entry]:
        """Give what is due, as it was when the reading began."""
        return await self._read(super().due(queue, lane, before, limit))

    async def next_due(self, queue: str, lane: str, after: float) -> float | None:
        """Give the next due time, as it was when the reading began."""
        return await self._read(super().next_due(queue, lane, after))

    async def deadlines(self, before: float, limit: int) -> list[Entry]:
        """Give whose deadline has come, as it was when the reading began."""
        return await self._read(super().deadlines(before, limit))

    async def contents(self, ids: Sequence[int]) -> dict[int, Content]:
        """Give contents, after a moment."""
        return await self._read(super().contents(ids))

    async def _read(self, reading: Awaitable[_Rows]) -> _Rows:
        rows = await reading
        await asyncio.sleep(self._rng.uniform(0.0, GATHER))
        return rows

    def _tell(self, events: Iterable[Event]) -> None:
        kept = tuple(events)
        super()._tell(kept)
        for event in kept:
            self._told(event)

    def waiting(self) -> dict[int, list[str]]:
        """Give the recipients that are in the queue by message, as often as they are there."""
        found: dict[int, list[str]] = {}
        for entry in self._entries.values():
            if entry.why is Why.REPORT_FAILED:
                continue  # ended as far as the relay goes; a person may want to see it
            found.setdefault(entry.message.id, []).extend(r.address for r in entry.recipients)
        return found

    @property
    def entries(self) -> int:
        """Count the entries on disk, reports left out that failed and are kept for a person."""
        return sum(entry.why is not Why.REPORT_FAILED for entry in self._entries.values())

    @property
    def parked(self) -> list[str]:
        """Say which entries wait for a person, and why."""
        return [f"{e.key} {e.why}: {e.last}" for e in self._entries.values() if e.due == float("inf")]
