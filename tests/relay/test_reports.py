"""Reports to senders as configured and as asked for: route, reverse-path, signature, RET, ENVID and ORCPT."""

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

from relay_house import House

from smarthost.config_types import DkimKey, ReportSettings
from smarthost.crypto.dkim_keys import Algorithm, generate_key, load_key, public_record
from smarthost.crypto.dkim_verify import verify
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, Route
from smarthost.policy.routing import Match, RouteRule


def status_of(house: House) -> tuple[EmailMessage, str]:
    """Give the last message that the sink took, a report, and its part for programs."""
    report = email.message_from_bytes(house.sink.messages[-1].content, policy=email.policy.default)
    assert isinstance(report, EmailMessage)
    return report, report.get_payload()[1].as_string()


async def test_messages_and_reports_are_signed(house: House, tmp_path: Path) -> None:
    """What comes from a domain with a key verifies on arrival, our report too; what has none is sent and counted."""
    key = tmp_path / "key.pem"
    generate_key(Algorithm.ED25519_SHA256, key, 2048)
    record = public_record(load_key("example.org", "s1", key)).encode()
    await house.open(dkim=(DkimKey("example.org", "s1", key),))
    await house.send("250@example.net", "550@example.net", sender="250@mail.example.org")
    await house.until(lambda: house.sink.counts.messages == 2)
    asked = []

    def look_up(name: str) -> bytes | None:
        asked.append(name)
        return record

    for taken in house.sink.messages:
        assert [signature.ok for signature in verify(taken.content, look_up)] == [True]
    assert set(asked) == {"s1._domainkey.example.org"}
    assert house.server.counters.messages_unsigned == 0
    await house.send("250@example.net", sender="app@other.example")
    await house.until(lambda: house.sink.counts.messages == 3)
    assert verify(house.sink.messages[-1].content, look_up) == []
    assert house.server.counters.messages_unsigned == 1


async def test_the_reverse_path_of_reports_can_be_set(house: House) -> None:
    """[report] reverse_path is for upstreams that refuse the null one; a report that fails is held all the same."""
    await house.open(report=ReportSettings(reverse_path="bounces@example.org"))
    await house.send("550@example.net", sender="250@example.com")
    await house.until(lambda: house.sink.counts.messages == 1)
    assert house.sink.messages[-1].reverse_path == "bounces@example.org"
    await house.send("550@example.net", sender="550@example.com")
    await house.until(lambda: house.server.counters.reports_failed == 1)
    assert house.server.counters.reports == 2


async def test_reports_have_a_route_of_their_own(house: House) -> None:
    """[report] route sends reports, and nothing else, by a named route."""
    held = RouteRule(Match(tag=("never-said",)), Route("bounces", Deliver.HOLD))
    await house.open(route_rules=(held,), report=ReportSettings(route="bounces"))
    number = await house.send("550@example.net", "250@example.net", sender="250@example.com")
    await house.until(lambda: {Kind.FAILED, Kind.RELAYED} <= set(house.kinds(number)))
    await house.until(lambda: any(event.event is Kind.REPORTED for event in house.events))
    [report] = [event for event in house.events if event.event is Kind.REPORTED]
    [entry] = await house.server.spool.entries_of(report.message)
    assert entry.queue == "bounces" and house.sink.counts.messages == 1


async def test_a_report_says_what_was_asked(house: House) -> None:
    """ENVID and ORCPT come back, RET=HDRS returns the header only and RET=FULL all of it (RFC 3461 4.3, 6)."""
    await house.open()
    for ret, is_whole in (("HDRS", False), ("FULL", True)):
        before = house.sink.counts.messages
        await house.send(
            "550@example.net",
            sender="250@example.org",
            options=(f"RET={ret}", "ENVID=job+2B7"),
            rcpt_options=("ORCPT=rfc822;first+2Bhand@example.com",),
        )
        await house.until(lambda before=before: house.sink.counts.messages == before + 1)
        report, status = status_of(house)
        assert "Original-Envelope-Id: job+7" in status
        assert "Original-Recipient: rfc822; first+hand@example.com" in status
        assert (report.get_payload()[2].get_content_type() == "message/rfc822") is is_whole
        assert (b"\r\nhello\r\n" in house.sink.messages[-1].content) is is_whole
