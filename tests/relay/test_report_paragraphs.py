"""Reports as the RFCs ask for them, paragraph by paragraph, from MAIL at the door to the report that is sent."""

import asyncio
from typing import Any

import msgspec
import pytest
from dsn_check import Report, read_report
from relay_house import FAST, SLOW, House

from smarthost.config_types import ReportSettings
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.message import parse_id
from smarthost.mail.route import Deliver, Route
from smarthost.policy.admission import Submission
from smarthost.policy.rewriting import Rewrite
from smarthost.policy.routing import Match, RouteRule
from smarthost.sink.desk import EVERYTHING, SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter

ALICE = "250-alice@example.org"
NO_DSN = msgspec.structs.replace(EVERYTHING, dsn=False)


def reports_of(house: House) -> list[Report]:
    """Give the reports that the sink took; each follows the grammars, and its envelope RFC 3461 6.1."""
    return [read_report(taken.content) for taken in house.sink.messages if taken.recipients == (ALICE,)]


async def settled(house: House, message: int) -> None:
    """Wait until a message and its reports have left, or wait for a person."""
    await house.until(lambda: len(house.kinds(message)) > 1)
    relay = house.server.relay
    await house.until(lambda: not relay.settler.pending and not relay.reporter._tasks)
    async with asyncio.timeout(15):
        while (await house.server.spool.count())["active"]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("dsn", [True, False])
@pytest.mark.parametrize(
    ("notify", "relayed", "failed"),
    [
        ("", False, True),
        ("NEVER", False, False),
        ("SUCCESS", True, False),
        ("FAILURE", False, True),
        ("DELAY", False, False),
        ("SUCCESS,FAILURE,DELAY", True, True),
        ("FAILURE,DELAY", False, True),
    ],
)
async def test_notify(house: House, dsn: bool, notify: str, relayed: bool, failed: bool) -> None:
    """RFC 3461 4.1, 5.2.1 and 5.2.2: who hears what.

    Of success only where NOTIFY asks and the next hop offers no DSN, so that nobody else would tell (5.2.2 b); of
    failure always from us, whatever the next hop offers.
    """
    house.sink = Sink(SinkSettings(offers=EVERYTHING if dsn else NO_DSN))
    await house.open()
    options = (f"NOTIFY={notify}",) if notify else ()
    for recipient, action, wanted in (
        ("250@example.net", "relayed", relayed and not dsn),
        ("550@example.net", "failed", failed),
    ):
        before = len(reports_of(house))
        await settled(house, await house.send(recipient, sender=ALICE, rcpt_options=options))
        fresh = reports_of(house)[before:]
        assert [each["action"] for report in fresh for each in report.recipients] == ([action] if wanted else [])


