"""Trial: one call and its attempts: which are made, when, and always under the same Idempotency-Key; no socket."""

import logging
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from random import Random
from secrets import token_urlsafe
from typing import Any, Generic, TypeVar

import msgspec

from smarthost.client.call import Call, Content
from smarthost.client.faults import ApiError, Unreachable, Untrusted, refusal
from smarthost.client.settings import Retries, Settings

T = TypeVar("T")

PREFIX = "/api/v1"
_NOT_DONE = frozenset({429, 503})  # the relay itself says so: nothing has happened
_NOT_SURE = frozenset({502, 504})  # a proxy says so, which has lost the answer
_PROBLEM = "application/problem+json"
_SPREAD = 0.1  # of what Retry-After says, added by chance, so that not all come at once
_log = logging.getLogger("smarthost.client")


class Prepared(msgspec.Struct, frozen=True):
    """A request as it is sent. Its headers have the API key: it is never shown."""

    method: str
    target: str
    headers: Mapping[str, str]
    content: Content | None
    timeout: float  # seconds for which the relay may be silent

    def __repr__(self) -> str:
        """Show what may be shown."""
        return f"Prepared({self.method} {self.target.partition('?')[0]})"


class Answer(msgspec.Struct, frozen=True):
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Trial(Generic[T]):
    """The attempts at one call. Ask with `request`; then `heard` or `broke` says for how long to wait, if at all."""

    def __init__(self, call: Call[T], settings: Settings, chance: Random) -> None:
        """Prepare the request, once for all attempts."""
        self._call, self._retries, self._chance = call, settings.retries, chance
        self._left = settings.retries.attempts - 1
        self.request = prepare(call, settings)

    def heard(self, answer: Answer, now: float) -> float | None:
        """Weigh an answer: None is that `read` has it, else wait for seconds and ask again. Raises ApiError."""
        is_problem = answer.headers.get("content-type", "").startswith(_PROBLEM)
        if answer.status // 100 == 2 or (answer.status in self._call.expected and not is_problem):
            return None
        wanted = retry_after(answer.headers, now)
        refused = refusal(answer.status, answer.content, wanted)
        if answer.status in _NOT_DONE or (answer.status in _NOT_SURE and self._may_repeat):
            return self._wait(refused, wanted)
        raise refused

    def broke(self, fault: Unreachable) -> float:
        """Weigh a connection that broke: give for how many seconds to wait. Raises the fault where it is over."""
        if isinstance(fault, Untrusted) or (fault.may_be_done and not self._may_repeat):
            raise fault
        return self._wait(fault, None)

    def read(self, answer: Answer) -> T:
        """Read the answer; raises Unreadable."""
        return self._call.read(answer.content)

    @property
    def _may_repeat(self) -> bool:
        return self._call.repeats or self._call.key is not None

    def _wait(self, reason: ApiError | Unreachable, wanted: float | None) -> float:
        retries = self._retries
        if self._left <= 0 or (wanted is not None and wanted > retries.longest_wait):
            raise reason
        made = retries.attempts - self._left
        self._left -= 1
        if wanted is None:
            seconds = backoff(retries, made, self._chance)
        else:
            seconds = wanted * (1.0 + _SPREAD * self._chance.random())
        # The path without its query, which has people's addresses.
        what = f"{self._call.method} {self._call.path}"
        _log.info("%s is asked again in %.1f s, for the %d. time: %s", what, seconds, made, _short(reason))
        return seconds


def prepare(call: Call[Any], settings: Settings) -> Prepared:
    """Write a request with all its headers."""
    headers = dict(settings.headers())
    if call.content is not None:
        headers["Content-Type"] = call.content.media_type
        if call.content.size is not None:
            headers["Content-Length"] = str(call.content.size)
    elif call.method == "POST":
        headers["Content-Length"] = "0"
    if call.key is not None:
        headers["Idempotency-Key"] = call.key or token_urlsafe(24)
    target, timeout = settings.place.path + PREFIX + call.target, max(settings.timeout, call.patience)
    return Prepared(call.method, target, headers, call.content, timeout)


def backoff(retries: Retries, made: int, chance: Random) -> float:
    """Give the seconds to wait after some attempts: doubled each time, and between a half and the whole by chance."""
    longest = min(retries.first_wait * 2.0 ** (made - 1), retries.longest_wait)
    return longest * (0.5 + 0.5 * chance.random())


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read Retry-After (RFC 9110 10.2.3), seconds or a date, as seconds from now; None where there is none."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit() and len(said) < 10:
        return float(said)
    try:
        return max(parsedate_to_datetime(said).timestamp() - now, 0.0) if said else None
    except ValueError:
        return None


def _short(reason: ApiError | Unreachable) -> str:
    return f"{reason.status} {reason.title}" if isinstance(reason, ApiError) else reason.detail
