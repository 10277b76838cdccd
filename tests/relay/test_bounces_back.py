"""Bounces that come back to the relay: return paths of its own, the listener that takes what is sent to them, and what
becomes of it."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from email.message import Message as Mail
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import msgspec
import pytest
from relay_house import House

from smarthost.mail.event import Kind
from smarthost.policy.admission import Auth, Listener, Role, Tls
from smarthost.policy.bounce_terms import BounceTerms
from smarthost.policy.suppression import SuppressionRules
from smarthost.sink.desk import TakenMail

pytestmark = pytest.mark.asyncio

TERMS = BounceTerms(domain="bounces.example.org", senders=("*@example.org",))
LISTENERS = (
    Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.NONE),
    Listener(address="127.0.0.2:0", tls=Tls.NONE, auth=Auth.NONE, role=Role.BOUNCES),
)


class BounceHouse(House):
    """A relay that takes its own bounces at a second listener."""

    async def open_bounces(self, terms: BounceTerms = TERMS, **changes: object) -> None:
        """Start the relay."""
        rules = SuppressionRules(enabled=True)
        await self.open(**{"listeners": LISTENERS, "bounces": terms, "suppression": rules, **changes})
        host, port = self.server.listening[1].rsplit(":", 1)
        self.bounce_address = (host, int(port))

    async def relayed(self, *recipients: str, sender: str = "app@example.org", content: str = "") -> list[TakenMail]:
        """Send a message, and give what the sink took of it."""
        before = len(self.sink.messages)
        message = await self.send(*recipients, sender=sender, content=content or "Subject: x\r\n\r\nhello\r\n")
        await self.until(lambda: self.kinds(message).count(Kind.RELAYED) == len(recipients))
        await self.empty()
        return list(self.sink.messages)[before:]

    async def bounce(self, return_path: str, content: bytes, sender: str = "") -> str:
        """Send a mail to a return path as another host does; gives the last reply."""

        def talk() -> str:
            with smtplib.SMTP(*self.bounce_address, timeout=20) as client:
                client.ehlo()
                for code, text in (client.mail(sender), client.rcpt(return_path)):
                    if code != 250:
                        return f"{code} {text.decode()}"
                code, text = client.data(content)
                return f"{code} {text.decode()}"

        return await asyncio.to_thread(talk)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Give what was said later: kind, recipient, status."""
        said = (Kind.BOUNCED, Kind.COMPLAINED)
        return [(str(each.event), each.recipient, each.status) for each in self.events if each.event in said]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[BounceHouse]:
    """Give a relay that is not open yet; it is closed afterwards."""
    made = BounceHouse(tmp_path / "data")
    yield made
    if hasattr(made, "server"):
        await made.close()


