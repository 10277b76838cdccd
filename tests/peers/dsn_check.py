"""A strict reader of reports: RFC 6522, 3464 and 6533 as their grammars say, without a line of the code under test."""

import quopri
import re
from typing import NamedTuple

_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"\d\d:\d\d:\d\d [+-]\d{4}"
)
_TYPED = re.compile(r"([A-Za-z0-9\-]+); *(\S.*)", re.DOTALL)
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_FIELD = re.compile(r"([!-9;-~]+):(?: (.*))?", re.DOTALL)
_DOMAIN = re.compile(r"[A-Za-z0-9_\-.]+|\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]", re.IGNORECASE)
_MOST = 998  # octets of a line, RFC 5322 2.1.1

# In the order of the grammars, RFC 3464 2.2 and 2.3; what must be there has "!".
OF_MESSAGE = ("original-envelope-id", "!reporting-mta", "dsn-gateway", "received-from-mta", "arrival-date")
OF_RECIPIENT = (
    "original-recipient",
    "!final-recipient",
    "!action",
    "!status",
    "remote-mta",
    "diagnostic-code",
    "last-attempt-date",
    "final-log-id",
    "will-retry-until",
)
_ADDRESSES = frozenset({"original-recipient", "final-recipient"})
_HOSTS = frozenset({"reporting-mta", "received-from-mta", "remote-mta", "dsn-gateway"})
_DATES = frozenset({"arrival-date", "last-attempt-date", "will-retry-until"})
_CLASSES = {"failed": "45", "delayed": "4", "relayed": "2", "delivered": "2", "expanded": "2"}


class Report(NamedTuple):
    """A report that follows the grammars: header, text for people, fields of the message and of each recipient."""

    header: dict[str, str]
    text: str
    message: dict[str, str]
    recipients: list[dict[str, str]]
    original_type: str
    original: bytes
    is_global: bool


def read_report(octets: bytes) -> Report:
    """Read a report; raises AssertionError for whatever the RFCs do not allow."""
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n"), "a line end that is not CRLF"
    assert max(map(len, octets.split(b"\r\n"))) <= _MOST
    head, body = octets.split(b"\r\n\r\n", 1)
    header = fields_of(head.decode())
    kind, boundary, is_global = _read_type(header["content-type"])
    assert kind == "multipart/report"
    assert header["auto-submitted"].startswith("auto-")  # RFC 3834 5
    assert header["mime-version"] == "1.0"
    for name in ("date", "from", "to", "subject", "message-id"):
        assert header[name], name
    assert _DATE.fullmatch(header["date"])
    text, status, original = split_parts(body, boundary)
    if header.get("content-transfer-encoding") != "8bit":
        assert body.isascii()
    kinds = [part[0]["content-type"].partition(";")[0] for part in (text, status, original)]
    assert kinds[0] == "text/plain"
    assert kinds[1] == ("message/global-delivery-status" if is_global else "message/delivery-status")
    allowed = {"message/global", "message/global-headers"} if is_global else {"message/rfc822", "text/rfc822-headers"}
    assert kinds[2] in allowed
    contents = [_decode(*part) for part in (text, status, original)]
    message, recipients = read_status(contents[1].decode(), is_global)
    return Report(header, contents[0].decode(), message, recipients, kinds[2], contents[2], is_global)


def read_status(text: str, is_global: bool) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Read the part for programs: groups of fields with one empty line between them."""
    if not is_global:
        assert text.isascii(), "RFC 3464 2.1.1: 7-bit"
    groups = text.strip("\r\n").split("\r\n\r\n")
    assert len(groups) >= 2, "RFC 3464 2.1: at least one recipient"
    message, *recipients = (fields_of(group) for group in groups)
    _check_group(message, OF_MESSAGE)
    for recipient in recipients:
        _check_group(recipient, OF_RECIPIENT)
        _check_recipient(recipient, is_global)
    return message, recipients


def fields_of(head: str) -> dict[str, str]:
    """Read fields, unfolded, each of them once."""
    fields: dict[str, str] = {}
    for line in re.sub(r"\r\n(?=[ \t])", "", head).split("\r\n"):
        found = _FIELD.fullmatch(line)
        assert found is not None, line
        name = found[1].lower()
        assert name not in fields, f"{name} stands twice"
        fields[name] = (found[2] or "").strip()
    return fields


def split_parts(body: bytes, boundary: str) -> list[tuple[dict[str, str], bytes]]:
    """Split a multipart body of three parts (RFC 2046 5.1.1, RFC 6522 3)."""
    mark = b"--" + boundary.encode()
    assert body.endswith(b"\r\n" + mark + b"--\r\n")
    pieces = body[: -len(mark) - 6].split(b"\r\n" + mark + b"\r\n")
    assert len(pieces) == 4, "preamble and three parts"
    parts = []
    for piece in pieces[1:]:
        head, content = piece.split(b"\r\n\r\n", 1)
        parts.append((fields_of(head.decode()), content))
    return parts


def _read_type(value: str) -> tuple[str, str, bool]:
    kind, *parameters = (word.strip() for word in value.split(";"))
    named = dict(parameter.split("=", 1) for parameter in parameters)
    assert named["report-type"] in ("delivery-status", "global-delivery-status")
    boundary = re.fullmatch(r'"([^"]{1,70})"', named["boundary"])
    assert boundary is not None
    return kind, boundary[1], named["report-type"].startswith("global")


def _decode(header: dict[str, str], content: bytes) -> bytes:
    encoding = header.get("content-transfer-encoding", "7bit")
    assert encoding in ("7bit", "8bit", "quoted-printable")
    if encoding != "8bit":
        assert content.isascii()
    return quopri.decodestring(content) if encoding == "quoted-printable" else content


def _check_group(fields: dict[str, str], order: tuple[str, ...]) -> None:
    names = [name.lstrip("!") for name in order]
    for name in order:
        if name.startswith("!"):
            assert name[1:] in fields, f"{name[1:]} is missing"
    known = [name for name in fields if name in names]
    assert known == sorted(known, key=names.index), "fields out of their order"
    others = [name for name in fields if name not in names]
    assert all(name.startswith("x-") for name in others), others
    assert list(fields) == known + others, "extensions stand last"
    for name, value in fields.items():
        assert value, f"{name} is empty"
        if name in _HOSTS:
            typed = _TYPED.fullmatch(value)
            assert typed is not None and typed[1] == "dns" and _DOMAIN.fullmatch(typed[2]), value
        elif name in _DATES:
            assert _DATE.fullmatch(value), value


def _check_recipient(fields: dict[str, str], is_global: bool) -> None:
    for name in _ADDRESSES & set(fields):
        typed = _TYPED.fullmatch(fields[name])
        assert typed is not None, fields[name]
        if typed[1] == "rfc822":
            assert typed[2].isascii(), "RFC 6533 3: rfc822 is ASCII"
        if typed[1] == "utf-8" and not is_global:
            assert typed[2].isascii(), "RFC 6533 3: utf-8-addr-xtext"
    assert fields["action"] in _CLASSES
    assert _STATUS.fullmatch(fields["status"]) and fields["status"][0] in _CLASSES[fields["action"]]
    if "diagnostic-code" in fields:
        assert _TYPED.fullmatch(fields["diagnostic-code"]), fields["diagnostic-code"]
    if "will-retry-until" in fields:
        assert fields["action"] == "delayed", "RFC 3464 2.3.9"
