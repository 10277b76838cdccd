"""Reads what an application asks of us in the header: the X-Smarthost fields, which never leave the relay."""

import re
from collections.abc import Iterable
from datetime import datetime

import msgspec

from smarthost.mail.envelope import Priority
from smarthost.mail.reply import Reply, make_reply
from smarthost.wire.header import Field, field_value

PREFIX = b"x-smarthost-"
_LAST_YEAR = 2999  # of a send-at time: the expiry that is counted from it has to be a date, too
_KEY = re.compile(r"[^\x00-\x1f\x7f\ufffd]{1,255}")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PRIORITIES = frozenset(each.value for each in Priority)


class Wishes(msgspec.Struct, gc=False):
    """What the fields say; "", None and 0.0 where there is none. `send_at` is a Unix time, `route` a route's name,
    `key` the one under which the message is sent once.
    """

    tag: str = ""
    priority: Priority | None = None
    send_at: float = 0.0
    route: str = ""
    key: str = ""


def read_wishes(fields: Iterable[Field]) -> Wishes | Reply:
    """Read the X-Smarthost fields of a header section; a value that cannot be read refuses the message (554 5.6.0)."""
    wishes = Wishes()
    for name, raw in fields:
        if not name.startswith(PREFIX):
            continue
        value = field_value(raw).decode("utf-8", "replace")
        if name == b"x-smarthost-tag":
            if _TAG.fullmatch(value) is None:
                return _refuse("X-Smarthost-Tag: up to 64 letters, digits, dots, dashes are allowed")
            wishes.tag = value
        elif name == b"x-smarthost-priority":
            if value.lower() not in _PRIORITIES:
                return _refuse("X-Smarthost-Priority: immediate, high, medium or low are allowed")
            wishes.priority = Priority(value.lower())
        elif name == b"x-smarthost-send-at":
            wishes.send_at = _read_time(value)
            if not wishes.send_at:
                return _refuse("X-Smarthost-Send-At: an RFC 3339 time with a zone is allowed")
        elif name == b"x-smarthost-route":
            wishes.route = value
        elif name == b"x-smarthost-idempotency-key":
            if _KEY.fullmatch(value) is None:
                return _refuse("X-Smarthost-Idempotency-Key: 1 to 255 printable characters are allowed")
            wishes.key = value
    return wishes


def _refuse(text: str) -> Reply:
    return make_reply(554, "5.6.0", text)


def _read_time(text: str) -> float:
    """Read an RFC 3339 time as a Unix time; 0.0 when it is none."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return when.timestamp() if when.tzinfo is not None and when.year <= _LAST_YEAR else 0.0
