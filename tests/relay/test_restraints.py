"""Limits of senders, destinations and at the door: they hold back their own mail, say so, and last over restarts."""

import asyncio
import smtplib
import time

import msgspec
import pytest
from relay_house import SLOW, House

from smarthost.crypto.dkim_keys import Keyring
from smarthost.explain_site import explain_limits
from smarthost.mail.event import Kind
from smarthost.policy.limits import Limit, LimitMatch, OnLimit
from smarthost.queue import gates, room
from smarthost.report.timestamp import parse_time
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter


async def rows(house: House, number: int) -> list[dict[str, object]]:
    """Give what `why` says of a message."""
    return [row async for row in house.server.operations.why(number)]


async def test_one_senders_mail_waits_and_nobody_elses(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than memory takes of a sender over its limit waits by name; what comes behind it goes at once."""
    monkeypatch.setattr(room, "QUEUE_BOUND", 8)
    monkeypatch.setattr(gates, "LINE_HELD", 4)
    limit = Limit(LimitMatch(sender_domain="slow.example"), message_rate=("2/h",), number=3)
    await house.open(retry=SLOW, limits=(limit,))
    numbers = [await house.send(f"250-{n}@example.net", sender="a@slow.example") for n in range(30)]
    other = await house.send("250-o@example.net", sender="b@quick.example")
    await house.until(lambda: Kind.RELAYED in house.kinds(other))
    await house.until(lambda: sum(Kind.RELAYED in house.kinds(number) for number in numbers) == 2)
    assert [Kind.RELAYED in house.kinds(number) for number in numbers[:2]] == [True, True]
    assert house.server.relay.scheduler.total <= 5
    await house.until(lambda: not house.server.relay.settler.pending)
    for number in (numbers[2], numbers[-1]):
        (row,) = await rows(house, number)
        assert row["why"] == "rate_limited"
        assert "[[limit]] 3 (sender_domain slow.example): message_rate 2/h" in str(row["text"])
        assert 3500 < parse_time(str(row["until"])) - time.time() <= 3700
    counted = [row["why"] async for row in house.server.operations.queue_list(Filter(), 0)]
    assert counted == ["rate_limited"] * 28


async def test_a_raised_limit_lets_what_waits_go_in_its_order(house: House) -> None:
    """After a reload with a higher number the difference goes at once, the oldest first; without the limit all does."""
    limit = Limit(LimitMatch(destination="*.net"), message_rate=("1/h",), number=1)
    await house.open(retry=SLOW, limits=(limit,))
    numbers = [await house.send(f"250-{n}@example.net") for n in range(6)]
    await house.until(lambda: Kind.RELAYED in house.kinds(numbers[0]))
    relay = house.server.relay
    for limits, gone in (((msgspec.structs.replace(limit, message_rate=("3/h",)),), 3), ((), 6)):
        relay.apply(msgspec.structs.replace(house.config, limits=limits), Keyring())
        await relay.scheduler.refresh()
        await house.until(lambda gone=gone: sum(Kind.RELAYED in house.kinds(n) for n in numbers) == gone)  # type: ignore[misc]
        assert all(Kind.RELAYED in house.kinds(number) for number in numbers[:gone])


async def test_what_waits_at_a_gate_can_be_deleted_and_held(house: House) -> None:
    """A person's commands find what a limit holds in memory."""
    await house.open(retry=SLOW, limits=(Limit(LimitMatch(destination="*"), message_rate=("1/d",), number=1),))
    numbers = [await house.send(f"250-{n}@example.net") for n in range(4)]
    await house.until(lambda: Kind.RELAYED in house.kinds(numbers[0]))
    operations = house.server.operations
    assert (await operations.queue_delete(Filter(ids=(numbers[1],)), False))["entries"] == 1
    assert (await operations.queue_hold(Filter(ids=(numbers[2],)), False))["entries"] == 1
    assert (await operations.queue_list(Filter(), 0).__anext__())["why"] == "held"
    await house.server.stop()
    await house.open()
    (row,) = await rows(house, numbers[3])
    await house.until(lambda: house.server.relay.scheduler.total == 1)
    (row,) = await rows(house, numbers[3])
    assert row["why"] == "rate_limited"


async def test_a_site_is_learned_to_take_few_recipients(house: House) -> None:
    """After 452 4.5.3 behind the third recipient no transaction has more than three; explain says so; a reload forgets
    nothing.
    """
    house.sink = Sink(SinkSettings(max_recipients=3))
    await house.open(retry=SLOW)
    number = await house.send(*(f"250-{n}@example.net" for n in range(10)))
    await house.until(lambda: house.kinds(number).count(Kind.RELAYED) == 10)
    relay = house.server.relay
    (dispatcher,) = relay.dispatchers.values()
    assert dispatcher.ready.capacity.most == 3
    learned = explain_limits(relay.limits, dispatcher.ready.site, dispatcher)[-1]
    assert learned["name"] == "recipients_taken" and learned["value"] == 3
    relay.apply(house.config, Keyring())
    number = await house.send(*(f"250-{n}@example.net" for n in range(4)))
    await house.until(lambda: house.kinds(number).count(Kind.RELAYED) == 4)
    (dispatcher,) = relay.dispatchers.values()
    assert dispatcher.ready.capacity.most == 3


async def test_the_door_refuses_what_is_over_a_limit(house: House) -> None:
    """450 4.7.1 at MAIL for a sender, at RCPT for a destination and for recipients; a restart forgets nothing."""
    limits = (
        Limit(LimitMatch(sender_domain="a.example"), message_rate=("2/h",), on_limit=OnLimit.ERROR, number=1),
        Limit(LimitMatch(destination="few.net"), recipient_rate=("3/h",), on_limit=OnLimit.ERROR, number=2),
    )
    await house.open(retry=SLOW, limits=limits)
    for number in range(2):
        await house.send(f"250-{number}@example.net", sender="x@a.example")

    def talk() -> None:
        with smtplib.SMTP(*house.address, timeout=20) as client:
            client.ehlo()
            code, text = client.mail("x@a.example")
            assert code == 450 and text == b"4.7.1 Limit reached, try again later: sender_domain=a.example"
            assert client.mail("x@b.example")[0] == 250

    await asyncio.to_thread(talk)
    await house.server.stop()
    await house.open()
    await asyncio.to_thread(talk)
    await house.send("250@few.net", "250-2@few.net", "250-3@example.net", sender="x@b.example")

    def recipients() -> list[int]:
        with smtplib.SMTP(*house.address, timeout=20) as client:
            client.ehlo()
            client.mail("x@b.example")
            return [client.rcpt(address)[0] for address in ("0@few.net", "1@few.net", "250@example.net")]

    assert await asyncio.to_thread(recipients) == [250, 450, 250]
