"""Mail that is to be sent later: by FUTURERELEASE and by its header, what a person does to it, and its priority."""

import time
from datetime import UTC, datetime

import msgspec
import pytest
from relay_house import FAST, SLOW, House

from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Priority
from smarthost.mail.event import Kind
from smarthost.spool.store import Filter
from smarthost.wire.submission import format_date_time

LATER = "HOLDFOR=3600"
RELAYED = Kind.RELAYED


async def entry_of(house: House, number: int) -> Entry:
    """Give the one entry of a message, as it is on disk."""
    (entry,) = await house.server.spool.entries_of(number)
    return entry


async def test_a_message_is_held_for_a_time(house: House) -> None:
    """HOLDFOR keeps a message until its time, with the reason and the time; then it goes."""
    await house.open()
    number = await house.send("250@example.net", options=("HOLDFOR=2",))
    (row,) = [row async for row in house.server.operations.why(number)]
    assert row["why"] == Why.SCHEDULED
    entry = await entry_of(house, number)
    assert 1.9 <= entry.due - entry.message.arrival.at <= 2.1
    assert abs(datetime.fromisoformat(row["until"]).timestamp() - entry.due) < 0.01
    assert house.sink.counts.messages == 0
    await house.until(lambda: RELAYED in house.kinds(number))
    assert time.time() >= entry.due


async def test_a_message_is_held_until_a_time(house: House) -> None:
    """HOLDUNTIL and X-Smarthost-Send-At say when; the later of both counts, and a time that is past is now."""
    await house.open(retry=SLOW)
    for minutes, options in ((120, ()), (60, ("HOLDFOR=7200",)), (120, ("HOLDUNTIL=2001-01-01T00:00:00Z",))):
        at = datetime.fromtimestamp(int(time.time()) + 60 * minutes, UTC).isoformat()
        content = f"X-Smarthost-Send-At: {at}\r\nSubject: x\r\n\r\n"
        number = await house.send("250@example.net", options=options, content=content)
        entry = await entry_of(house, number)
        assert 7190 < entry.due - entry.message.arrival.at < 7201
        assert entry.why is Why.SCHEDULED
    number = await house.send("250@example.net", options=("HOLDUNTIL=2001-01-01T00:00:00Z",))
    await house.until(lambda: RELAYED in house.kinds(number))


async def test_lifetime_and_warnings_count_from_the_release(house: House) -> None:
    """A message is neither given up nor warned about while it is held, and afterwards like any other."""
    await house.open(retry=msgspec.structs.replace(FAST, lifetime=3000.0, delay_warning=(600.0, 1200.0)))
    number = await house.send("250@example.net", options=(LATER,))
    entry = await entry_of(house, number)
    assert entry.expires - entry.due == 3000.0
    assert entry.deadline - entry.due == 600.0
    this = Filter(ids=(number,))
    await house.server.operations.queue_hold(this, False)
    await house.server.operations.queue_release(this, False)
    again = await entry_of(house, number)
    assert (again.due, again.deadline, again.why) == (entry.due, entry.deadline, Why.SCHEDULED)


async def test_a_flush_leaves_it_and_a_retry_sends_it(house: House) -> None:
    """A flush is about mail that is tried; whoever asks for a scheduled message by name gets it sent."""
    await house.open(retry=SLOW)
    number = await house.send("250@example.net", options=(LATER,))
    assert (await house.server.operations.queue_flush(Filter()))["entries"] == 0
    assert (await house.server.operations.queue_retry(Filter(ids=(number,)), False))["entries"] == 1
    await house.until(lambda: RELAYED in house.kinds(number))


async def test_it_can_be_deleted(house: House) -> None:
    """A scheduled message that is deleted is never sent, and reported to nobody."""
    await house.open(retry=SLOW)
    number = await house.send("250@example.net", options=("HOLDFOR=1",))
    assert (await house.server.operations.queue_delete(Filter(why=Why.SCHEDULED), False))["entries"] == 1
    await house.empty()
    after = await house.send("250@example.net", options=("HOLDFOR=2",))
    await house.until(lambda: RELAYED in house.kinds(after))
    assert house.kinds(number) == [Kind.ACCEPTED, Kind.DELETED]
    assert house.sink.counts.messages == 1


async def test_it_survives_a_restart(house: House) -> None:
    """What is scheduled leaves at its time though the relay was down between."""
    await house.open()
    number = await house.send("250@example.net", options=("HOLDFOR=2",))
    due = (await entry_of(house, number)).due
    await house.server.stop()
    await house.open()
    await house.until(lambda: RELAYED in house.kinds(number))
    assert time.time() >= due


@pytest.mark.parametrize("asked", ["for", "until"])
async def test_its_report_says_what_was_asked(house: House, asked: str) -> None:
    """A failure report repeats the interval or the time of release that MAIL named (RFC 4865 5.1.2)."""
    await house.open()
    until = format_date_time(int(time.time()) + 1)
    option, told = {"for": ("HOLDFOR=1", "for;1"), "until": (f"HOLDUNTIL={until}", f"until;{until}")}[asked]
    await house.send("550@example.net", sender="250@example.org", options=(option,))
    await house.until(lambda: house.sink.counts.messages == 1)
    assert f"\r\nFuture-Release-Request: {told}\r\n".encode() in house.sink.messages[0].content


async def test_a_priority_is_kept_and_maps_onto_ours(house: House) -> None:
    """MT-PRIORITY is in the envelope as it came, and says which of the four the message has; the header goes first."""
    await house.open()
    expected = {
        -9: Priority.LOW, -1: Priority.LOW, 0: Priority.MEDIUM, 1: Priority.HIGH, 4: Priority.HIGH,
        5: Priority.IMMEDIATE, 9: Priority.IMMEDIATE,
    }  # fmt: skip
    for value, priority in expected.items():
        number = await house.send("250@example.net", options=(f"MT-PRIORITY={value}", LATER))
        envelope = (await entry_of(house, number)).message.envelope
        assert (envelope.mt_priority, envelope.priority) == (value, priority)
    content = "X-Smarthost-Priority: low\r\nSubject: x\r\n\r\n"
    number = await house.send("250@example.net", options=("MT-PRIORITY=6", LATER), content=content)
    envelope = (await entry_of(house, number)).message.envelope
    assert (envelope.mt_priority, envelope.priority) == (6, Priority.LOW)
