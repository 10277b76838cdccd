"""Reports are the golden files' octets, parse as MIME, and stay whole whatever text they are made of."""

import email
import email.policy
import os
import quopri
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from dsn_check import read_report
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, make_reply
from smarthost.wire.dsn import ReportFacts, ReportRecipient, build_report

GOLDEN = Path(__file__).parent / "golden"
NOON = 1_700_000_000.0
ORIGINAL = (
    b"Received: by relay.example.org with ESMTPSA id 33MZB8NKRKAG; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch\r\n"
    b"Message-ID: <lunch.1@example.org>\r\n\r\nToday at noon?\r\n"
)


def outcome_of(mailbox: str, action: Action, status: str, reason: str = "", **more: Any) -> Outcome:
    """Build an outcome with what a test does not care about filled in."""
    reply = more.get("reply")
    recipient = Recipient(mailbox, mailbox.rpartition("@")[2], orcpt=more.pop("orcpt", ""))
    return Outcome(
        recipient,
        action,
        Scope.RECIPIENT,
        more.pop("stage", Stage.RCPT),
        EnhancedStatus.parse(status),
        reason or str(reply),
        **more,
    )


def facts_of(*recipients: ReportRecipient, **changes: Any) -> ReportFacts:
    """Build facts around recipients."""
    envelope = Envelope(
        changes.pop("reverse_path", "alice@example.org"),
        tuple(recipient.outcome.recipient for recipient in recipients),
        envid=changes.pop("envid", ""),
    )
    message = Message(0x18E9F5A2B3C4D50, Arrival(NOON), envelope, len(ORIGINAL))
    values: dict[str, Any] = {
        "message": message,
        "recipients": recipients,
        "hostname": "relay.example.org",
        "postmaster": "postmaster@example.org",
        "at": NOON + 432_000,
        "message_id": "33MZB8NKRKAG.1@relay.example.org",
        "boundary": "=_33MZB8NKRKAG.1",
        "returned": ORIGINAL,
    }
    return ReportFacts(**(values | changes))


FACTS = {
    "failed": facts_of(
        ReportRecipient(
            outcome=outcome_of(
                "bob@example.net",
                Action.FAILED,
                "5.1.1",
                orcpt="rfc822;bobby@example.org",
                reply=make_reply(
                    550,
                    "5.1.1",
                    "The email account that you tried to reach does not exist.",
                    "Please try double-checking the recipient's email address for typos.",
                ),
                host="mx1.example.net",
                address="192.0.2.25",
            ),
            last_attempt=NOON + 60,
        ),
        ReportRecipient(
            outcome=outcome_of(
                "carol@example.com",
                Action.FAILED,
                "4.4.1",
                "No host of example.com could be reached within 5 days: connection timed out",
                stage=Stage.CONNECT,
                host="mx.example.com",
                address="2001:db8::25",
            ),
            last_attempt=NOON + 431_000,
        ),
        envid="order 4711",
    ),
    "delayed": facts_of(
        ReportRecipient(
            outcome=outcome_of(
                "bob@example.net",
                Action.DELAYED,
                "4.2.2",
                reply=make_reply(452, "4.2.2", "Mailbox full"),
                host="mx1.example.net",
                address="192.0.2.25",
            ),
            last_attempt=NOON + 14_000,
            retry_until=NOON + 432_000,
        ),
        at=NOON + 14_400,
        whole=True,
    ),
    "relayed": facts_of(
        ReportRecipient(
            outcome=outcome_of(
                "bob@example.net",
                Action.RELAYED,
                "2.0.0",
                stage=Stage.CONTENT,
                reply=make_reply(250, "2.0.0", "queued as 4711"),
                host="mx1.example.net",
                address="192.0.2.25",
            ),
            last_attempt=NOON + 2,
        ),
        at=NOON + 2,
    ),
    "international": facts_of(
        ReportRecipient(
            outcome=outcome_of(
                "jörg@exämple.net",
                Action.FAILED,
                "5.1.1",
                orcpt="utf-8;jörg@exämple.net",
                reply=make_reply(550, "5.1.1", "Postfach gibt es nicht: jörg"),
                host="mx.example.net",
                address="192.0.2.25",
            ),
            last_attempt=NOON + 60,
        ),
        reverse_path="ålice@example.org",
        returned=ORIGINAL.replace(b"Lunch", "Mittagessen für jörg".encode()),
        whole=True,
    ),
}


