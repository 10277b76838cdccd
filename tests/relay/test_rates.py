"""Rates and quotas of sites: they go on counting over a reload, and connections that a rate holds back are named."""

import asyncio
import shutil
import time

import msgspec
import pytest
from relay_house import SLOW, House

from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.event import Kind
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.report.timestamp import parse_time
from smarthost.status import take_gauges


async def reload(house: House, **limits: object) -> None:
    """Let the relay follow the same configuration with one limit for every site."""
    limit = msgspec.structs.replace(Limit(match=LimitMatch()), **limits)
    config = msgspec.structs.replace(house.config, limits=(limit,))
    house.server.relay.apply(config, Keyring())
    await house.server.relay.scheduler.refresh()


async def reason_of(house: House, number: int) -> dict[str, object]:
    """Give what `why` says of a message."""
    return [row async for row in house.server.operations.why(number)].pop()


async def test_a_quota_goes_on_counting_over_reloads(house: House) -> None:
    """A message an hour stays one, however often the same configuration is loaded; a changed rate applies at once."""
    await house.open(retry=SLOW, limits=(Limit(match=LimitMatch(), message_rate=("1/h",)),))
    first = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    for _ in range(3):
        await reload(house, message_rate=("1/h",))
    second = await house.send("250-2@example.net")
    await house.until(lambda: bool(house.server.relay.dispatchers))
    await house.until(lambda: bool(next(iter(house.server.relay.dispatchers.values())).ready.todo))
    assert (await reason_of(house, second))["why"] == "rate_limited"
    assert Kind.RELAYED not in house.kinds(second)
    await reload(house, message_rate=("2/h",))
    await house.until(lambda: Kind.RELAYED in house.kinds(second))


async def test_old_rates_are_kept_while_they_remember(house: House) -> None:
    """What a site has used of a rate is kept over reloads though nobody uses the site; no queue is kept for that."""
    await house.open(retry=SLOW, limits=(Limit(match=LimitMatch(), max_connection_rate="1/h", idle_timeout=0.1),))
    first = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    relay = house.server.relay
    await house.until(lambda: not any(each.transfers for each in relay.dispatchers.values()))
    await reload(house, max_connection_rate="1/h")
    relay.tidy()
    assert relay.dispatchers == {}
    second = await house.send("250-2@example.net")
    await house.until(lambda: bool(relay.dispatchers))
    await house.until(lambda: bool(next(iter(relay.dispatchers.values())).ready.todo))
    assert (await reason_of(house, second))["why"] == "rate_limited"


async def test_a_quota_survives_a_restart_and_a_crash(house: House) -> None:
    """What was sent counts in the next life, exactly after a stop; after a crash no more than the quota has gone."""
    limits = (Limit(match=LimitMatch(), message_rate=("40/h",)),)
    await house.open(retry=SLOW, limits=limits)
    numbers = [await house.send(f"250-{n}@example.net") for n in range(10)]
    await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
    shutil.copytree(house.folder / "spool", house.folder / "crashed" / "spool", symlinks=True)
    await house.server.stop()
    await house.open()
    numbers = [await house.send(f"250-{n}@example.net") for n in range(35)]
    await house.until(lambda: len([n for n in numbers if Kind.RELAYED in house.kinds(n)]) == 30)
    assert (await reason_of(house, numbers[-1]))["why"] == "rate_limited"
    await house.server.stop()
    await house.open(data_directory=house.folder / "crashed")
    numbers = [await house.send(f"250-{n}@example.net") for n in range(35)]
    await house.until(lambda: len([n for n in numbers if Kind.RELAYED in house.kinds(n)]) == 29)
    assert (await reason_of(house, numbers[-1]))["why"] == "rate_limited"


