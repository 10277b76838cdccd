"""The JSON form of a message: what POST /api/v1/messages takes, and how it is read with every fault named."""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, field

from smarthost.compose.fault import FieldFault, excerpt
from smarthost.mail.envelope import RANKS, Pace, Priority

T = TypeVar("T", bound=msgspec.Struct)

_BY_RANK = MappingProxyType({rank: priority for priority, rank in RANKS.items()})
_WHERE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_BLANK = re.compile(r"[\t\n\r ]+")
_MOST_FAULTS = 50  # that are told: a request may be made of nothing else
_LONGEST_NAME = 60
NOT_RADIX64 = "is not base64 (RFC 4648 4): the standard alphabet with padding is allowed"


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address with the name that is shown for it."""

    email: str
    name: str = ""


class StoredObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object in a store that speaks S3's protocol."""

    bucket: str
    key: str


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attachment; its octets come from exactly one of `content` (base64), `url`, `s3` and `storage_path`.

    `cid` is the name by which the HTML refers to it ("cid:logo"); `disposition` is "attachment" or "inline", "" for
    what follows from the cid; `content_md5` names the content in the cache, in hex.
    """

    filename: str = ""
    content_type: str = ""
    content: bytes | None = None
    url: str | None = None
    s3: StoredObject | None = None
    storage_path: str | None = None
    cid: str = ""
    disposition: str = ""
    content_md5: str = ""


class RetryProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this message is tried, in seconds: the delays between attempts, of which the last repeats, and for how long.

    What is left out is as the relay does it.
    """

    schedule: list[float] = []
    lifetime: float | None = None


Address = str | Named
Addresses = str | Named | list[str | Named]


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message as an application describes it; nothing but the types has been checked.

    `id` is its own name for the message, under which it is sent once only; with `dry_run` nothing is sent at all.
    `template_id` names a template that `variables` fill in, which stands for subject, text and html.
    """

    author: Address = field(name="from", default="")
    to: Addresses = field(default_factory=list)
    cc: Addresses = field(default_factory=list)
    bcc: Addresses = field(default_factory=list)
    reply_to: Addresses = field(default_factory=list)
    subject: str = ""
    text: str = ""
    html: str = ""
    template_id: str = ""
    variables: dict[str, Any] = {}
    headers: dict[str, str] = {}
    attachments: list[Attachment] = []
    tag: str = ""
    priority: Priority | Annotated[int, Meta(ge=0, le=3)] | None = None
    send_at: Annotated[datetime, Meta(tz=True)] | None = None
    route: str = ""
    account_id: str = ""
    metadata: dict[str, Any] = {}
    return_path: str | None = None
    retry: RetryProfile | None = None
    id: Annotated[str, Meta(max_length=200)] = ""
    dry_run: bool = False

    @property
    def urgency(self) -> Priority | None:
        """The priority by its name, None where nothing was said; 0 to 3 are immediate, high, medium and low."""
        return _BY_RANK[self.priority] if type(self.priority) is int else self.priority  # type: ignore[return-value]

    @property
    def release(self) -> float:
        """The Unix time of `send_at`, 0 where nothing was said."""
        return self.send_at.timestamp() if self.send_at is not None else 0.0

    @property
    def pace(self) -> Pace | None:
        """How it is to be tried, None where nothing was said."""
        retry = self.retry
        if retry is None or (not retry.schedule and retry.lifetime is None):
            return None
        return Pace(tuple(retry.schedule), retry.lifetime)


_SUBMISSION = msgspec.json.Decoder(Submission)


def read_submission(octets: bytes) -> Submission | tuple[FieldFault, ...]:
    """Read the JSON form of a message; gives every fault of form and type instead where there is any."""
    try:
        return _SUBMISSION.decode(octets)
    except msgspec.ValidationError:
        return convert_submission(msgspec.json.decode(octets))
    except msgspec.DecodeError as error:
        return (FieldFault("", f"is not JSON: {error}"),)


def convert_submission(value: object) -> Submission | tuple[FieldFault, ...]:
    """Read a message from what JSON was decoded to; gives every fault of form and type where there is any.

    Base64 that is broken into lines, as mail has it, is taken as if it were not.
    """
    if isinstance(value, dict):
        value = _join_radix64(value)
    return convert_fields(value, Submission)


def convert_fields(value: object, form: type[T]) -> T | tuple[FieldFault, ...]:
    """Make a struct of what JSON was decoded to; gives all faults where there is any, not the first one only."""
    if not isinstance(value, dict):
        return (FieldFault("", "is not a JSON object"),)
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError:
        pass  # it says the first fault only
    faults: list[FieldFault] = []
    types = {each.encode_name: each.type for each in msgspec.structs.fields(form)}
    for name, given in value.items():
        if len(faults) >= _MOST_FAULTS:
            break
        if name not in types:
            known = ", ".join(types)
            field = name if len(name) <= _LONGEST_NAME else excerpt(name)
            faults.append(FieldFault(field, f"is not a field; the fields are {known}"))
            continue
        try:
            msgspec.convert(given, types[name])
        except msgspec.ValidationError as error:
            faults.extend(_inner_faults(name, given, types[name], error))
    if faults:
        return tuple(faults)
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        return (_fault_of("", error),)


def _inner_faults(name: str, given: object, form: Any, error: msgspec.ValidationError) -> list[FieldFault]:
    """Give the faults of one field: of a list, those of each of its members."""
    if not isinstance(given, list) or len(given) < 2:
        return [_fault_of(name, error)]
    faults: list[FieldFault] = []
    for place, member in enumerate(given):
        if len(faults) >= _MOST_FAULTS:
            break
        try:
            msgspec.convert([member], form)
        except msgspec.ValidationError as inner:
            fault = _fault_of(name, inner)
            faults.append(FieldFault(fault.field.replace("[0]", f"[{place}]", 1), fault.message))
    return faults or [_fault_of(name, error)]


def _fault_of(name: str, error: msgspec.ValidationError) -> FieldFault:
    """Tell where msgspec found a fault, and what."""
    found = _WHERE.fullmatch(str(error))
    message, inside = (found[1], found[2]) if found else (str(error), "")
    if inside and not inside.startswith("["):
        inside = f".{inside}"
    if "base64" in message:
        message = NOT_RADIX64
    return FieldFault((name + inside).lstrip("."), message[:1].lower() + message[1:])


def _join_radix64(value: dict[str, Any]) -> dict[str, Any]:
    """Take the white space out of base64 contents; what is not base64 stays, for its fault to be found."""
    attachments = value.get("attachments")
    if not isinstance(attachments, list):
        return value
    joined = []
    for each in attachments:
        if isinstance(each, dict) and isinstance(content := each.get("content"), str):
            try:
                each = {**each, "content": a2b_base64(_BLANK.sub("", content), strict_mode=True)}
            except (Base64Error, ValueError):
                pass
        joined.append(each)
    return {**value, "attachments": joined}
