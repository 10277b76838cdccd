"""What a relay has learned outlives it: capacities, measures of rules, paused logins; and damage stops nothing."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec
import pytest
from relay_house import SLOW, House

from smarthost.config_types import Login
from smarthost.mail.event import Event, Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.automation import AutomationRule, Remedy, ReplyMatch
from smarthost.policy.rate import parse_rate
from smarthost.policy.routing import Match, RouteRule
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter

BUSY = "451.4.7.28.once=too_much_mail@example.net"
AGAIN = pytest.mark.parametrize("end", ["stop", "crash"])


async def again(house: House, end: str, **changes: object) -> None:
    """Let the relay live again on its spool, as an orderly stop has left it or as it is now."""
    if end == "crash":
        await on_disk(house)
        copy = house.folder.with_name(f"{house.folder.name}-crashed")
        shutil.copytree(house.folder / "spool", copy / "spool", symlinks=True)
        house.config = msgspec.structs.replace(house.config, data_directory=copy)
        house.folder = copy
    await house.server.stop()
    house.events.clear()
    await house.open(**changes)


async def on_disk(house: House) -> None:
    """Wait until what has been asked to be written is."""
    await asyncio.sleep(0)  # what was noted asks to be written in the next turn of the loop
    written = asyncio.Event()
    house.server.spool.keep_limits((), lambda fault: written.set())
    await asyncio.wait_for(written.wait(), 10)


@contextmanager
def spool_of(house: House) -> Iterator[sqlite3.Connection]:
    """Open the database of a relay that has stopped."""
    connection = sqlite3.connect(house.folder / "spool" / "spool.db")
    with connection:
        yield connection
    connection.close()


def heard(house: House, kind: Kind) -> list[Event]:
    """Give the events of a kind."""
    return [event for event in house.events if event.event is kind]


async def why(house: House, number: int) -> dict[str, object]:
    """Give what `why` says of a message."""
    return [row async for row in house.server.operations.why(number)].pop()


@AGAIN
async def test_a_learned_capacity_outlives_the_relay(house: House, end: str) -> None:
    """A site that has refused the fourth recipient gets three in each transaction from the first on."""
    house.sink = Sink(SinkSettings(max_recipients=3))
    await house.open(retry=SLOW)
    number = await house.send(*(f"250-{n}@example.net" for n in range(10)))
    await house.until(lambda: house.kinds(number).count(Kind.RELAYED) == 10)
    await again(house, end)
    refused = house.sink.counts.recipients_refused.get(452, 0)
    number = await house.send(*(f"250-{n}@example.net" for n in range(10)))
    await house.until(lambda: house.kinds(number).count(Kind.RELAYED) == 10)
    assert house.sink.counts.recipients_refused.get(452, 0) == refused
    (dispatcher,) = house.server.relay.dispatchers.values()
    assert dispatcher.ready.capacity.most == 3


@AGAIN
async def test_a_rules_suspension_outlives_the_relay(house: House, end: str) -> None:
    """Mail still waits after the start, for the rest of the time, with no attempt spent; a flush ends it, for good."""
    rule = AutomationRule("my-rule", ReplyMatch("too much mail"), Remedy.SUSPEND, 600.0)
    await house.open(retry=SLOW, automation=(rule,))
    await house.send(BUSY)
    await house.until(lambda: bool(heard(house, Kind.SUSPENDED)))
    event = heard(house, Kind.SUSPENDED)[0]
    await again(house, end)
    number = await house.send("250@example.net")
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    row = await why(house, number)
    assert row["why"] == "automation" and "my-rule" in str(row["text"])
    (dispatcher,) = house.server.relay.dispatchers.values()
    assert dispatcher.ready.ruled_until == event.time + 600.0
    assert house.kinds(number) == [Kind.ACCEPTED]
    await house.server.operations.queue_flush(Filter())
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    await again(house, "stop")
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))


@AGAIN
async def test_a_slower_rate_outlives_the_relay(house: House, end: str) -> None:
    """What a rule has slowed down is slow in the next life; a rule that has changed meanwhile has no effect."""
    slower = AutomationRule(
        "my-rule", ReplyMatch("too much mail"), Remedy.SLOW_DOWN, 600.0, message_rate=(parse_rate("1/min"),)
    )
    await house.open(retry=SLOW, automation=(slower,))
    await house.send(BUSY)
    await house.until(lambda: bool(heard(house, Kind.SLOWED)))
    await again(house, end)
    numbers = [await house.send(f"250-{n}@example.net") for n in range(2)]
    await house.until(lambda: bool(house.server.relay.dispatchers))
    (dispatcher,) = house.server.relay.dispatchers.values()
    assert dispatcher.ready.limits.message_rate == (parse_rate("1/min"),)
    assert "my-rule" in dispatcher.ready.slowed_by
    await again(house, "stop", automation=(msgspec.structs.replace(slower, duration=700.0),))
    await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
    (dispatcher,) = house.server.relay.dispatchers.values()
    assert not dispatcher.ready.slowed_by


@asynccontextmanager
async def second_way(house: House) -> AsyncIterator[tuple[Sink, RouteRule]]:
    """Run another sink, and give it with a route to it that no mail takes by itself."""
    other = Sink(SinkSettings())
    await other.start()
    route = Route("other", Deliver.RELAYHOST, (NextHop("127.0.0.1", other.address[1]),), TlsLevel.NONE)
    try:
        yield other, RouteRule(Match(sender=("nobody@nowhere.example",)), route)
    finally:
        await house.server.stop()
        await other.stop()


@AGAIN
async def test_a_switched_route_outlives_the_relay(house: House, end: str) -> None:
    """The first mail of the next life takes the other route already."""
    async with second_way(house) as (other, way):
        rule = AutomationRule("my-rule", ReplyMatch("too much mail"), Remedy.SWITCH_ROUTE, 600.0, route="other")
        await house.open(retry=SLOW, route_rules=(way,), automation=(rule,))
        await house.send(BUSY)
        await house.until(lambda: bool(heard(house, Kind.SWITCHED)))
        await house.until(lambda: other.counts.connections > 0)
        await again(house, end)
        numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert {event.route for event in heard(house, Kind.RELAYED)} == {"other"}


@AGAIN
async def test_a_paused_login_outlives_the_relay(house: House, end: str) -> None:
    """A refused login is not tried again by a relay that starts; mail waits with no attempt spent, and `why` says so.

    A flush ends that, and so does a mended password.
    """
    house.sink = Sink(SinkSettings(username="relay", password="right"))
    await house.sink.start()
    hop = NextHop("127.0.0.1", house.sink.address[1])
    guarded = Route("relayhost", Deliver.RELAYHOST, (hop,), TlsLevel.NONE, login="relayhost", allow_plaintext_auth=True)
    wrong, right = ({"relayhost": Login("relay", word)} for word in ("wrong", "right"))
    await house.open(fallback=guarded, retry=SLOW, credentials=wrong)
    await house.send("250-1@example.net")
    await house.until(lambda: bool(heard(house, Kind.DELAYED)))
    tried = house.sink.counts.connections
    await again(house, end, fallback=guarded)
    number = await house.send("250-2@example.net")
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    row = await why(house, number)
    assert row["why"] == "login_paused" and "535" in str(row["text"])
    assert house.kinds(number) == [Kind.ACCEPTED] and house.sink.counts.connections == tried
    await house.server.operations.queue_flush(Filter())
    await house.until(lambda: house.sink.counts.connections > tried)
    await house.until(lambda: bool(heard(house, Kind.DELAYED)))
    await again(house, end, fallback=guarded, credentials=right)
    number = await house.send("250-3@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))


async def test_damaged_rows_are_told_of_and_forgotten(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that cannot be read are an error in the log and in the metric; the relay starts, and they are gone."""
    await house.open()
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    await house.server.stop()
    names = ["note capacity x", "note measure x suspend", "note login x y", "site x messages /3600"]
    with spool_of(house) as database:
        database.executemany("INSERT INTO limit_state VALUES (?, ?)", [(name, b'{"most": "\xff') for name in names])
    await house.open()
    assert house.server.counters.state_damaged["memory"] == 4
    [record] = [each for each in caplog.records if "cannot be read" in each.getMessage()]
    assert record.levelname == "ERROR" and all(name in record.getMessage() for name in names)
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    await house.server.stop()
    with spool_of(house) as database:
        assert not database.execute("SELECT name FROM limit_state").fetchall()
    await house.open()