def report(recipient: str, status: str = "5.2.2", action: str = "failed", returned: int = 20) -> bytes:
    """Write a delivery status notification (RFC 3464)."""
    report = MIMEMultipart("report", report_type="delivery-status")
    report["From"], report["Subject"] = "MAILER-DAEMON@mx.example.net", "Undelivered Mail"
    report.attach(MIMEText("It could not be delivered.\n"))
    whole, each = Mail(), Mail()
    whole["Reporting-MTA"] = "dns; mx.example.net"
    each["Final-Recipient"], each["Action"], each["Status"] = f"rfc822; {recipient}", action, status
    each["Diagnostic-Code"] = f"smtp; 550 {status} no"
    part = Mail()
    part["Content-Type"] = "message/delivery-status"
    part.set_payload([whole, each])
    report.attach(part)
    original = Mail()
    original["Content-Type"] = "text/rfc822-headers"
    original.set_payload("Subject: x\n" + "X-Long: y\n" * (returned // 10))
    report.attach(original)
    return report.as_bytes().replace(b"\n", b"\r\n")


def complaint(recipient: str) -> bytes:
    """Write a feedback report (RFC 5965)."""
    text = (
        "From: fbl@example.net\nSubject: complaint\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
        "--b\nContent-Type: text/plain\n\nSpam.\n--b\nContent-Type: message/feedback-report\n\n"
        f"Feedback-Type: abuse\nUser-Agent: t/1\nVersion: 1\nOriginal-Rcpt-To: <{recipient}>\n\n"
        "--b\nContent-Type: message/rfc822\n\nSubject: x\n\nhello\n--b--\n"
    )
    return text.replace("\n", "\r\n").encode()


async def test_each_recipient_has_a_return_path(house: BounceHouse) -> None:
    """Chosen mail leaves one recipient a transaction, each with its own return path; other mail as it always did."""
    await house.open_bounces()
    three = await house.relayed("a@example.net", "b@example.net", "c@example.com")
    assert sorted(each.recipients for each in three) == [("a@example.net",), ("b@example.net",), ("c@example.com",)]
    paths = {each.reverse_path for each in three}
    assert len(paths) == 3 and all(path.startswith("bounces+") for path in paths)
    assert all(path.endswith("@bounces.example.org") for path in paths)
    (other,) = await house.relayed("a@example.net", "b@example.net", sender="app@example.com")
    assert (other.reverse_path, len(other.recipients)) == ("app@example.com", 2)
    (null,) = await house.relayed("a@example.net", sender="")
    assert null.reverse_path == ""


@pytest.mark.parametrize("terms", [BounceTerms(domain="bounces.example.org"), BounceTerms()])
async def test_smtp_mail_is_as_it_was_by_default(house: BounceHouse, terms: BounceTerms) -> None:
    """Without senders, users or routes in the configuration mail by SMTP keeps its reverse-path and its transaction."""
    await house.open(bounces=terms, listeners=LISTENERS[:1])
    (one,) = await house.relayed("a@example.net", "b@example.net")
    assert (one.reverse_path, len(one.recipients)) == ("app@example.org", 2)


@pytest.mark.parametrize("by", ["users", "routes"])
async def test_users_and_routes_are_chosen(house: BounceHouse, by: str) -> None:
    """A route, or a user, may be named instead of senders."""
    terms = BounceTerms(domain="bounces.example.org", **{by: ("relayhost" if by == "routes" else "nobody",)})
    await house.open_bounces(terms)
    (one,) = await house.relayed("a@example.net")
    assert one.reverse_path.startswith("bounces+") is (by == "routes")


async def test_a_report_is_an_event_and_suppresses(house: BounceHouse) -> None:
    """A hard bounce is durable at 250: an event of that message and recipient, and a suppression, once, and no report
    goes anywhere."""
    await house.open_bounces()
    first, second = await house.relayed("a@example.net", "b@example.net")
    path = {each.recipients[0]: each.reverse_path for each in (first, second)}["b@example.net"]
    content = report("forwarded-to@example.com", "5.1.1")
    assert await house.bounce(path, content) == "250 2.0.0 taken"
    assert house.told == [("bounced", "b@example.net", "5.1.1")]
    bounced = next(each for each in house.events if each.event is Kind.BOUNCED)
    stored = await house.server.spool.events_of(bounced.message)
    assert [each.event for each in stored][-1] is Kind.BOUNCED and bounced.message == stored[0].message
    assert await house.bounce(path.upper(), content, sender="mailer-daemon@example.net") == "250 2.0.0 taken"
    assert len(house.told) == 1
    with pytest.raises(smtplib.SMTPDataError, match="No valid recipients"):
        await house.send("b@example.net")
    await house.server.stop()
    await house.open_bounces()
    assert await house.bounce(path, content) == "250 2.0.0 taken"
    with pytest.raises(smtplib.SMTPDataError, match="No valid recipients"):
        await house.send("b@example.net")
    assert len(house.told) == 1 and len(house.sink.messages) == 2
    assert house.server.counters.bounces == {"duplicate": 1}


async def test_what_is_passing_and_what_complains(house: BounceHouse) -> None:
    """A delay and a soft failure are told and suppress nobody; a complaint suppresses at once; the rest is counted."""
    await house.open_bounces()
    (one,) = await house.relayed("a@example.net")
    path = one.reverse_path
    for content in (
        report("a@example.net", "4.4.1", "delayed"),
        report("a@example.net", "4.2.2"),
        report("a@example.net", "2.1.5", "delivered"),
        b"Subject: Out of office\r\n\r\nI am away.\r\n",
    ):
        assert await house.bounce(path, content) == "250 2.0.0 taken"
    assert await house.bounce(path, report("a@example.net", "4.4.7", "delayed")) == "250 2.0.0 taken"
    assert house.told == [("bounced", "a@example.net", "4.4.1"), ("bounced", "a@example.net", "4.2.2")]
    await house.relayed("a@example.net")
    assert await house.bounce(path, complaint("a@example.net")) == "250 2.0.0 taken"
    assert house.told[2:] == [("complained", "a@example.net", "")]
    assert house.server.counters.bounces == {"soft": 2, "duplicate": 1, "relayed": 1, "unparsed": 1, "complaint": 1}
    with pytest.raises(smtplib.SMTPDataError, match="No valid recipients"):
        await house.send("a@example.net")


async def test_only_our_return_paths_are_taken(house: BounceHouse) -> None:
    """Everything else is 550 5.1.1: nothing is relayed from here, for trusted clients neither, and nobody logs in."""
    await house.open_bounces()
    (one,) = await house.relayed("a@example.net")
    path = one.reverse_path
    local, _, domain = path.partition("@")
    for wrong in ("a@example.net", "bounces@bounces.example.org", f"{local[:-1]}x@{domain}", f"{local}@example.org"):
        assert (await house.bounce(wrong, b"x\r\n")).startswith("550 5.1.1 "), wrong

    def greet() -> dict[str, str]:
        with smtplib.SMTP(*house.bounce_address, timeout=20) as client:
            client.ehlo()
            return client.esmtp_features

    offered = await asyncio.to_thread(greet)
    assert not {"auth", "dsn", "futurerelease", "mt-priority"} & offered.keys()
    assert offered["size"] == str(10 * 1024 * 1024)
    terms = msgspec.structs.replace(TERMS, lifetime=0.001)
    await house.server.stop()
    await house.open_bounces(terms)
    assert (await house.bounce(path, report("a@example.net"))).startswith("550 5.1.1 ")


async def test_what_comes_is_bounded(house: BounceHouse) -> None:
    """A mail beyond the size is 552, one within it is read although it returns a long message, and too many at once
    are put off; too many sessions are, too."""
    terms = msgspec.structs.replace(TERMS, max_message_size=1_000_000, message_rate=("1/min",), max_connections=1)
    await house.open_bounces(terms)
    (one,) = await house.relayed("a@example.net")
    assert (await house.bounce(one.reverse_path, report("a@example.net", returned=800_000))).startswith("250 ")
    assert house.told == [("bounced", "a@example.net", "5.2.2")]
    assert (await house.bounce(one.reverse_path, report("a@example.net"))).startswith("450 4.7.1 ")
    await house.server.stop()
    await house.open_bounces(msgspec.structs.replace(terms, message_rate=()))
    assert (await house.bounce(one.reverse_path, b"x" * 70 + b"\r\n" + b"y" * 1_100_000)).startswith("552 5.3.4 ")

    def crowd() -> int:
        with (
            smtplib.SMTP(*house.bounce_address, timeout=20),
            smtplib.SMTP(timeout=20) as second,
        ):
            return second.connect(*house.bounce_address)[0]

    assert await asyncio.to_thread(crowd) == 421


async def test_our_own_report_still_goes_to_the_sender(house: BounceHouse) -> None:
    """What an upstream refuses while it is asked is reported to the sender, by the null reverse-path, as ever."""
    await house.open_bounces()
    message = await house.send("550@example.net")
    await house.until(lambda: Kind.FAILED in house.kinds(message))
    await house.until(lambda: any(each.recipients == ("app@example.org",) for each in house.sink.messages))
    assert house.sink.messages[-1].reverse_path == "" and house.told == []


async def test_a_reload_changes_the_terms(house: BounceHouse) -> None:
    """Other senders, sizes and rates are followed while the relay runs."""
    await house.open_bounces()
    relay, config = house.server.relay, house.config
    changed = msgspec.structs.replace(config, bounces=msgspec.structs.replace(TERMS, senders=(), max_message_size=5000))
    relay.apply(changed, relay.keyring)
    house.server.bounces.follow(changed)
    (one,) = await house.relayed("a@example.net")
    assert one.reverse_path == "app@example.org"
    assert relay.door.annexes[Role.BOUNCES].terms.submission.max_message_size == 5000
