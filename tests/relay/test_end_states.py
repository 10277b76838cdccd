"""The right end state for every recipient, whatever the upstream does."""

import email
import email.policy
import logging
import sqlite3

import msgspec
import pytest
from relay_house import FAST, SLOW, House

from smarthost.mail.entry import Entry, Why
from smarthost.mail.event import Kind
from smarthost.mail.message import format_id
from smarthost.policy.limits import Limit
from smarthost.spool.store import Filter

ACCEPTED, RELAYED, DELAYED, FAILED = Kind.ACCEPTED, Kind.RELAYED, Kind.DELAYED, Kind.FAILED


async def test_a_message_is_relayed(house: House) -> None:
    """Accepted, relayed, gone from the disk; the content arrives with our trace field."""
    await house.open()
    number = await house.send("250@example.net")
    await house.until(lambda: house.kinds(number) == [ACCEPTED, RELAYED])
    await house.empty()
    content = house.sink.messages[-1].content
    assert content.startswith(b"Received: from") and content.endswith(b"\r\n\r\nhello\r\n")


async def test_a_temporary_refusal_is_tried_again(house: House) -> None:
    """451 once: delayed, then relayed, with one attempt each."""
    await house.open()
    number = await house.send("451.once@example.net")
    await house.until(lambda: house.kinds(number) == [ACCEPTED, DELAYED, RELAYED])
    assert [event.attempt for event in house.events if event.message == number] == [0, 1, 2]
    await house.empty()


async def test_a_permanent_refusal_is_reported(house: House) -> None:
    """550: failed, and the sender gets an RFC 3464 report from the null reverse-path."""
    await house.open()
    number = await house.send("550@example.net", sender="250@example.org")
    await house.until(lambda: house.sink.counts.messages == 1)
    assert house.kinds(number) == [ACCEPTED, FAILED]
    report = house.sink.messages[-1]
    assert report.reverse_path == "" and report.recipients == ("250@example.org",)
    parsed = email.message_from_bytes(report.content, policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/report"
    status = parsed.get_payload()[1]
    text = status.as_string()
    assert "Action: failed" in text and "Final-Recipient: rfc822;550@example.net" in text.replace("; ", ";")
    assert "Status: 5" in text
    await house.empty()


async def test_each_recipient_has_its_own_end(house: House) -> None:
    """One message, four recipients: relayed, failed, delayed then relayed, and nobody gets it twice."""
    await house.open()
    number = await house.send("250@a.example", "550@b.example", "451.once@c.example", "250-2@d.example")
    await house.until(lambda: len(house.kinds(number)) == 6)
    await house.empty()
    mine = [event for event in house.events if event.message == number]
    ends = {event.recipient: event.event for event in mine if event.event in (RELAYED, FAILED)}
    assert ends == {
        "250@a.example": RELAYED,
        "550@b.example": FAILED,
        "451.once@c.example": RELAYED,
        "250-2@d.example": RELAYED,
    }
    taken = [address for mail in house.sink.messages if mail.reverse_path for address in mail.recipients]
    assert sorted(taken) == ["250-2@d.example", "250@a.example", "451.once@c.example"]


@pytest.mark.parametrize(
    ("recipient", "ends"),
    [
        ("data-554@example.net", [ACCEPTED, FAILED]),
        ("drop-dot.once@example.net", [ACCEPTED, DELAYED, RELAYED]),
    ],
)
async def test_the_end_of_data_decides(house: House, recipient: str, ends: list[Kind]) -> None:
    """A refusal after the dot fails; a connection lost there is delayed, counted, and tried again."""
    await house.open()
    number = await house.send(recipient, sender="")
    await house.until(lambda: house.kinds(number) == ends)
    if DELAYED in ends:
        assert house.server.counters.ambiguous == 1
    await house.empty()


@pytest.mark.parametrize(
    "recipient",
    [
        "data-451@x.example",
        "drop-mail@x.example",
        "drop-data@x.example",
        "drop-dot@x.example",
        "garbage@x.example",
        "huge@x.example",
        "421@x.example",
        "535@x.example",
    ],
)
async def test_what_is_not_a_refusal_for_good_waits(house: House, recipient: str) -> None:
    """Each of these is delayed, attempts are spent one by one, and the message stays on disk."""
    await house.open(retry=msgspec.structs.replace(FAST, schedule=(60.0,)))
    number = await house.send(recipient)
    await house.until(lambda: DELAYED in house.kinds(number))
    entries = await house.server.spool.entries_of(number)
    assert len(entries) == 1 and entries[0].recipients[0].address == recipient
    assert FAILED not in house.kinds(number) and RELAYED not in house.kinds(number)
    other = await house.send("250@example.net")
    await house.until(lambda: RELAYED in house.kinds(other) or recipient.startswith("535"))


async def test_more_recipients_than_a_transaction_holds(house: House) -> None:
    """230 recipients travel in three transactions; each is relayed once."""
    await house.open()
    names = [f"250-{n}@example.net" for n in range(230)]
    number = await house.send(*names)
    await house.until(lambda: house.kinds(number).count(RELAYED) == 230)
    await house.empty()
    taken = [address for mail in house.sink.messages for address in mail.recipients]
    assert sorted(taken) == sorted(names) and len(house.sink.messages) == 3


async def test_an_expired_message_fails_with_a_report(house: House) -> None:
    """At the end of its lifetime a message is given up, and the report says so."""
    await house.open(retry=msgspec.structs.replace(FAST, lifetime=0.5))
    number = await house.send("451@example.net", sender="250@example.org")
    await house.until(lambda: Kind.EXPIRED in house.kinds(number), 20)
    await house.until(lambda: house.sink.counts.messages == 1)
    assert b"Action: failed" in house.sink.messages[-1].content
    assert b"5.4.7" in house.sink.messages[-1].content


async def test_a_delay_is_told(house: House) -> None:
    """After delay_warning the sender hears of the delay once, and the message stays."""
    await house.open(retry=msgspec.structs.replace(FAST, delay_warning=(0.3,), schedule=(30.0,)))
    number = await house.send("451@example.net", sender="250@example.org")
    await house.until(lambda: house.sink.counts.messages == 1, 20)
    assert b"Action: delayed" in house.sink.messages[-1].content
    assert len(await house.server.spool.entries_of(number)) == 1


async def test_notify_never_is_obeyed(house: House) -> None:
    """NOTIFY=NEVER: the failure is not reported."""
    await house.open()
    number = await house.send("550@example.net", sender="250@example.org", rcpt_options=("NOTIFY=NEVER",))
    await house.until(lambda: house.kinds(number) == [ACCEPTED, FAILED])
    await house.empty()
    assert house.sink.counts.messages == 0


async def test_a_report_that_fails_is_held(house: House) -> None:
    """A report is never reported on: it is parked for a person, and counted."""
    await house.open()
    await house.send("550@example.net", sender="550-7@example.org")
    await house.until(lambda: house.server.counters.reports_failed == 1)
    await house.until(lambda: house.server.relay.settler.pending == 0)
    held = await house.server.spool.select(Filter(why=Why.REPORT_FAILED.value), 10)
    assert [entry.recipients[0].address for entry in held] == ["550-7@example.org"]


@pytest.mark.parametrize("others", [(), ("451-2@example.net",)])
async def test_lost_content_parks_its_message(
    house: House, caplog: pytest.LogCaptureFixture, others: tuple[str, ...]
) -> None:
    """A message whose content was damaged on disk waits for a person; log and event say whose it is."""
    await house.open(retry=SLOW)
    number = await house.send("451@example.net", *others)
    await house.until(lambda: house.kinds(number).count(DELAYED) == 1 + len(others))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    with sqlite3.connect(house.folder / "spool" / "spool.db") as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("UPDATE content SET head = x'00' WHERE id = ?", (number,))
    database.close()
    with caplog.at_level(logging.ERROR, "smarthost.delivery.settle"):
        await house.server.operations.queue_retry(Filter(ids=(number,)), False)
        await house.until(lambda: Kind.HELD in house.kinds(number))
    [held] = [event for event in house.events if event.event is Kind.HELD]
    assert (held.sender, held.recipient) == ("app@example.org", "" if others else "451@example.net")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"message {format_id(number)} is parked"
    ]
    await house.until(lambda: house.server.relay.settler.pending == 0)
    assert [entry.why for entry in await house.server.spool.entries_of(number)] == [Why.CONTENT_LOST]


