"""Standing: how a message and each of its recipients stand, told by what is in the queue and what has happened."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

import msgspec

from smarthost.mail.entry import PARKED, Entry, Why
from smarthost.mail.event import Event, Kind
from smarthost.reception.http.handing import Result, time_of

QUEUED, SCHEDULED, HELD, DELAYED = "queued", "scheduled", "held", "delayed"
RELAYED, FAILED, CANCELLED, MIXED, UNKNOWN = "relayed", "failed", "cancelled", "mixed", "unknown"
STATUSES = (QUEUED, SCHEDULED, HELD, DELAYED, RELAYED, FAILED, CANCELLED, MIXED, UNKNOWN)
# What is still to come is told before what has been, and what a person has to act on before the rest.
_FIRST = (HELD, DELAYED, QUEUED, SCHEDULED)

_ENDS: Mapping[Kind, str] = MappingProxyType(
    {Kind.RELAYED: RELAYED, Kind.FAILED: FAILED, Kind.EXPIRED: FAILED, Kind.DELETED: CANCELLED}
)


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one recipient stands; `code`, `enhanced_status` and `reply` are the last that was heard of it."""

    address: str
    status: str
    code: int = 0
    enhanced_status: str = ""
    reply: str = ""
    attempts: int = 0
    next_attempt: datetime | None = None


def standings(results: Sequence[Result], entries: Iterable[Entry], events: Iterable[Event]) -> list[Standing]:
    """Give how each recipient stands: first of what was answered at the door, then of all others."""
    found: dict[str, Standing] = {}
    for result in results:
        # What is not in the queue, and of which the history tells nothing (any more), is not known.
        status = UNKNOWN if result.result == "accepted" else result.result
        found[result.address] = Standing(result.address, status, result.code, result.status, result.reason)
    everybody: str | None = None
    for event in events:
        status = _ENDS.get(event.event, "")
        if not status:
            continue
        if not event.recipient:
            everybody = status  # of a message to several that was ended as a whole
            continue
        found[event.recipient] = Standing(event.recipient, status, event.code, event.status, event.reply, event.attempt)
    waiting = {}
    for entry in entries:
        if entry.why is Why.DEAD_LETTER:
            dead = {each.address: Standing(each.address, FAILED, reply=entry.last) for each in entry.recipients}
            found |= {address: each for address, each in dead.items() if found.get(address, each).status != FAILED}
            continue
        # What is suspended until a person says otherwise waits for no time.
        due = None if entry.why in PARKED or entry.due == math.inf else time_of(entry.due)
        for recipient in entry.recipients:
            waiting[recipient.address] = Standing(
                recipient.address, _waits(entry), reply=entry.last, attempts=entry.attempts, next_attempt=due
            )
    if everybody is not None:
        found = {
            address: msgspec.structs.replace(each, status=everybody) if each.status == UNKNOWN else each
            for address, each in found.items()
        }
    return list((found | waiting).values())


def overall(standing: Iterable[Standing]) -> str:
    """Give the status of a message: what is still to come, else how it ended for all, or "mixed"."""
    statuses = {each.status for each in standing}
    for status in _FIRST:
        if status in statuses:
            return status
    statuses = {FAILED if each in ("suppressed", "refused") else each for each in statuses}
    return statuses.pop() if len(statuses) == 1 else MIXED


def _waits(entry: Entry) -> str:
    if entry.why in PARKED:
        return HELD
    if entry.why is Why.SCHEDULED:
        return SCHEDULED
    return DELAYED if entry.attempts else QUEUED
