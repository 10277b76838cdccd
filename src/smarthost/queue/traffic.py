"""Traffic: what became of the mail of each hour, tenant and account, counted from the event log when somebody asks."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec

from smarthost.mail.event import Event, Kind
from smarthost.mail.message import REPORTS
from smarthost.policy.account import account_of
from smarthost.policy.suppression import SUPPRESSED_ON_SEND
from smarthost.spool.cursor import cursor_at
from smarthost.spool.store import EventLog

MOST_HOURS = 168  # that can be asked for
HOUR = 3600.0
DEFAULT_ACCOUNT = "default"  # of mail that goes by no account
OTHER = "(other)"  # no tenant can be named so
_PAGE = 1000  # events a question to the disk
_PATIENCE = 5.0  # seconds that one question may count for; the next one goes on
_MOST_KEYS = 1000  # tenants and accounts of an hour that are told apart

_FIELDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.ACCEPTED: "accepted",
        Kind.RELAYED: "sent",
        Kind.FAILED: "failed",
        Kind.EXPIRED: "failed",
        Kind.DELAYED: "deferred",
        Kind.BOUNCED: "bounced",
        Kind.COMPLAINED: "complaints",
    }
)

Place = tuple[str, str]
"""A tenant and its account, "" where an event has no route."""


class Counts(msgspec.Struct, gc=False):
    """How often something happened: `accepted` counts messages, all others recipients.

    `deferred` counts attempts that put a recipient off; `suppressed` those to whom nothing was sent because of the
    suppression list, who are not among the failed.
    """

    accepted: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    bounced: int = 0
    complaints: int = 0
    suppressed: int = 0

    def add(self, other: "Counts") -> None:
        """Add what others counted."""
        for name in Counts.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Reading(msgspec.Struct, frozen=True):
    """What was counted from `since` on, the beginning of an hour (Unix time): for each hour, by tenant and account.

    `is_complete` is false where there was too much to count at once: what is missing is the latest.
    """

    since: float
    is_complete: bool
    hours: Mapping[float, Mapping[Place, Counts]]


class Traffic:
    """Reads the event log on from where it stood when it was asked last, so that nothing is paid for while nobody asks
    and only for what is new when somebody does. The spool's reader does the work, a page at a time.
    """

    def __init__(self, log: EventLog, clock: Callable[[], float]) -> None:
        """Count nothing yet."""
        self._log, self._clock = log, clock
        self._turn = asyncio.Lock()
        self._hours: dict[float, dict[Place, Counts]] = {}
        self._since = 0.0
        self._cursor = 0

    async def read(self, hours: int, tenant: str | None = None) -> Reading:
        """Give the counts of this hour and those before it, `hours` in all, of one tenant or of all."""
        async with self._turn:
            since = self._clock() // HOUR * HOUR - (hours - 1) * HOUR
            is_complete = await self._catch_up(since)
            found = {since + number * HOUR: self._hour(since + number * HOUR, tenant) for number in range(hours)}
            return Reading(since, is_complete, found)

    async def _catch_up(self, since: float) -> bool:
        """Count what the log has brought; says whether that was all."""
        if not self._cursor or since < self._since:
            self._hours.clear()
            self._since, self._cursor = since, cursor_at(since)
        loop, head = asyncio.get_running_loop(), self._log.head
        deadline = loop.time() + _PATIENCE
        while self._cursor < head and loop.time() < deadline:
            page = await self._log.after(self._cursor, _PAGE)
            for each in page.events:
                self._count(each.tenant, each.event)
            self._cursor = page.end
        oldest = self._clock() // HOUR * HOUR - MOST_HOURS * HOUR
        for hour in [hour for hour in self._hours if hour < oldest]:
            del self._hours[hour]
        self._since = max(self._since, oldest)
        return self._cursor >= head

    def _count(self, tenant: str, event: Event) -> None:
        # A report of ours belongs to a tenant, who has not sent it.
        field = _FIELDS.get(event.event, "") if event.listener != REPORTS else ""
        if not field:
            return
        if field == "failed" and event.reply == SUPPRESSED_ON_SEND:
            field = "suppressed"
        account = account_of(event.route) if event.route else None
        place = (tenant, account[1] if account is not None else DEFAULT_ACCOUNT if event.route else "")
        hour = self._hours.setdefault(event.time // HOUR * HOUR, {})
        if place not in hour and len(hour) >= _MOST_KEYS:
            place = (tenant, "") if (tenant, "") in hour else (OTHER, "")
        counts = hour.get(place)
        if counts is None:
            counts = hour[place] = Counts()
        setattr(counts, field, getattr(counts, field) + 1)

    def _hour(self, hour: float, tenant: str | None) -> dict[Place, Counts]:
        counted = self._hours.get(hour, {})
        if tenant is None:
            return counted
        return {place: counts for place, counts in counted.items() if place[0] == tenant}


def sum_of(counted: Iterable[Counts]) -> Counts:
    """Add counts up."""
    total = Counts()
    for counts in counted:
        total.add(counts)
    return total