async def test_soft_bounce_keeps_everything(house: House) -> None:
    """With soft_bounce a 550 is a delay."""
    await house.open(retry=msgspec.structs.replace(FAST, soft_bounce=True, schedule=(60.0,)))
    number = await house.send("550@example.net")
    await house.until(lambda: house.kinds(number) == [ACCEPTED, DELAYED])


async def test_a_large_message_travels_by_file(house: House) -> None:
    """Three MiB: streamed to a content file, relayed octet for octet, and the file is gone afterwards."""
    await house.open()
    body = "".join(f"line {n} {'x' * 60}\r\n" for n in range(45_000)) + "..dot\r\n.\x41\r\n"
    number = await house.send("250@example.net", content=f"Subject: big\r\n\r\n{body}")
    await house.until(lambda: RELAYED in house.kinds(number))
    await house.empty()
    assert house.sink.messages[-1].content.endswith(body.encode())
    content = house.folder / "spool" / "content"
    await house.until(lambda: not list(content.iterdir()))


@pytest.mark.parametrize("size", [10, 500_000])
async def test_long_lines_are_encoded(house: House, size: int) -> None:
    """A line over 998 octets leaves as quoted-printable, in memory or in a file, and reads the same."""
    await house.open()
    body = "y" * 3000 + "\r\n" + "z\r\n" * size
    number = await house.send("250@example.net", content=f"Subject: long\r\n\r\n{body}")
    await house.until(lambda: RELAYED in house.kinds(number))
    content = house.sink.messages[-1].content
    assert max(map(len, content.split(b"\r\n"))) <= 998
    parsed = email.message_from_bytes(content)
    assert parsed.get_payload(decode=True).replace(b"\r\n", b"\n") == body.encode().replace(b"\r\n", b"\n")


async def test_a_delay_is_told_once(house: House) -> None:
    """Recipients that several transactions of an attempt delayed wait for the next one, told of and counted once."""
    await house.open(retry=SLOW, limits=(Limit(max_recipients_per_transaction=1),))
    number = await house.send("451@a.example", "250@a.example", "drop-dot@b.example", "250-2@a.example")
    await house.until(lambda: house.kinds(number).count(RELAYED) == 2 and house.kinds(number).count(DELAYED) >= 2)
    [entry] = await settled_entries(house, number)
    assert sorted(house.kinds(number)) == sorted([ACCEPTED, DELAYED, DELAYED, RELAYED, RELAYED])
    assert sum(house.server.counters.attempts.values()) == 4
    assert house.server.counters.ambiguous == 1
    assert entry.attempts == 1
    assert {recipient.address for recipient in entry.recipients} == {"451@a.example", "drop-dot@b.example"}


async def settled_entries(house: House, number: int) -> list[Entry]:
    """Wait until nothing is in memory; gives what is left of a message on disk."""
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    return await house.server.spool.entries_of(number)
