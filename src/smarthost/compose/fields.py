"""Checks the subject and the header fields that a request sets itself."""

import re
from types import MappingProxyType

from smarthost.compose.fault import FieldFault, excerpt
from smarthost.compose.mailbox import CONTROL

MAX_WORD = 900  # characters without white space, which cannot be folded: a line has 998 at most (RFC 5322 2.1.1)
_MOST_FIELDS = 100
_LONGEST_VALUE = 8192
_LONGEST_NAME = 76
_NAME = re.compile(r"[!-9;-~]+")  # ftext, RFC 5322 3.6.8
_LONG_WORD = re.compile(rf"[^ \t]{{{MAX_WORD + 1}}}")
_MSG_ID = re.compile(r"<[^<>@\s]+@[^<>@\s]+>")

_OF_MIME = "is written from text, html and attachments"
_OF_RELAYS = "is for relays to write"
_OF_FIELD = "has a field of its own in the request: "
# Why a field is not the request's to set.
_FORBIDDEN = MappingProxyType(
    {
        "from": _OF_FIELD + "from",
        "to": _OF_FIELD + "to",
        "cc": _OF_FIELD + "cc",
        "bcc": _OF_FIELD + "bcc; it is never written into the message",
        "reply-to": _OF_FIELD + "reply_to",
        "subject": _OF_FIELD + "subject",
        "return-path": _OF_FIELD + "return_path",
        "date": "is the time of acceptance; send_at says when to send",
        "mime-version": _OF_MIME,
        "received": _OF_RELAYS,
        "delivered-to": _OF_RELAYS,
        "dkim-signature": _OF_RELAYS,
        "authentication-results": _OF_RELAYS,
        "x-smarthost-tag": _OF_FIELD + "tag",
        "x-smarthost-priority": _OF_FIELD + "priority",
        "x-smarthost-send-at": _OF_FIELD + "send_at",
    }
)
_FORBIDDEN_FAMILIES = (
    ("content-", _OF_MIME),
    ("arc-", _OF_RELAYS),
    ("resent-", "is for people who send on what they received"),
    ("x-smarthost-", "is for the relay's own use"),
)
# Fields whose values are not free text, so that an encoded word would change what they say (RFC 2047 5).
_IN_ASCII = frozenset(
    {
        "auto-submitted",
        "disposition-notification-to",
        "feedback-id",
        "importance",
        "in-reply-to",
        "list-archive",
        "list-help",
        "list-owner",
        "list-post",
        "list-subscribe",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "message-id",
        "precedence",
        "references",
        "sender",
    }
)


def check_subject(subject: str, most: int, faults: list[FieldFault]) -> None:
    """Check the length of a subject, and that it is one line."""
    if len(subject) > most:
        faults.append(FieldFault("subject", f"has {len(subject)} characters; {most} are allowed"))
    if CONTROL.search(subject):
        faults.append(FieldFault("subject", "has a line break or another control character"))


def check_headers(headers: dict[str, str], faults: list[FieldFault]) -> tuple[tuple[str, str], ...]:
    """Check header fields and give them in their order; faults are under "headers.NAME"."""
    if len(headers) > _MOST_FIELDS:
        faults.append(FieldFault("headers", f"has {len(headers)} fields; {_MOST_FIELDS} are allowed"))
        return ()
    seen: set[str] = set()
    for name, value in headers.items():
        wrong = _wrong_name(name) or _wrong_value(name.lower(), value)
        if name.lower() in seen:
            wrong = wrong or "is there twice; upper and lower case are one"
        seen.add(name.lower())
        if wrong:
            faults.append(FieldFault(f"headers.{name if len(name) <= _LONGEST_NAME else excerpt(name)}", wrong))
    return tuple(headers.items())


def _wrong_name(name: str) -> str:
    """Say why a field of this name cannot be set, "" if it can."""
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
        return f"is not a field name (RFC 5322 3.6.8): up to {_LONGEST_NAME} printable ASCII characters without a colon"
    folded = name.lower()
    why = _FORBIDDEN.get(folded, "")
    if not why:
        why = next((reason for start, reason in _FORBIDDEN_FAMILIES if folded.startswith(start)), "")
    return f"cannot be set: {name} {why}" if why else ""


def _wrong_value(name: str, value: str) -> str:
    """Say what is wrong with a value, "" if nothing is."""
    if CONTROL.search(value):
        return "has a line break or another control character"
    if len(value) > _LONGEST_VALUE:
        return f"has {len(value)} characters; {_LONGEST_VALUE} are allowed"
    if name in _IN_ASCII and not value.isascii():
        return "has characters beyond ASCII, which this field cannot have"
    if value.isascii() and _LONG_WORD.search(value):
        return f"has a word of more than {MAX_WORD} characters, which no line of a header can hold"
    if name == "message-id" and _MSG_ID.fullmatch(value.strip()) is None:
        return "is not of the form <name@domain> (RFC 5322 3.6.4)"
    return ""