@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_counters_belong_to_what_is_limited_and_not_to_a_number(house: House, how: str) -> None:
    """Limits that are re-ordered, numbered otherwise, taken away and brought back go on with their own counters."""
    a = Limit(match=LimitMatch(sender_domain="a.example"), message_rate=("3/h",), number=1)
    b = Limit(match=LimitMatch(sender_domain="b.example"), message_rate=("5/h",), number=2)
    first = Limit(match=LimitMatch(destination="elsewhere.example"), message_rate=("1/h",), number=1)
    moved = tuple(msgspec.structs.replace(each, number=at) for each, at in ((b, 2), (a, 3)))

    async def follow(*limits: Limit) -> None:
        if how == "reload":
            house.config = msgspec.structs.replace(house.config, limits=limits)
            house.server.relay.apply(house.config, Keyring())
            await house.server.relay.scheduler.refresh()
        else:
            await house.server.stop()
            await house.open(limits=limits)

    async def goes(sender: str, count: int = 1) -> None:
        numbers = [await house.send("250@example.net", sender=sender) for _ in range(count)]
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))

    await house.open(retry=SLOW, limits=(a, b))
    await goes("x@a.example", 2)
    await goes("x@b.example")
    await follow(first, *moved)
    await goes("x@a.example")
    await goes("x@b.example", 4)
    await follow(first)
    await goes("x@a.example")  # limits that are gone hold nobody back
    await follow(a, b)
    number = await house.send("250@example.net", sender="x@a.example")
    async with asyncio.timeout(15):
        while (until := (await reason_of(house, number))["until"]) is None or parse_time(str(until)) < time.time() + 60:
            await asyncio.sleep(0.02)
    assert house.kinds(number) == [Kind.ACCEPTED]


async def test_what_an_older_configuration_still_sends_is_counted(house: House) -> None:
    """The cells of a site that is in delivery at a reload are the new ones too, so that none is counted twice."""
    await house.open(retry=SLOW, shutdown_timeout=0.2, limits=(Limit(match=LimitMatch(), message_rate=("2/h",)),))
    hanging = await house.send("hang@example.net")
    await house.until(lambda: house.sink.counts.dropped.get("hang") == 1)
    older = house.server.relay.dispatcher_of("relayhost")
    await reload(house, message_rate=("2/h",))
    numbers = [await house.send(f"250-{n}@example.net") for n in range(2)]
    await house.until(lambda: Kind.RELAYED in house.kinds(numbers[0]))
    newer = house.server.relay.dispatcher_of("relayhost")
    assert older is not newer and older is not None and newer is not None
    assert older in house.server.relay.retired and older.ready.cells._cells == newer.ready.cells._cells
    await house.until(lambda: not house.server.relay.settler.pending)
    assert (await reason_of(house, numbers[1]))["why"] == "rate_limited"
    assert house.kinds(hanging) == [Kind.ACCEPTED]


async def test_a_connection_rate_keeps_a_second_session_back(house: House) -> None:
    """With one connection a minute, mail behind a session that hangs waits as for a busy site, and none is opened."""
    limit = Limit(match=LimitMatch(), max_connection_rate="1/min")
    await house.open(retry=SLOW, shutdown_timeout=0.2, limits=(limit,))
    await house.send("hang@example.net")
    await house.until(lambda: house.sink.counts.dropped.get("hang") == 1)
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await asyncio.sleep(0.3)
    assert house.sink.counts.connections == 1
    assert [(await reason_of(house, number))["why"] for number in numbers] == ["site_busy"] * 3
    gauges = await take_gauges(house.server.relay)
    assert sorted((state, count) for (_, state), count in gauges.site_connections.items()) == [
        ("busy", 1),
        ("idle", 0),
        ("opening", 0),
    ]
    assert list(gauges.site_queue.values()) == [3]


async def test_mail_without_a_session_waits_for_the_connection_rate(house: House) -> None:
    """Where no session is open and the rate allows none yet, that is the reason, with its end; a reload keeps it."""
    limits = {"max_connection_rate": "1/min", "max_messages_per_connection": 1}
    await house.open(retry=SLOW, limits=(msgspec.structs.replace(Limit(match=LimitMatch()), **limits),))
    first = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    second = await house.send("250-2@example.net")
    for _ in range(2):
        await house.until(lambda: [len(each.ready.todo) for each in house.server.relay.dispatchers.values()] == [1])
        await house.until(lambda: not any(each.transfers for each in house.server.relay.dispatchers.values()))
        row = await reason_of(house, second)
        assert row["why"] == "rate_limited"
        assert 30 < parse_time(str(row["until"])) - time.time() <= 60
        await reload(house, **limits)
    assert house.sink.counts.connections == 1
    assert Kind.RELAYED not in house.kinds(second)


async def test_a_long_wait_does_not_slow_a_short_one(house: House) -> None:
    """Where a site was to be looked at in a minute, for a connection or a pause, mail still goes as its rate allows."""
    await house.open(retry=SLOW, limits=(Limit(match=LimitMatch(), message_rate=("30/s",)),))
    first = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    (dispatcher,) = house.server.relay.dispatchers.values()
    dispatcher._later(60.0)
    numbers = [await house.send(f"250-{at}@example.net") for at in range(40)]
    await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