def parse(octets: bytes) -> tuple[EmailMessage, list[EmailMessage]]:
    """Read a report with the standard library, which must find no defect, and by the RFCs' own grammars."""
    read_report(octets)
    report = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(report, EmailMessage)
    assert report.is_multipart()
    assert report.defects == []
    parts = list(report.iter_parts())
    assert len(parts) == 3
    return report, parts


@pytest.mark.parametrize("name", sorted(FACTS))
def test_reports_are_the_golden_ones(name: str) -> None:
    """Every octet is as it was read and approved."""
    octets = build_report(FACTS[name])
    path = GOLDEN / f"{name}.eml"
    if os.environ.get("SMARTHOST_WRITE_GOLDEN"):
        path.write_bytes(octets)
    assert octets == path.read_bytes()


def test_a_failure_report_is_read_by_another_implementation() -> None:
    """The standard library finds the parts, the fields of each recipient and the returned header."""
    report, (text, status, original) = parse(build_report(FACTS["failed"]))
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["From"] == "Mail Delivery System <postmaster@example.org>"
    assert report["To"] == "alice@example.org"
    assert report["Subject"] == "Your message could not be delivered"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["In-Reply-To"] == report["References"] == "<lunch.1@example.org>"
    assert report["Message-ID"] == "<33MZB8NKRKAG.1@relay.example.org>"
    assert report["Content-Transfer-Encoding"] is None
    assert "answered to RCPT: 550 5.1.1" in text.get_content().replace("\n    ", " ")
    assert status.get_content_type() == "message/delivery-status"
    of_message, bob, carol = status.get_payload()
    assert of_message["Reporting-MTA"] == "dns; relay.example.org"
    assert of_message["Original-Envelope-Id"] == "order 4711"
    assert bob["Original-Recipient"] == "rfc822; bobby@example.org"
    assert bob["Final-Recipient"] == "rfc822; bob@example.net"
    assert (bob["Action"], bob["Status"]) == ("failed", "5.1.1")
    assert bob["Remote-MTA"] == "dns; mx1.example.net"
    assert bob["Diagnostic-Code"].replace("\n", "").startswith("smtp; 550 5.1.1 The email account that you tried")
    assert carol["Diagnostic-Code"].startswith("X-Smarthost; ")
    assert carol["Remote-MTA"] is None
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Today at noon?" not in original.as_string()


def test_a_delay_says_until_when() -> None:
    """The whole message is returned, and the last try is named for people and programs."""
    octets = build_report(FACTS["delayed"])
    report, (text, status, original) = parse(octets)
    assert report["Subject"] == "Your message is delayed"
    assert "until Sun, 19 Nov 2023" in text.get_content().replace("\n", " ")
    assert status.get_payload()[1]["Will-Retry-Until"] == "Sun, 19 Nov 2023 22:13:20 +0000"
    assert original.get_content_type() == "message/rfc822"
    assert b"\r\n\r\n" + ORIGINAL + b"\r\n--" in octets


def test_an_internationalised_report_keeps_its_addresses() -> None:
    """UTF-8 addresses and header go into message/global parts, declared as 8bit (RFC 6533)."""
    octets = build_report(FACTS["international"])
    report, (text, status, original) = parse(octets)
    assert report.get_param("report-type") == "global-delivery-status"
    assert report["Content-Transfer-Encoding"] == "8bit"
    assert [part.get_content_type() for part in (text, status, original)] == [
        "text/plain",
        "message/global-delivery-status",
        "message/global",
    ]
    assert all(part["Content-Transfer-Encoding"] == "8bit" for part in (text, status, original))
    assert "Original-Recipient: utf-8; jörg@exämple.net\r\n".encode() in octets
    assert "Final-Recipient: utf-8; jörg@exämple.net\r\n".encode() in octets


