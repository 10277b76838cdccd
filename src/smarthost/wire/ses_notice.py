"""Reads what Amazon SES says of bounces and complaints: its notifications, its events, and the bare bounce object."""

import re
from typing import Any

import msgspec

from smarthost.wire.notice import MOST_NOTICES, Notice, NoticeKind, tidy

_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


def read_ses(body: bytes) -> list[Notice]:
    """Give what a document says of each recipient, nothing for other documents; raises ValueError for what is no JSON.

    `bounceType` decides whether a bounce is permanent: SES gives permanent ones also for addresses on its own list.
    """
    told = msgspec.json.decode(body)
    if not isinstance(told, dict):
        return []
    mail = _object(told.get("mail"))
    return_path, message_id = tidy(mail.get("source")), _message_id(mail)
    found = _bounces(_object(told.get("bounce"))) + _complaints(_object(told.get("complaint")))
    return [
        msgspec.structs.replace(each, return_path=return_path, message_id=message_id) for each in found[:MOST_NOTICES]
    ]


def _bounces(bounce: dict[str, Any]) -> list[Notice]:
    is_permanent = tidy(bounce.get("bounceType")).lower() == "permanent"
    kind = NoticeKind.PERMANENT if is_permanent else NoticeKind.TRANSIENT
    category = "/".join(filter(None, (tidy(bounce.get(key)) for key in ("bounceType", "bounceSubType"))))
    found = []
    for each in _list(bounce.get("bouncedRecipients")):
        recipient = each if isinstance(each, str) else tidy(_object(each).get("emailAddress"))
        status = tidy(_object(each).get("status"))
        diagnostic = tidy(_object(each).get("diagnosticCode"))
        if recipient:
            status = status if _STATUS.fullmatch(status) else ""
            found.append(Notice(recipient, kind, status, diagnostic, category=category))
    return found


def _complaints(complaint: dict[str, Any]) -> list[Notice]:
    category = tidy(complaint.get("complaintFeedbackType")) or tidy(complaint.get("complaintSubType"))
    found = []
    for each in _list(complaint.get("complainedRecipients")):
        recipient = each if isinstance(each, str) else tidy(_object(each).get("emailAddress"))
        if recipient:
            found.append(Notice(recipient, NoticeKind.COMPLAINT, category=category))
    return found


def _message_id(mail: dict[str, Any]) -> str:
    """Give the Message-ID that the application wrote, where SES passes headers on; its own id is another one."""
    return tidy(_object(mail.get("commonHeaders")).get("messageId"))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
