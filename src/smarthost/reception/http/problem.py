"""Problems: every error of the HTTP door as one document (RFC 9457), and what an SMTP refusal is in HTTP."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.mail.reply import Reply

CONTENT_TYPE = b"application/problem+json"
DISK_PATIENCE, STOP_PATIENCE = 60, 5  # seconds after which a client may come again
_log = logging.getLogger(__name__)
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field: its path ("to[2]", "" for the whole) and a sentence."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457); `errors` are the fields at fault."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()


class Refused(Exception):
    """A request that is refused, as a problem document; `headers` go with it."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str = "",
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        """Keep HTTP's status, a sentence, and the fields at fault."""
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers
        self.title = title or HTTPStatus(status).phrase
        self.errors = tuple(FieldError(field, message) for field, message in errors)

    def encode(self) -> bytes:
        """Write the document."""
        return msgspec.json.encode(Problem("about:blank", self.title, self.status, self.detail, self.errors))


def crashed(error: Exception) -> Refused:
    """Log an error of ours, and give what is said of it. Its text is told nobody: it may quote what the client said."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("an HTTP request failed: %s\n%s", type(error).__name__, where)
    return Refused(500, "the log has the reason")


def no_caller() -> Refused:
    """Say that a request needs a key, and brought none that is good."""
    detail = "this needs an API key that is valid: Authorization: Bearer sh_..., or X-API-Token"
    return Refused(401, detail, headers={"WWW-Authenticate": 'Bearer realm="smarthost"'})


def not_found(what: str) -> Refused:
    """Say that a tenant has no such thing; of another tenant's the same is said."""
    return Refused(404, f"there is no such {what}")


def wrong_fields(faults: Sequence[FieldFault]) -> Refused:
    """Say everything that is wrong with the content of a request; one that is no JSON at all is 400."""
    if len(faults) == 1 and not faults[0].field and faults[0].message.startswith("is not JSON"):
        return Refused(400, f"the content {faults[0].message}")
    detail = "; ".join(f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults[:5])
    return Refused(422, detail, errors=[(fault.field, fault.message) for fault in faults])


def too_many(seconds: float, detail: str) -> Refused:
    """Say that a rate is used up, and when it is not."""
    return Refused(429, detail, headers={"Retry-After": str(max(int(seconds + 0.999), 1))})


def stopping() -> Refused:
    """Say that the relay stops."""
    return Refused(503, "the relay is stopping", headers={"Retry-After": str(STOP_PATIENCE)})


def disk_full() -> Refused:
    """Say that nothing can be stored."""
    return Refused(503, "there is not enough storage", headers={"Retry-After": str(DISK_PATIENCE)})


def refusal_of(reply: Reply) -> Refused:
    """Give what an SMTP refusal of a message is in HTTP."""
    detail = f"{reply.code} {reply.status} {reply.text}"
    if reply.code == 452 and reply.status.subject == 3:
        return disk_full()
    if reply.code == 450 and reply.status.subject == 7:
        return too_many(60, detail)
    if reply.code == 552 and reply.status.subject == 3:
        return Refused(413, detail)
    if reply.status.subject == 7:
        return Refused(403, detail)
    if reply.code < 500:
        return Refused(503, detail, headers={"Retry-After": str(STOP_PATIENCE)})
    return Refused(422, detail, title="Message refused")
