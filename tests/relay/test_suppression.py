"""Suppression in a whole relay: who gets on the list, who is refused, and who leaves it."""

import asyncio
import smtplib
from asyncio import to_thread
from dataclasses import dataclass

import msgspec
import pytest
from relay_house import House

from smarthost.cli.relay import ask, ask_one
from smarthost.mail.envelope import Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.suppression import Origin, Suppression
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules
from smarthost.queue.suppression import SuppressionList

pytestmark = pytest.mark.asyncio

ON = SuppressionRules(enabled=True)
ON_SEND = msgspec.structs.replace(ON, at=SuppressionPoint.SEND)


@dataclass
class Refused:
    """What RCPT was answered."""

    code: int
    text: str


def told(house: House, kind: Kind) -> list[Event]:
    """Give the events of a kind."""
    return [event for event in house.events if event.event is kind]


def recipient(address: str) -> Recipient:
    """Make a recipient of an address in ASCII."""
    return Recipient(address, address.rpartition("@")[2])


async def fail(house: House, recipient: str) -> None:
    """Send to a recipient and wait until that has failed."""
    before = len(told(house, Kind.FAILED))
    await house.send(recipient, sender="")
    await house.until(lambda: len(told(house, Kind.FAILED)) > before)


async def refusal(house: House, recipient: str) -> Refused | None:
    """Send to a recipient; gives the refusal of its RCPT, None when it was accepted."""
    try:
        await house.send(recipient, sender="")
    except smtplib.SMTPDataError:
        event = told(house, Kind.REJECTED)[-1]
        return Refused(event.code, f"{event.status} {event.reply}")
    return None


async def test_nothing_is_suppressed_unless_enabled(house: House) -> None:
    """By default an unknown user stays an address like any other, and nothing is written about it."""
    await house.open()
    await fail(house, "550@example.net")
    assert await refusal(house, "550@example.net") is None
    assert await house.server.spool.suppressions.page(("", ""), 9) == []


async def test_an_unknown_user_is_suppressed_at_once(house: House) -> None:
    """After 5.1.1 RCPT is answered 550 5.7.1, however the address is spelled; it is counted and logged."""
    await house.open(suppression=ON)
    await fail(house, "550@Example.net")
    assert [event.recipient for event in told(house, Kind.SUPPRESSED)] == ["550@Example.net"]
    refused = await refusal(house, "550@EXAMPLE.NET")
    assert refused == Refused(550, "5.7.1 The recipient is on the suppression list")
    (listener,) = [listener.address for listener in house.config.listeners]
    assert house.server.counters.rejected[listener, "suppressed"] == 1
    assert await refusal(house, "somebody@example.net") is None


async def test_other_failures_suppress_after_three_in_a_row(house: House) -> None:
    """Two hard failures are counted, a relayed message ends the row, the third in a row suppresses; 5.7.1 never."""
    await house.open(suppression=ON)
    once = "553.5.2.1.once@example.net"
    await fail(house, once)
    await house.empty()
    page = await house.server.spool.suppressions.page(("", ""), 9)
    assert [(row.address, row.failures, row.since) for row in page] == [(once, 1, 0.0)]
    message = await house.send(once)
    await house.until(lambda: Kind.RELAYED in house.kinds(message))
    await house.empty()
    assert await house.server.spool.suppressions.page(("", ""), 9) == []
    for _ in range(3):
        assert await refusal(house, "554@example.net") is None
        assert not told(house, Kind.SUPPRESSED)
        await fail(house, "553.5.2.1@example.net")
    assert len(told(house, Kind.SUPPRESSED)) == 1
    assert await refusal(house, "553.5.2.1@example.net") is not None


async def test_on_send_the_sender_gets_a_report(house: House) -> None:
    """With at = "send" the message is accepted, the suppressed recipient fails with a report, others are relayed."""
    await house.open(suppression=ON_SEND)
    await fail(house, "550@example.net")
    seen = len(house.events)
    message = await house.send("550@example.net", "good@example.net", sender="app@example.org")
    await house.until(lambda: {Kind.FAILED, Kind.RELAYED, Kind.REPORTED} <= {e.event for e in house.events[seen:]})
    events = [event for event in house.events if event.message == message]
    assert {(e.recipient, e.status) for e in events if e.event is Kind.FAILED} == {("550@example.net", "5.7.1")}
    assert [e.recipient for e in events if e.event is Kind.RELAYED] == ["good@example.net"]
    await house.empty()


