"""What clients of a mail proxy send is read as our own form, and faults come back under their names."""

from typing import Any

import pytest

from smarthost.compose.fault import FieldFault
from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.proxy_form import ProxyMessage, in_proxy_words, read_proxy_message
from smarthost.mail.envelope import Priority

MESSAGE = {
    "id": "MSG-001",
    "account_id": "acc-1",
    "from": "sender@example.com",
    "to": ["dest@example.com"],
    "subject": "Hello",
    "body": "Plain text body",
}


def read(**changed: object) -> ProxyMessage:
    """Read a message that has no fault."""
    found = read_proxy_message({**MESSAGE, **changed})
    assert isinstance(found, ProxyMessage), found
    return found


def faults(**changed: object) -> dict[str, str]:
    """Give the faults of a message by their fields."""
    found = read_proxy_message({**MESSAGE, **changed})
    assert isinstance(found, list), found
    return {fault.field: fault.message for fault in found}


def test_a_whole_message_is_read() -> None:
    """Every field of the proxy's document has its place; null is what was not said."""
    found = read(
        content_type="html",
        priority=1,
        deferred_ts=1728470400,
        batch_code="b7",
        cc="a@example.org, b@example.org",
        bcc=None,
        message_id="<m@example.com>",
        headers={"X-A": "1"},
        return_path="r@example.com",
        tenant_id="acme",
        colour="of the client's own",
    )
    submission = found.submission
    assert (found.id, found.batch_code, submission.account_id) == ("MSG-001", "b7", "acc-1")
    assert (submission.html, submission.text, submission.urgency) == ("Plain text body", "", Priority.HIGH)
    assert submission.release == 1728470400.0
    assert submission.headers == {"X-A": "1", "Message-ID": "<m@example.com>"}
    letter = check_submission(submission, SubmissionLimits())
    assert isinstance(letter, Letter) and len(letter.recipients) == 3 and letter.reverse_path == "r@example.com"


def test_priority_may_be_a_default() -> None:
    """The batch's default is for messages that say nothing."""
    found = read_proxy_message(MESSAGE, 0)
    assert isinstance(found, ProxyMessage) and found.submission.urgency is Priority.IMMEDIATE
    found = read_proxy_message({**MESSAGE, "priority": "low"}, 0)
    assert isinstance(found, ProxyMessage) and found.submission.urgency is Priority.LOW


@pytest.mark.parametrize(
    ("attachment", "field", "value"),
    [
        ({"storage_path": "base64:aGVsbG8="}, "content", b"hello"),
        ({"storage_path": "aGVsbG8=", "fetch_mode": "base64"}, "content", b"hello"),
        ({"storage_path": "https://cdn.example.com/a.pdf"}, "url", "https://cdn.example.com/a.pdf"),
        ({"storage_path": "/data/docs/a.pdf"}, "storage_path", "/data/docs/a.pdf"),
        ({"storage_path": "docs/a.pdf", "fetch_mode": "filesystem"}, "storage_path", "docs/a.pdf"),
        ({"storage_path": "/a", "mime_type": "text/csv"}, "content_type", "text/csv"),
        ({"storage_path": "/a", "content_type": "text/csv"}, "content_type", "text/csv"),
        ({"storage_path": "/a", "content_md5": "0" * 32}, "content_md5", "0" * 32),
    ],
)
def test_attachments_are_found_by_their_path(attachment: dict[str, Any], field: str, value: object) -> None:
    """The way to the content follows from the path where it is not said."""
    found = read(attachments=[{"filename": "a.pdf", **attachment}]).submission.attachments[0]
    assert getattr(found, field) == value


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"id": ""}, "id", "needed"),
        ({"content_type": "rtf"}, "content_type", "neither"),
        ({"body": 5}, "body", "expected"),
        ({"deferred_ts": "now"}, "deferred_ts", "Unix time"),
        ({"deferred_ts": 1e300}, "deferred_ts", "Unix time"),
        ({"priority": 9}, "priority", "<= 3"),
        ({"attachments": {}}, "attachments", "not a list"),
        ({"attachments": ["a"]}, "attachments[0]", "not a JSON object"),
        ({"attachments": [{"filename": "a"}]}, "attachments[0].storage_path", "missing"),
        ({"attachments": [{"filename": "a", "storage_path": "doc=1"}]}, "attachments[0].storage_path", "endpoint"),
        ({"attachments": [{"storage_path": "base64:!"}]}, "attachments[0].storage_path", "not base64"),
        ({"attachments": [{"storage_path": "/a", "fetch_mode": "x"}]}, "attachments[0].fetch_mode", "none of"),
        ({"attachments": [{"storage_path": "/a", "auth": {}}]}, "attachments[0].auth", "not a field"),
    ],
)
def test_faults_have_the_proxys_names(changed: dict[str, object], field: str, says: str) -> None:
    """Who sent "body" hears of "body"."""
    assert says in faults(**changed)[field]


def test_faults_of_the_letter_are_renamed_too() -> None:
    """What is found later is told by the same names."""
    found = check_submission(read(body="", message_id="x").submission, SubmissionLimits())
    assert isinstance(found, tuple)
    assert [fault.field for fault in in_proxy_words(found)] == ["body", "message_id"]
    assert read_proxy_message([]) == [FieldFault("", "is not a JSON object")]
