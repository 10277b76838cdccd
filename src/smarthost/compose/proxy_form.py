"""The JSON that clients of a mail proxy send (`/messages/add`, `/commands/add-messages`), read as our own form."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.submission import Submission, convert_submission

_SAME = ("from", "to", "cc", "bcc", "reply_to", "return_path", "subject", "headers", "account_id")
_ATTACHED = frozenset({"filename", "storage_path", "mime_type", "content_type", "fetch_mode", "content_md5"})
_MODES = ("base64", "http_url", "filesystem", "endpoint")
_LAST = 32_000_000_000.0  # a Unix time in the year 2984
# How a fault of our form is named in theirs.
_THEIRS = (
    (re.compile(r"^(?:text|html)\b"), "body"),
    (re.compile(r"^send_at\b"), "deferred_ts"),
    (re.compile(r"^headers\.Message-ID$"), "message_id"),
    (re.compile(r"^(attachments\[\d+\])\.(?:content|url)$"), r"\1.storage_path"),
    (re.compile(r"^(attachments\[\d+\])\.content_type$"), r"\1.mime_type"),
)


class ProxyMessage(msgspec.Struct, frozen=True):
    """One message: the id that the client gave it, its batch or "", and what it says."""

    id: str
    batch_code: str
    submission: Submission


def read_proxy_message(value: object, default_priority: int | str | None = None) -> ProxyMessage | list[FieldFault]:
    """Read a message from what JSON was decoded to; gives its faults by the proxy's names of the fields."""
    if not isinstance(value, dict):
        return [FieldFault("", "is not a JSON object")]
    # What is no field is passed over, as the proxy does: its clients send some of their own.
    faults: list[FieldFault] = []
    name = value.get("id")
    if not isinstance(name, str) or not name or len(name) > 255:
        faults.append(FieldFault("id", "1 to 255 characters are needed"))
    batch = value.get("batch_code") or ""
    if not isinstance(batch, str) or len(batch) > 255 or not batch.isprintable():
        faults.append(FieldFault("batch_code", "is not a text of at most 255 characters"))
    form = _form_of(value, default_priority, faults)
    found = convert_submission(form)
    if isinstance(found, tuple):
        faults.extend(in_proxy_words(found))
    if faults or isinstance(found, tuple):
        return faults
    return ProxyMessage(str(name), str(batch), found)


def in_proxy_words(faults: tuple[FieldFault, ...]) -> list[FieldFault]:
    """Give faults of our form under the names that the proxy's clients know."""
    renamed = []
    for fault in faults:
        field = fault.field
        for pattern, theirs in _THEIRS:
            field = pattern.sub(theirs, field)
        renamed.append(FieldFault(field, fault.message))
    return renamed


def _form_of(value: dict[str, Any], default_priority: int | str | None, faults: list[FieldFault]) -> dict[str, Any]:
    """Give the fields of our form; null is what was not said."""
    form = {name: value[name] for name in _SAME if value.get(name) is not None}
    if "from" not in form and value.get("from_addr") is not None:
        form["from"] = value["from_addr"]
    kind = value.get("content_type") or "plain"
    if kind not in ("plain", "html"):
        faults.append(FieldFault("content_type", "is neither plain nor html"))
    form["html" if kind == "html" else "text"] = value.get("body") or ""
    priority = value.get("priority") if value.get("priority") is not None else default_priority
    if priority is not None:
        form["priority"] = priority
    if value.get("message_id") and isinstance(form.get("headers", {}), dict):
        form["headers"] = {**form.get("headers", {}), "Message-ID": value["message_id"]}
    when = value.get("deferred_ts")
    if isinstance(when, int | float) and not isinstance(when, bool) and 0 <= when < _LAST:
        if when > 0:
            form["send_at"] = datetime.fromtimestamp(when, UTC)
    elif when is not None:
        faults.append(FieldFault("deferred_ts", "is not a Unix time in seconds"))
    attachments = value.get("attachments")
    if isinstance(attachments, list):
        form["attachments"] = [_attachment(each, place, faults) for place, each in enumerate(attachments)]
    elif attachments is not None:
        faults.append(FieldFault("attachments", "is not a list"))
    return form


def _attachment(value: object, place: int, faults: list[FieldFault]) -> dict[str, Any]:
    """Give an attachment in our form; how to have its content follows from `storage_path` where that is not said."""
    path = f"attachments[{place}]"
    form: dict[str, Any] = {}
    if not isinstance(value, dict):
        faults.append(FieldFault(path, "is not a JSON object"))
        return form
    faults.extend(FieldFault(f"{path}.{name}", "is not a field") for name in value if name not in _ATTACHED)
    kind = "content_type" if value.get("mime_type") is None else "mime_type"
    for ours, theirs in (("filename", "filename"), ("content_type", kind), ("content_md5", "content_md5")):
        if value.get(theirs) is not None:
            form[ours] = value[theirs]
    where = value.get("storage_path")
    if not isinstance(where, str) or not where:
        faults.append(FieldFault(f"{path}.storage_path", "is missing"))
        return form
    mode = value.get("fetch_mode") or _mode_of(where)
    if mode == "base64":
        form["content"] = where.removeprefix("base64:")
    elif mode == "http_url":
        form["url"] = where
    elif mode == "filesystem":
        form["storage_path"] = where
    elif mode == "endpoint":
        wrong = "an attachment endpoint is not supported; base64, http_url and filesystem are"
        faults.append(FieldFault(f"{path}.storage_path", wrong))
    else:
        faults.append(FieldFault(f"{path}.fetch_mode", f"is none of {', '.join(_MODES)}"))
    return form


def _mode_of(where: str) -> str:
    if where.startswith("base64:"):
        return "base64"
    if where.startswith(("http://", "https://")):
        return "http_url"
    return "filesystem" if where.startswith("/") else "endpoint"
