"""Webhooks: what a tenant wants to hear where, how an event is told, and when it is told again."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from smarthost.mail.event import Event, Kind, mend

FIRST, LONGEST = 60.0, 57_600.0  # seconds: a minute, doubling to 16 hours
MOST_ATTEMPTS = 12  # of one event, which takes some 33 hours
MOST_PAUSE = 86_400.0  # seconds of a Retry-After that are honoured
MOST_URL, MOST_TEXT, MOST_EVENTS = 2000, 500, 50
EVERYTHING = "*"
TYPES = tuple(f"message.{kind}" for kind in Kind)
_PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?")

Faults = tuple[tuple[str, str], ...]
"""What is wrong with a request: pairs of field and sentence."""


class WebhookWish(msgspec.Struct, frozen=True):
    """What a tenant asks for. None leaves a field as it is (or at its default); `secret` "" has a new one made."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    description: str | None = None
    active: bool | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        """Show neither URL nor secret."""
        return f"WebhookWish(events={self.events})"


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a tenant's events go. `events` are types, "message.*" or "*"; `disabled` says why it is not active.

    `former` is a secret that signs beside the new one until `former_until` (Unix time).
    """

    id: str
    tenant: str
    url: str
    secret: str
    events: tuple[str, ...] = (EVERYTHING,)
    description: str = ""
    active: bool = True
    disabled: str = ""
    created: float = 0.0
    former: str = ""
    former_until: float = 0.0

    def __repr__(self) -> str:
        """Show neither URL nor secrets: URLs may have tokens in them."""
        return f"Webhook(id={self.id!r}, tenant={self.tenant!r})"

    def wants(self, kind: str) -> bool:
        """Whether a type of events is wanted."""
        return any(
            each in (kind, EVERYTHING) or (each.endswith(".*") and kind.startswith(each[:-1])) for each in self.events
        )

    def secrets(self, now: float) -> tuple[str, ...]:
        """Give the secrets that sign at a Unix time."""
        return (self.secret, self.former) if self.former and now < self.former_until else (self.secret,)


class WebhookStatus(msgspec.Struct, frozen=True):
    """How a webhook fares: the cursor up to which events were taken or wait in lines, how many lines (messages) there
    are, and what the receiver said last where it takes nothing.
    """

    cursor: int
    lines: int = 0
    last_error: str = ""


class DeadEvent(msgspec.Struct, frozen=True):
    """An event that was not taken for so long that it is not sent any more, until a person replays it.

    `at` is the Unix time of the last of its `attempts`, `body` what was sent.
    """

    cursor: int
    at: float
    attempts: int
    error: str
    body: bytes


def wish_faults(wish: WebhookWish) -> Faults:
    """Say what is wrong with a wish, secrets left out."""
    faults = []
    if wish.url is not None and (wrong := url_fault(wish.url)):
        faults.append(("url", wrong))
    if wish.events is not None:
        if not 0 < len(wish.events) <= MOST_EVENTS:
            faults.append(("events", f"must have 1 to {MOST_EVENTS} types"))
        for number, each in enumerate(wish.events[:MOST_EVENTS]):
            if _PATTERN.fullmatch(each) is None or not _means_something(each):
                faults.append((f"events[{number}]", f'is no type of events; allowed are "*", "message.*", {_types()}'))
    if wish.description is not None and len(wish.description) > MOST_TEXT:
        faults.append(("description", f"has more than {MOST_TEXT} characters"))
    return tuple(faults)


def _types() -> str:
    return ", ".join(f'"{each}"' for each in TYPES)


def _means_something(pattern: str) -> bool:
    return pattern == EVERYTHING or any(
        each == pattern or (pattern.endswith(".*") and each.startswith(pattern[:-1])) for each in TYPES
    )


def url_fault(url: str) -> str:
    """Say what is wrong with a URL that is to be posted to, "" for nothing; the text has nothing of it."""
    if len(url) > MOST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"must be printable ASCII without spaces, at most {MOST_URL} characters"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "must be http://host/path or https://host/path"
    if parts.username is not None or parts.password is not None:
        return "must have no user and password; what is sent is signed"
    return ""


def event_type(event: Event) -> str:
    """Give the type of an event, as "message.relayed"."""
    return f"message.{event.event}"


def payload(event: Event, data: Mapping[str, Any]) -> bytes:
    """Write an event, with what it says, as a webhook's body: type, timestamp and data; the same octets each time."""
    moment = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": event_type(event), "timestamp": moment, "data": mend(data)})


def pause_after(attempts: int, chance: float) -> float | None:
    """Give the seconds until an event is told again after so many attempts, None when it was told often enough.

    `chance` from 0 to 1 spreads them by 10 % either way.
    """
    if attempts >= MOST_ATTEMPTS:
        return None
    return min(FIRST * 2.0 ** (attempts - 1), LONGEST) * (0.9 + 0.2 * chance)


def read_retry_after(text: str, now: float) -> float:
    """Read a Retry-After (RFC 9110 10.2.3) as seconds from a Unix time on, 0 for what is none, a day at most."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MOST_PAUSE)
