"""What is said later of mail: SES documents, delivery reports and feedback reports, and return paths that are ours."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.wire.notice import Notice, NoticeKind
from smarthost.wire.report_mail import read_report
from smarthost.wire.ses_notice import read_ses
from smarthost.wire.sns import is_certificate_url, is_subscribe_url, read_sns, signed_octets
from smarthost.wire.verp import ReturnPath, make_return_path, read_return_path, tag_of

KEY = b"k" * 32
MESSAGE = 1_799_707_200_000_000 << 4

DSN = b"""\
From: MAILER-DAEMON@mx.example.net
To: bounces@example.org
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net
Original-Envelope-Id: order-7

Original-Recipient: rfc822;Bob@example.net
Final-Recipient: rfc822; bob@inner.example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such
 user here

Final-Recipient: utf-8; j\xc3\xbcrgen@example.net
Action: delayed
Status: 4.4.1 (waiting)

Final-Recipient: rfc822; c@example.net
Action: relayed
Status: 2.0.0

Final-Recipient: x400; /O=thing
Action: failed
Status: 5.0.0
--b
Content-Type: text/rfc822-headers

Return-Path: <bounces+1@example.org>
Message-ID: <1@example.org>
Subject: x
--b--
""".replace(b"\n", b"\r\n")

ARF = b"""\
From: fbl@provider.example
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

Somebody complained.
--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Provider/1.0
Version: 1
Original-Mail-From: <bounces+2@example.org>
Original-Rcpt-To: <bob@provider.example>
Original-Rcpt-To: <eve@provider.example>

--b
Content-Type: message/rfc822

From: shop@example.org
To: bob@provider.example
Message-ID: <2@example.org>

Buy!
--b--
"""


def test_a_delivery_report_is_read_by_recipient() -> None:
    """Each recipient has its verdict, status, text, and the references of the message; other types are left out."""
    failed, delayed, relayed = read_report(DSN)
    assert failed == Notice(
        "bob@inner.example.net",
        NoticeKind.PERMANENT,
        "5.1.1",
        "550 5.1.1 no such user here",
        "bounces+1@example.org",
        "<1@example.org>",
        "failed",
    )
    assert (delayed.kind, delayed.status) == (NoticeKind.TRANSIENT, "4.4.1")
    assert (relayed.kind, relayed.recipient) == (NoticeKind.RELAYED, "c@example.net")
    assert {each.return_path for each in read_report(DSN, "bounces+9@example.org")} == {"bounces+9@example.org"}


def test_a_feedback_report_is_a_complaint() -> None:
    """Each recipient that is named complained; without names the one to whom the message was addressed did."""
    found = read_report(ARF)
    assert [(each.recipient, each.kind, each.category) for each in found] == [
        ("bob@provider.example", NoticeKind.COMPLAINT, "abuse"),
        ("eve@provider.example", NoticeKind.COMPLAINT, "abuse"),
    ]
    assert {(each.return_path, each.message_id) for each in found} == {("bounces+2@example.org", "<2@example.org>")}
    (only,) = read_report(ARF.replace(b"Original-Rcpt-To", b"X-Rcpt"))
    assert only.recipient == "bob@provider.example"
    assert read_report(ARF.replace(b"Feedback-Type: abuse", b"Feedback-Type: not-spam")) == []


@pytest.mark.parametrize(
    "content", [b"", b"Subject: Out of office\r\n\r\nI am away.\r\n", DSN.replace(b"/report", b"/mixed")]
)
def test_what_is_no_report_says_nothing(content: bytes) -> None:
    """An answer of a person, and mail that only looks like a report, says nothing."""
    assert read_report(content) == []


@given(st.binary(max_size=300), st.integers(0, len(DSN)), st.sampled_from([DSN, ARF]))
def test_no_mail_breaks_the_reading(noise: bytes, place: int, report: bytes) -> None:
    """Whatever stands in a report, reading gives a list."""
    assert isinstance(read_report(report[:place] + noise + report[place:]), list)
    assert isinstance(read_report(report[:place]), list)


def test_ses_bounces_and_complaints() -> None:
    """Notifications, events and the bare object are read alike."""
    recipients = [
        {"emailAddress": "bob@example.net", "status": "5.1.1", "diagnosticCode": "smtp; 550 no"},
        "c@d.example",
    ]
    bare = {"bounce": {"bounceType": "Permanent", "bounceSubType": "General", "bouncedRecipients": recipients}}
    mail = {"source": "bounces+3@example.org", "commonHeaders": {"messageId": "<3@example.org>"}}
    for whole in (
        bare,
        bare | {"notificationType": "Bounce", "mail": mail},
        bare | {"eventType": "Bounce", "mail": mail},
    ):
        first, second = read_ses(msgspec.json.encode(whole))
        assert (first.recipient, first.kind, first.status) == ("bob@example.net", NoticeKind.PERMANENT, "5.1.1")
        assert first.category == "Permanent/General" and second.recipient == "c@d.example"
        assert first.return_path == ("bounces+3@example.org" if "mail" in whole else "")
    bare["bounce"]["bounceType"] = "Transient"
    assert {each.kind for each in read_ses(msgspec.json.encode(bare))} == {NoticeKind.TRANSIENT}
    complaint = {
        "complaint": {"complainedRecipients": [{"emailAddress": "e@f.example"}], "complaintFeedbackType": "abuse"}
    }
    (told,) = read_ses(msgspec.json.encode(complaint | {"notificationType": "Complaint", "mail": mail}))
    assert (told.kind, told.category, told.message_id) == (NoticeKind.COMPLAINT, "abuse", "<3@example.org>")


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"bounce": 3}', b'{"bounce": {"bouncedRecipients": [null, {}, 7]}}'])
def test_other_documents_say_nothing(body: bytes) -> None:
    """Documents without recipients say nothing, whatever stands where recipients should."""
    assert read_ses(body) == []


def test_what_is_signed_of_an_envelope() -> None:
    """The octets are names and values in order, with the subject only where there is one."""
    envelope = {
        "Type": "Notification",
        "MessageId": "m",
        "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Message": "hello\nthere",
        "Timestamp": "2027-01-15T08:00:00.000Z",
        "SignatureVersion": "2",
        "Signature": "s",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem",
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    }
    read = read_sns(msgspec.json.encode(envelope))
    assert read is not None
    assert signed_octets(read) == (
        b"Message\nhello\nthere\nMessageId\nm\nTimestamp\n2027-01-15T08:00:00.000Z\n"
        b"TopicArn\narn:aws:sns:eu-west-1:1:t\nType\nNotification\n"
    )
    with_subject = read_sns(msgspec.json.encode(envelope | {"Subject": "hi"}))
    assert with_subject is not None and b"\nSubject\nhi\nTimestamp\n" in signed_octets(with_subject)
    url = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"
    asked = envelope | {"Type": "SubscriptionConfirmation", "Token": "t", "SubscribeURL": url}
    confirmation = read_sns(msgspec.json.encode(asked))
    assert confirmation is not None
    assert f"\nSubscribeURL\n{url}\nTimestamp\n".encode() in signed_octets(confirmation)
    assert b"\nToken\nt\nTopicArn\n" in signed_octets(confirmation)
    assert read_sns(b'{"bounce": {}}') is None
    with pytest.raises(ValueError):
        read_sns(b'{"SigningCertURL": "x"}')


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-56e67fcb41f6fec09b0196692625d385.pem", True),
        ("https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem", True),
        ("https://sns.us-gov-west-1.amazonaws.com/SimpleNotificationService-1.pem", True),
        ("http://sns.us-east-1.amazonaws.com/a.pem", False),
        ("https://sns.us-east-1.amazonaws.com.evil.example/a.pem", False),
        ("https://evil.example/sns.us-east-1.amazonaws.com/a.pem", False),
        ("https://sns.us-east-1.amazonaws.com@evil.example/a.pem", False),
        ("https://sns.us-east-1.amazonaws.com:8443/a.pem", False),
        ("https://s3.us-east-1.amazonaws.com/bucket/a.pem", False),
        ("https://evil.s3.amazonaws.com/a.pem", False),
        ("https://sns.us-east-1.amazonaws.com/a/../b.pem", False),
        ("https://sns.us-east-1.amazonaws.com/a.pem?x=.pem", False),
        ("https://sns.us-east-1.amazonaws.com/a.txt", False),
        ("https://evil.example\\@sns.us-east-1.amazonaws.com/a.pem", False),
        ("", False),
    ],
)
def test_only_certificates_of_sns_are_asked_for(url: str, is_good: bool) -> None:
    """No host but SNS's own, over TLS, may vouch for a signature."""
    assert is_certificate_url(url) is is_good
    assert not is_subscribe_url(url) or "//sns." in url


