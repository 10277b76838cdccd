"""Faults: every way in which a call can end without an answer, as exceptions that can be told apart and pickled."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request: its path ("to[2]", "" for the whole) and a sentence."""

    field: str = ""
    message: str = ""


class Problem(msgspec.Struct, frozen=True):
    """What the relay says of a request that it refused (RFC 9457)."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class SmarthostError(Exception):
    """A call that has no answer."""


class Unreachable(SmarthostError):
    """The relay could not be asked, or its answer was lost. `may_be_done` says whether it may have done it."""

    def __init__(self, detail: str, may_be_done: bool) -> None:
        """Keep a sentence, which has nothing in it that is secret."""
        super().__init__(detail, may_be_done)
        self.detail, self.may_be_done = detail, may_be_done

    def __str__(self) -> str:
        """Say what happened, and what is not known."""
        return f"{self.detail}; it may have been done all the same" if self.may_be_done else self.detail


class TimedOut(Unreachable):
    """The relay did not answer in time."""


class Untrusted(Unreachable):
    """The relay's certificate is not one that is trusted: nothing was said to it."""


class Unreadable(SmarthostError):
    """An answer that is not the API's: something else than the relay has answered, or a relay that is too new."""


class ApiError(SmarthostError):
    """A request that the relay refused.

    `retry_after` is for how many seconds it wants to be left alone, None where it does not say.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        """Keep what was said."""
        super().__init__(problem, retry_after)
        self.problem, self.retry_after = problem, retry_after

    @property
    def status(self) -> int:
        """HTTP's status code."""
        return self.problem.status

    @property
    def title(self) -> str:
        """The kind of problem, in a word or two."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What is wrong, in a sentence."""
        return self.problem.detail

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """The fields at fault, if that is it."""
        return self.problem.errors

    def __str__(self) -> str:
        """Say status, title and detail."""
        said = f"{self.status} {self.title}".strip()
        return f"{said}: {self.detail}" if self.detail else said


class BadRequest(ApiError):
    """400: what the relay cannot read."""


class Unauthorized(ApiError):
    """401: no API key, or one that is not good (any more)."""


class Forbidden(ApiError):
    """403: the key lacks the scope, or the sender or the route is not the tenant's to use."""


class NotFound(ApiError):
    """404: the tenant has no such thing."""


class Conflict(ApiError):
    """409: an Idempotency-Key or an id with another content, or something that is not so (any more)."""


class TooLarge(ApiError):
    """413: more than a request or a message may have."""


class Invalid(ApiError):
    """422: a request that cannot be done as it is; `errors` says which fields are at fault."""


class TooMany(ApiError):
    """429: a rate or limit is used up."""


class ServerError(ApiError):
    """5xx: the relay, or something before it, has failed."""


class Unavailable(ServerError):
    """503: the disk is full, or the relay stops."""


_KINDS: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        400: BadRequest,
        401: Unauthorized,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        413: TooLarge,
        422: Invalid,
        429: TooMany,
        503: Unavailable,
    }
)


def refusal(status: int, octets: bytes, retry_after: float | None) -> ApiError:
    """Make the exception of an answer; one that is no problem document has at least its status."""
    try:
        problem = msgspec.json.decode(octets, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = Problem()
    title = problem.title or _phrase(status)
    kind = _KINDS.get(status, ServerError if status >= 500 else ApiError)
    return kind(msgspec.structs.replace(problem, status=status, title=title), retry_after)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
