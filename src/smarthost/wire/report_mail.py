"""Reads mail that reports on mail: delivery status notifications (RFC 3464, 6533) and feedback reports (RFC 5965)."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message as Mail
from email.policy import compat32
from itertools import islice

from smarthost.wire.notice import MOST_NOTICES, Notice, NoticeKind, kind_of_status, tidy

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})")
_STATUS_PARTS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_ORIGINAL_PARTS = frozenset({"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"})
_ABUSE = frozenset({"abuse", "fraud", "virus", "other", "opt-out", "opt-out-list", "not-spam"})
_BOUNDARY = re.compile(rb"boundary[ \t*0-9]*=", re.IGNORECASE)
# A report stands before what it returns. Beyond these bounds the parser would take seconds for a mail made to slow it.
_MOST_LINES, _MOST_BOUNDARIES = 10_000, 20
_MOST_PARTS = 50


def read_report(content: bytes, return_path: str = "") -> list[Notice]:
    """Give what a mail reports of each recipient; nothing for mail that is no report, as an answer of a person.

    `return_path` is the address to which the report was sent, by which the message is known; without it the
    Return-Path of the message that is returned stands in its place. What comes late in a long mail is not read.
    """
    mail = message_from_bytes(_begin_of(content), policy=compat32)
    if mail.get_content_type() != "multipart/report":
        return []
    parts = [part for part, _ in zip(_parts(mail), range(_MOST_PARTS), strict=False)]
    returned = next((part for part in parts if part.get_content_type() in _ORIGINAL_PARTS), None)
    original = _original(returned) if returned is not None else Mail()
    came_from = return_path or _address(original.get("Return-Path"))
    message_id = tidy(str(original.get("Message-ID") or ""))
    found: list[Notice] = []
    for part in parts:
        if part.get_content_type() in _STATUS_PARTS:
            found += _statuses(part, came_from, message_id)
        elif part.get_content_type() == "message/feedback-report":
            found += _feedback(part, original, came_from, message_id)
    return found[:MOST_NOTICES]


def _begin_of(content: bytes) -> bytes:
    """Give as much of a mail as is read: up to a number of lines, and of parts within parts."""
    lines = content.split(b"\n", _MOST_LINES)
    if len(lines) > _MOST_LINES:
        content = content[: -len(lines[-1])]
    late = next(islice(_BOUNDARY.finditer(content), _MOST_BOUNDARIES, None), None)
    return content if late is None else content[: late.start()]


def _parts(mail: Mail) -> Iterator[Mail]:
    """Give the parts of a report, without going into the message that it returns."""
    payload = mail.get_payload()
    for part in payload if isinstance(payload, list) else []:
        if isinstance(part, Mail):
            yield part


def _blocks(part: Mail) -> list[Mail]:
    """Give the groups of fields of a part: the parser makes them of a delivery status, and of nothing else."""
    payload = part.get_payload()
    if isinstance(payload, list):
        return [each for each in payload if isinstance(each, Mail)]
    octets = part.get_payload(decode=True)
    text = octets if isinstance(octets, bytes) else b""
    groups = re.split(rb"\r?\n[ \t]*\r?\n", text.strip())
    return [message_from_bytes(group, policy=compat32) for group in groups if group.strip()]


def _statuses(part: Mail, return_path: str, message_id: str) -> list[Notice]:
    found = []
    for block in _blocks(part):
        recipient = _typed(block.get("Final-Recipient")) or _typed(block.get("Original-Recipient"))
        action = tidy(str(block.get("Action") or "")).partition(" ")[0].lower()
        if not recipient or not action:
            continue  # the group of the message, or nothing that means something
        status = _STATUS.search(tidy(str(block.get("Status") or "")))
        name = status[1] if status else ""
        match action:
            case "failed":
                kind = kind_of_status(name, NoticeKind.PERMANENT)
                kind = NoticeKind.PERMANENT if kind is NoticeKind.RELAYED else kind
            case "delayed":
                kind = NoticeKind.TRANSIENT
            case "relayed" | "delivered" | "expanded":
                kind = NoticeKind.RELAYED
            case _:
                continue
        diagnostic = tidy(str(block.get("Diagnostic-Code") or "")).partition(";")[2].strip()
        found.append(Notice(recipient, kind, name, diagnostic, return_path, message_id, action))
    return found


def _feedback(part: Mail, original: Mail, return_path: str, message_id: str) -> list[Notice]:
    blocks = _blocks(part)
    fields = blocks[0] if blocks else Mail()
    category = tidy(str(fields.get("Feedback-Type") or "")).lower()
    if category not in _ABUSE or category == "not-spam":
        return []
    recipients = [_address(each) for each in fields.get_all("Original-Rcpt-To", [])]
    if not any(recipients):
        # Many leave it out or black; then the one to whom the message was addressed is meant, if it is one.
        named = [_address(each) for each in str(original.get("To") or "").split(",")]
        recipients = named if len(named) == 1 else []
    came_from = return_path or _address(fields.get("Original-Mail-From"))
    found = [each for each in recipients if "@" in each]
    return [Notice(each, NoticeKind.COMPLAINT, "", "", came_from, message_id, category) for each in found]


def _original(part: Mail) -> Mail:
    """Give the header of the message that is returned."""
    payload = part.get_payload()
    if isinstance(payload, list) and payload and isinstance(payload[0], Mail):
        return payload[0]
    octets = part.get_payload(decode=True)
    return message_from_bytes(octets if isinstance(octets, bytes) else b"", policy=compat32)


def _typed(field: object) -> str:
    """Give the address of "rfc822; a@b" or "utf-8; a@b"; "" for another type."""
    kind, _, address = tidy(str(field or "")).partition(";")
    return _address(address) if kind.strip().lower() in ("rfc822", "utf-8") else ""


def _address(field: object) -> str:
    """Give the address of a field that has one, in brackets or not."""
    text = tidy(str(field or ""))
    inner = re.search(r"<([^<>]*)>", text)
    return (inner[1] if inner else text).strip()
