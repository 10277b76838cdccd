"""Report push: how delivery reports are told to an application, and what its answer means."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from smarthost.mail.event import Event, Kind, mend
from smarthost.mail.message import format_id

INTERVAL, BATCH = 300.0, 500
FIRST, LONGEST = 10.0, 900.0  # seconds after a call that failed: doubling
LONGEST_REST = 7 * 86400.0  # seconds; the farthest `next_sync_after` that is believed
_FAILED = frozenset({Kind.FAILED, Kind.EXPIRED})
_BOUNCED = frozenset({Kind.BOUNCED, Kind.COMPLAINED})
_NOBODY: Mapping[str, "SyncTarget"] = MappingProxyType({})


class SyncTarget(msgspec.Struct, frozen=True):
    """Who is told: with a bearer `token`, or `user` and `password`, or signed by `secret` (as webhooks are).

    Called at least every `interval` seconds, with at most `batch` reports. One that is guarded was named over HTTP, so
    that it may lead to no private address unless that is allowed. Its representation shows no secret.
    """

    url: str
    token: str = ""
    user: str = ""
    password: str = ""
    secret: str = ""
    interval: float = INTERVAL
    batch: int = BATCH
    is_guarded: bool = False

    def __repr__(self) -> str:
        """Show neither URL nor secrets."""
        return "SyncTarget()"


class OutreachTerms(msgspec.Struct, frozen=True):
    """What the relay may tell whom, and whom it believes: `sync` has the tenants that have no target of their own in
    `tenants`; `sns_topics` are the topics of Amazon SNS that may tell of bounces without an API key.
    """

    allow_private_urls: bool = False
    sns_topics: tuple[str, ...] = ()
    sync: SyncTarget | None = None
    tenants: Mapping[str, SyncTarget] = _NOBODY


class SyncAnswer(msgspec.Struct, frozen=True):
    """What an application answered: ids that it did not take, how much it has for us, and when it wants to be called.

    `rest_until` is a Unix time, 0 for none.
    """

    refused: frozenset[str] = frozenset()
    queued: int = 0
    rest_until: float = 0.0


def report_of(event: Event) -> dict[str, Any] | None:
    """Write an event as a delivery report, with the time in whole seconds; None for an event that is none.

    `id` is what the application called the message (its ENVID), else the relay's own id.
    """
    told: dict[str, Any] = {"id": event.envid or format_id(event.message)}
    at, text = int(event.time), mend(event.reply)
    if event.event is Kind.RELAYED:
        told |= {"sent_ts": at}
    elif event.event in _FAILED:
        told |= {"error_ts": at, "error": text or event.status or str(event.event)}
    elif event.event is Kind.DELAYED:
        told |= {"deferred_ts": at, "deferred_reason": text or event.status}
    elif event.event in _BOUNCED:
        kind = "complaint" if event.event is Kind.COMPLAINED else "soft" if event.status.startswith("4") else "hard"
        told |= {"bounce_ts": at, "bounce_type": kind, "bounce_code": event.status, "bounce_reason": text}
    else:
        return None
    if event.recipient:
        told["recipient"] = mend(event.recipient)
    return told if event.message else None


def body_of(reports: Sequence[Mapping[str, Any]]) -> bytes:
    """Write what is posted."""
    return msgspec.json.encode({"delivery_report": reports})


def read_answer(body: bytes, now: float) -> SyncAnswer:
    """Read an answer; what is no JSON object, or of another type than it should be, says nothing."""
    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return SyncAnswer()
    if not isinstance(told, dict):
        return SyncAnswer()
    refused = {_id(each) for key in ("error", "not_found") for each in _list(told.get(key))}
    queued, rest = _number(told.get("queued")), _number(told.get("next_sync_after"))
    return SyncAnswer(frozenset(refused - {""}), int(queued), min(rest, now + LONGEST_REST))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _id(value: object) -> str:
    """Give the id of a refused report: the text alone, or an object with an `id`."""
    if isinstance(value, dict):
        value = value.get("id")
    return str(value) if isinstance(value, str | int) else ""


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        return 0.0
    return number if 0.0 < number < math.inf else 0.0


def pause_after(failures: int) -> float:
    """Give the seconds until an application that could not be called so many times in a row is called again."""
    return min(FIRST * 2.0 ** min(failures - 1, 20), LONGEST)