@pytest.mark.parametrize(
    ("options", "rcpt_options", "mail", "rcpt"),
    [
        ((), (), "", " ORCPT=rfc822;250@example.net"),
        (("RET=HDRS", "ENVID=QQ+2B314"), (), " RET=HDRS ENVID=QQ+2B314", " ORCPT=rfc822;250@example.net"),
        ((), ("NOTIFY=NEVER",), "", " NOTIFY=NEVER ORCPT=rfc822;250@example.net"),
        (("RET=FULL",), ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;a+2Bb@x.example"), " RET=FULL", "same"),
        ((), ("ORCPT=x400;/S+3Da+2Bb/",), "", " ORCPT=x400;/S+3Da+2Bb/"),
        (("SMTPUTF8",), ("ORCPT=utf-8;j\\x{F6}rg@x.example",), " SMTPUTF8", " ORCPT=utf-8;j\\x{F6}rg@x.example"),
    ],
)
async def test_parameters_are_passed_on(
    house: House, options: tuple[str, ...], rcpt_options: tuple[str, ...], mail: str, rcpt: str
) -> None:
    """RFC 3461 5.2.1 a to d, RFC 6533 3: ENVID, RET, NOTIFY and ORCPT as they came, none that did not come; ORCPT alone
    may be added, and then is the address that we were given."""
    await house.open()
    await settled(house, await house.send("250@example.net", options=options, rcpt_options=rcpt_options))
    taken = house.sink.messages[-1]
    words = taken.mail.split(" ")
    assert [w for w in words if w.startswith(("RET=", "ENVID="))] == [w for w in mail.split() if w != "SMTPUTF8"]
    wanted = " " + " ".join(rcpt_options) if rcpt == "same" else rcpt
    assert taken.rcpts[0].endswith(">" + wanted)


async def test_no_parameters_for_who_does_not_know_them(house: House) -> None:
    """RFC 3461 5.2.2 a: without DSN in EHLO none of the parameters is sent."""
    house.sink = Sink(SinkSettings(offers=NO_DSN))
    await house.open()
    options = ("RET=FULL", "ENVID=x")
    await settled(house, await house.send("250@example.net", options=options, rcpt_options=("NOTIFY=DELAY",)))
    taken = house.sink.messages[-1]
    assert "RET" not in taken.mail and "ENVID" not in taken.mail and taken.rcpts[0].endswith(">")


async def test_rewriting_does_not_hide_the_address_that_was_given(house: House) -> None:
    """RFC 3461 5.2.1 d and 6.3: an ORCPT that we add, and Original-Recipient, are what the client wrote."""
    rules = (Rewrite("root@*", recipient="550@example.net"), Rewrite("info@*", recipient="250@example.net"))
    await house.open(rewrites=rules)
    await settled(house, await house.send("root@db1.example.org", sender=ALICE))
    [report] = reports_of(house)
    assert report.recipients[0]["original-recipient"] == "rfc822; root@db1.example.org"
    assert report.recipients[0]["final-recipient"] == "rfc822; 550@example.net"
    await settled(house, await house.send("info@db1.example.org"))
    assert house.sink.messages[-1].rcpts[0].endswith(" ORCPT=rfc822;info@db1.example.org")
    options = ("ORCPT=rfc822;first@example.com",)
    await settled(house, await house.send("root@db1.example.org", sender=ALICE, rcpt_options=options))
    assert reports_of(house)[-1].recipients[0]["original-recipient"] == "rfc822; first@example.com"


async def test_the_envelope_of_a_report(house: House) -> None:
    """RFC 3461 6.1, RFC 5321 4.5.5: from the null reverse-path, to the sender, NOTIFY=NEVER, without RET and ENVID."""
    await house.open()
    await settled(house, await house.send("550@example.net", sender=ALICE, options=("ENVID=x", "RET=FULL")))
    taken = house.sink.messages[-1]
    assert taken.reverse_path == "" and "RET" not in taken.mail and "ENVID" not in taken.mail
    assert taken.rcpts[0].startswith(f"TO:<{ALICE}> NOTIFY=NEVER")


async def test_the_fields_of_a_failure(house: House) -> None:
    """RFC 3464 2.2 and 2.3: each field that there is something to say for, and what it says."""
    await house.open()
    number = await house.send(
        "550@example.net", sender=ALICE, options=("ENVID=QQ+2B314",), rcpt_options=("ORCPT=rfc822;a+2Bb@x.example",)
    )
    await settled(house, number)
    [report] = reports_of(house)
    [fields] = report.recipients
    assert report.message["original-envelope-id"] == "QQ+314"  # 2.2.1: decoded
    assert report.message["reporting-mta"] == "dns; relay.example.org"  # 2.2.2
    assert report.message["received-from-mta"].startswith("dns; ")  # 2.2.4
    assert "arrival-date" in report.message  # 2.2.5
    assert fields["original-recipient"] == "rfc822; a+b@x.example"  # 2.3.1
    assert fields["final-recipient"] == "rfc822; 550@example.net"  # 2.3.2
    assert fields["action"] == "failed" and fields["status"].startswith("5.")  # 2.3.3, 2.3.4
    assert fields["remote-mta"] == "dns; [127.0.0.1]"  # 2.3.5
    assert fields["diagnostic-code"].startswith("smtp; 550 5.")  # 2.3.6
    assert "last-attempt-date" in fields  # 2.3.7
    assert fields["final-log-id"] == report.message["x-smarthost-id"]  # 2.3.8
    assert "will-retry-until" not in fields  # 2.3.9
    assert report.header["auto-submitted"] == "auto-replied"


async def test_who_handed_it_in_can_be_left_out(house: House) -> None:
    """RFC 3464 2.2.4 is optional: with hide_client nothing is said of the client, as in Received."""
    await house.open(submission=Submission(min_free_space=0, hide_client=True))
    await settled(house, await house.send("550@example.net", sender=ALICE))
    assert "received-from-mta" not in reports_of(house)[0].message


async def test_what_is_returned(house: House) -> None:
    """RFC 3461 4.3: RET says how much of a failed message comes back; above max_returned_size its header only."""
    await house.open(report=ReportSettings(max_returned_size=2000))
    for option, size, whole in (
        ("", 10, True),
        ("RET=FULL", 10, True),
        ("RET=HDRS", 10, False),
        ("RET=FULL", 5000, False),
        ("", 5000, False),
    ):
        before = len(reports_of(house))
        content = "Subject: x\r\n\r\n" + "line\r\n" * (size // 6)
        options = (option,) if option else ()
        await settled(house, await house.send("550@example.net", sender=ALICE, content=content, options=options))
        report = reports_of(house)[before]
        assert (report.original_type == "message/rfc822") is whole
        assert (b"\r\n\r\nline" in report.original) is whole and b"Subject: x" in report.original


async def test_success_returns_the_header_only(house: House) -> None:
    """RFC 3461 4.3: RET is about failures; a report on success has the header, and says relayed, not delivered."""
    house.sink = Sink(SinkSettings(offers=NO_DSN))
    await house.open()
    await settled(
        house,
        await house.send("250@example.net", sender=ALICE, options=("RET=FULL",), rcpt_options=("NOTIFY=SUCCESS",)),
    )
    [report] = reports_of(house)
    assert report.original_type == "text/rfc822-headers"
    assert report.recipients[0]["action"] == "relayed" and report.recipients[0]["status"].startswith("2.")


async def test_one_report_for_all_who_share_a_fate(house: House) -> None:
    """RFC 3464 2.1: several recipients in one report; those who asked for none are left out."""
    await house.open()
    await settled(house, await house.send("550@example.net", "550-2@example.net", "250@example.net", sender=ALICE))
    [report] = reports_of(house)
    finals = [fields["final-recipient"] for fields in report.recipients]
    assert finals == ["rfc822; 550@example.net", "rfc822; 550-2@example.net"]


async def test_a_delay_says_what_caused_it(house: House) -> None:
    """RFC 3464 2.3.4 to 2.3.9: status, peer and words of the last attempt, its date, and until when it is tried."""
    retry = msgspec.structs.replace(SLOW, delay_warning=(1.0,))
    await house.open(retry=retry)
    await house.send("451@example.net", sender=ALICE)
    await house.until(lambda: bool(reports_of(house)), seconds=30)
    [fields] = reports_of(house)[0].recipients
    assert fields["action"] == "delayed" and fields["status"].startswith("4.") and fields["status"] != "4.4.7"
    assert fields["diagnostic-code"].startswith("smtp; 451 ") and "remote-mta" in fields
    assert "last-attempt-date" in fields and "will-retry-until" in fields


async def test_giving_up_says_what_the_peer_said_last(house: House) -> None:
    """RFC 3464 2.3.6, RFC 3463 X.4.7: an expired message's status is ours, the diagnostic code is the peer's."""
    retry = msgspec.structs.replace(FAST, schedule=(600.0,), lifetime=2.0)
    await house.open(retry=retry)
    await house.send("451@example.net", sender=ALICE)
    await house.until(lambda: bool(reports_of(house)), seconds=30)
    [fields] = reports_of(house)[0].recipients
    assert (fields["action"], fields["status"]) == ("failed", "5.4.7")
    assert fields["diagnostic-code"].startswith("smtp; 451 ") and "last-attempt-date" in fields


async def test_a_message_that_was_never_tried_has_no_date_of_an_attempt(house: House) -> None:
    """RFC 3464 2.3.5 to 2.3.7: without an attempt there is no Last-Attempt-Date and no peer; the diagnosis is ours."""
    held = RouteRule(Match(recipient=("*@held.example",)), Route("held", Deliver.HOLD))
    await house.open(route_rules=(held,))
    number = await house.send("you@held.example", sender=ALICE)
    await house.server.operations.queue_fail(Filter(ids=(number,)), False)
    await house.until(lambda: bool(reports_of(house)))
    [fields] = reports_of(house)[0].recipients
    assert fields["status"] == "5.7.0" and fields["diagnostic-code"].startswith("X-Smarthost; ")
    assert "last-attempt-date" not in fields and "remote-mta" not in fields


@pytest.mark.parametrize("sender", ["", ALICE])
async def test_nothing_is_reported_on_a_report(house: House, sender: str) -> None:
    """RFC 3461 6.1: nothing of a message from the null reverse-path, nor of a report that comes by again."""
    await house.open()
    mark = "X-Smarthost-Report: elsewhere.example\r\n" if sender else ""
    number = await house.send("550@example.net", sender=sender, content=f"{mark}Subject: x\r\n\r\nhello\r\n")
    await settled(house, number)
    assert house.kinds(number)[-1] is Kind.FAILED and house.server.counters.reports == 0
    assert (await house.server.spool.count())["total"] == 0
    if sender:
        await settled(
            house, await house.send("250@example.net", sender=sender, content=f"{mark}Subject: x\r\n\r\nhello\r\n")
        )
        assert b"X-Smarthost-Report: elsewhere.example" in house.sink.messages[-1].content


async def test_a_report_that_is_refused_is_held(house: House) -> None:
    """RFC 3461 6.1 c: nobody is told of it, but a person can see it: held, logged and counted."""
    await house.open()
    await house.send("550@example.net", sender="550@example.org")
    await house.until(lambda: house.server.counters.reports_failed == 1)
    await house.until(lambda: not house.server.relay.settler.pending)
    shown = [row async for row in house.server.operations.queue_list(Filter(why=Why.REPORT_FAILED), 0)]
    assert [row["recipients"] for row in shown] == [["550@example.org"]]


@pytest.mark.parametrize(
    ("orcpt", "recipient", "is_global", "original"),
    [
        ("", "550@exämple.net", True, None),
        ("utf-8;j\\x{F6}rg@x.example", "550@example.net", True, "utf-8; jörg@x.example"),
        ("rfc822;j@x.example", "550@example.net", False, "rfc822; j@x.example"),
    ],
)
async def test_addresses_in_utf8(house: House, orcpt: str, recipient: str, is_global: bool, original: Any) -> None:
    """RFC 6533 3 and 4: addresses beyond ASCII make it a global report, in which they stand as they are."""
    await house.open()
    options = (f"ORCPT={orcpt}",) if orcpt else ()
    number = await send_utf8(house, recipient, options)
    await settled(house, number)
    [report] = reports_of(house)
    assert report.is_global is is_global
    assert report.recipients[0].get("original-recipient") == original
    kind = "rfc822" if recipient.isascii() else "utf-8"
    assert report.recipients[0]["final-recipient"] == f"{kind}; {recipient}"


async def send_utf8(house: House, recipient: str, rcpt_options: tuple[str, ...]) -> int:
    """Send to an address in UTF-8, which smtplib's verbs cannot do by themselves."""
    reader, writer = await asyncio.open_connection(*house.address)
    lines = [
        "EHLO client.example",
        f"MAIL FROM:<{ALICE}> SMTPUTF8",
        " ".join([f"RCPT TO:<{recipient}>", *rcpt_options]),
        "DATA",
        "Subject: x\r\n\r\nhello\r\n.",
    ]
    reply = await read_reply(reader)
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        reply = await read_reply(reader)
        assert reply[:1] in (b"2", b"3"), reply
    writer.close()
    number = parse_id(reply.decode().split()[-1])
    assert number is not None
    return number


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply; gives its last line."""
    while (line := await reader.readline())[3:4] == b"-":
        pass
    return line