def test_an_ascii_report_stays_seven_bit_for_programs() -> None:
    """A peer's UTF-8 text is escaped in message/delivery-status and whole in the text for people."""
    outcome = outcome_of("b@x.org", Action.FAILED, "5.0.0", reply=make_reply(550, "5.0.0", "zu groß"), host="h")
    _, (text, status, _) = parse(build_report(facts_of(ReportRecipient(outcome=outcome))))
    assert "zu groß" in text.get_content()
    assert status.get_payload()[1]["Diagnostic-Code"] == "smtp; 550 5.0.0 zu gro\\xdf"


def test_long_lines_never_leave() -> None:
    """A header line over the limit is folded; a body with one is not returned; a long reply is folded and cut."""
    returned = b"References: " + b"<a@b> " * 300 + b"\r\nX: " + b"y" * 3000 + b"\r\n\r\n" + b"z" * 999 + b"\r\n"
    reply = make_reply(550, "5.0.0", "word " * 500, "x" * 60_000)
    outcome = outcome_of("b@x.org", Action.FAILED, "5.0.0", reply=reply, host="h")
    octets = build_report(facts_of(ReportRecipient(outcome=outcome), returned=returned, whole=True))
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert b"zzz" not in octets
    _, (_, _, original) = parse(octets)
    assert original.get_content_type() == "text/rfc822-headers"


def test_the_boundary_gives_way() -> None:
    """A boundary that stands in the original message is lengthened, so that no part can be forged."""
    returned = ORIGINAL + b"--=_33MZB8NKRKAG.1--\r\n"
    octets = build_report(facts_of(FACTS["delayed"].recipients[0], returned=returned, whole=True))
    report, _ = parse(octets)
    assert report.get_boundary() == "=_33MZB8NKRKAG.1x"


@pytest.mark.parametrize(
    "returned", [b"", b"\r\nbody only\r\n", b"no header\r\n", b"A: b\r\n", b"A: b", b"Message-ID: <x\0>\r\n\r\n"]
)
def test_odd_originals_are_returned(returned: bytes) -> None:
    """A message without header, body or last line end still makes a whole report."""
    for whole in (False, True):
        report, _ = parse(build_report(facts_of(FACTS["delayed"].recipients[0], returned=returned, whole=whole)))
        assert report["In-Reply-To"] is None


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=60), st.sampled_from(list(Action)))
def test_no_text_can_break_a_report(reply: str, reason: str, host: str, action: Action) -> None:
    """Whatever peers say, header and parts stay as they are and each recipient has its fields once."""
    code = {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0"}.get(action, "2.0.0")
    orcpt = "rfc822;" + "".join(mark for mark in reason if " " <= mark <= "~")
    outcomes = [
        outcome_of("b@x.org", action, code, reply=make_reply(550, "5.0.0", reply, reply), host=host),
        outcome_of("c@x.org", action, code, reason or "x", host=host, orcpt=orcpt),
    ]
    octets = build_report(facts_of(*(ReportRecipient(outcome=outcome) for outcome in outcomes), envid=reason))
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    assert b"\0" not in octets
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    report, (_, _, _) = parse(octets)
    assert report.get_all("To") == ["alice@example.org"]
    status = octets[
        octets.index(b"delivery-status\r\n") : octets.index(b"rfc822-headers" if b"rfc822-h" in octets else b"global-h")
    ]
    assert status.count(b"\r\nFinal-Recipient:") == status.count(f"\r\nStatus: {code}".encode()) == 2


@pytest.mark.parametrize("returned", ["Subject: x\r\n\r\ncaf\u00e9\r\n", "Subject: caf\u00e9\r\n\r\nx\r\n"])
def test_a_report_goes_where_the_message_could_not(returned: str) -> None:
    """Where 8-bit or UTF-8 was the trouble, the report is all ASCII: the header only, encoded, and readable again."""
    failed = outcome_of("bob@example.net", Action.FAILED, "5.6.3", "the host does not offer 8BITMIME")
    facts = facts_of(ReportRecipient(outcome=failed), returned=returned.encode(), whole=True)
    report = build_report(facts)
    assert report.isascii()
    assert returned.partition("\r\n")[0].encode() in quopri.decodestring(report)