async def test_the_list_outlives_a_restart_and_ends(house: House) -> None:
    """What is on disk is known after a restart, and an address leaves the list when its time is over."""
    await house.open(suppression=ON)
    await fail(house, "550@example.net")
    await house.empty()
    await house.server.stop()
    await house.open(suppression=msgspec.structs.replace(ON, expiry=60.0))
    assert await refusal(house, "550@example.net") is not None
    later = SuppressionList(house.server.spool, house.server.feed, lambda: house.events[-1].time + 31 * 86400.0)
    await later.follow(ON)
    assert later.count == 1
    assert await later.forget_expired() == 1
    assert later.count == 0
    while await house.server.spool.suppressions.page(("", ""), 9):
        pass


async def test_disabled_only_what_people_said_holds(house: House) -> None:
    """Disabled, what failures put on the list does not hold and a person's word does, until its time; enabled, both."""
    await house.open(suppression=ON)
    await fail(house, "550@example.net")
    await house.empty()
    now = house.events[-1].time
    person = Suppression("", "ann@example.net", 0, now, now + 3600.0, Origin.MANUAL)
    written = asyncio.get_running_loop().create_future()
    house.server.relay.suppression.put([person], written.set_result)
    await written
    at = [now]
    suppression = SuppressionList(house.server.spool, house.server.feed, lambda: at[0])
    await suppression.follow(SuppressionRules())
    assert (suppression.active, suppression.refuses, suppression.count) == (False, True, 1)
    await suppression.follow(ON)
    assert (suppression.active, suppression.count) == (True, 2)
    await suppression.follow(SuppressionRules(at=SuppressionPoint.SEND))
    assert (suppression.refuses, suppression.fails, suppression.count) == (False, True, 1)
    assert suppression.is_suppressed("", recipient("ann@example.net"))
    assert not suppression.is_suppressed("", recipient("550@example.net"))
    suppression.note(("", "bob@example.net"), "a bounce")
    assert suppression.count == 1
    at[0] = now + 40 * 86400.0
    await suppression.forget_expired()
    assert (suppression.refuses, suppression.fails, suppression.count) == (False, False, 0)
    removed = asyncio.get_running_loop().create_future()
    suppression.remove([person.key], removed.set_result)
    await removed


async def test_a_person_may_put_addresses_on_and_off(house: House) -> None:
    """The control socket's verbs hold for everybody or one user, tell what is no address, and dry runs do nothing."""
    await house.open(suppression=ON)
    folder = house.folder

    async def put(asked: list[dict[str, str]], dry_run: bool = False) -> dict[str, object]:
        return await to_thread(ask_one, folder, "suppress.add", {"addresses": asked, "dry_run": dry_run})

    texts = ["a@example.net", "A@example.net", "nobody", "b@example.net"]
    asked = [{"address": text, "reason": "asked for it"} for text in texts]
    assert await put(asked, dry_run=True) == {"added": 2, "known": 0, "invalid": 1, "problems": ["nobody"]}
    assert await refusal(house, "a@example.net") is None
    await put(asked)
    assert (await put(asked))["known"] == 2
    assert await refusal(house, "a@example.net") is not None
    await put([{"address": "c@example.net", "user": "app1"}])
    assert await refusal(house, "c@example.net") is None
    assert house.server.relay.suppression.is_suppressed("app1", recipient("c@example.net"))
    rows = await to_thread(lambda: list(ask(folder, "suppress.list", {"match": "*@example.net"})))
    assert [(row["user"], row["address"], row["reason"]) for row in rows] == [
        ("", "a@example.net", "asked for it"),
        ("", "b@example.net", "asked for it"),
        ("app1", "c@example.net", ""),
    ]
    gone = {"choice": {"match": "b@*"}, "dry_run": True}
    assert await to_thread(ask_one, folder, "suppress.remove", gone) == {"removed": 1, "unknown": 0}
    named = {"addresses": ["a@example.net", "x@example.net"]}
    assert await to_thread(ask_one, folder, "suppress.remove", named) == {"removed": 1, "unknown": 1}
    assert await refusal(house, "a@example.net") is None
    assert await refusal(house, "b@example.net") is not None