def test_a_return_path_leads_to_its_message() -> None:
    """What was made is read back, in any case and with brackets; what was not made by the key is nobody's."""
    mailbox, bob = "bounces@example.org", "Bob@example.net"
    made = make_return_path(mailbox, MESSAGE, bob, KEY)
    expected = ReturnPath(MESSAGE, tag_of(MESSAGE, bob.lower(), KEY))
    assert read_return_path(made, mailbox, KEY) == expected
    assert read_return_path(f"<{made.upper()}>", "Bounces@Example.org", KEY) == expected
    assert len(made.partition("@")[0]) <= 64
    identity, tag, check = made.partition("@")[0].split("-")
    for wrong in (
        make_return_path(mailbox, MESSAGE, bob, b"x" * 32),
        make_return_path("bounces@example.com", MESSAGE, bob, KEY),
        make_return_path("other@example.org", MESSAGE, bob, KEY),
        made.replace("-", "-a", 1),
        made.replace("-", "", 1),
        made[:8] + ("0" if made[8] != "0" else "1") + made[9:],
        f"{identity}-{tag_of(MESSAGE, 'eve@example.net', KEY)}-{check}@example.org",
        f"{identity}-{tag}-@example.org",
        mailbox,
        "bounces+@example.org",
        "",
    ):
        assert read_return_path(wrong, mailbox, KEY) is None, wrong
    with pytest.raises(ValueError):
        make_return_path("nobody", MESSAGE, bob, KEY)


@given(st.text(max_size=60))
def test_no_address_breaks_the_reading(text: str) -> None:
    """Whatever comes as a return path is read as nobody's."""
    assert read_return_path(text, "bounces@example.org", KEY) is None
    assert read_return_path(f"bounces+{text}@example.org", "bounces@example.org", KEY) is None


@pytest.mark.parametrize("filler", [b"\r\n" * 10_000, b"boundary=x; " * 20])
def test_a_mail_made_to_slow_the_reader_is_read_in_part(filler: bytes) -> None:
    """Lines and parts within parts are read up to a bound: what anybody may send to us must not take seconds."""
    assert len(read_report(DSN)) == 3
    assert read_report(DSN.replace(b"It failed.", b"It failed." + filler)) == []
    assert len(read_report(DSN.replace(b"--b--", filler + b"\r\n--b--"))) == 3
