"""Which host a message goes to: upstreams found by MX, the same one after an ambiguous end, domains that moved."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from dns_server import DnsServer, dns_server
from relay_house import FAST, SLOW, House

from smarthost.config_types import Dns
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel, Upstream
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink

ZONE = """
up.example. 300 IN MX 10 mx1.up.example.
up.example. 300 IN MX 10 mx2.up.example.
mx1.up.example. 300 IN A 127.0.0.2
mx2.up.example. 300 IN A 127.0.0.3
name.example. 300 IN MX 10 mx1.up.example.
name.example. 300 IN A 127.0.0.3
moved.example. 300 IN MX 10 old.moved.example.
old.moved.example. 300 IN A 127.0.0.77
new.moved.example. 300 IN A 127.0.0.78
example. 300 IN SOA ns.example. root.example. 1 3600 600 86400 300
"""
PLAIN = Route("relayhost", Deliver.RELAYHOST, (), TlsLevel.NONE)
BY_MX = Route("mx", Deliver.MX, (), TlsLevel.NONE)


@asynccontextmanager
async def listening(port: int, *addresses: str) -> AsyncIterator[list[Sink]]:
    """Give sinks on several addresses and one port, which is a free one where `port` is 0."""
    made: list[Sink] = []
    try:
        for address in addresses:
            sink = Sink(SinkSettings(listen=f"{address}:{port}"))
            await sink.start()
            made.append(sink)
            port = sink.address[1]
        yield made
    finally:
        for sink in made:
            await sink.stop()


@asynccontextmanager
async def on_port_25(*addresses: str) -> AsyncIterator[list[Sink]]:
    """Give sinks where MX delivery finds them; skips the test where that cannot be."""
    try:
        async with listening(25, *addresses) as made:
            yield made
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise
        pytest.skip(f"port 25 cannot be had: {error}")


def story(house: House, number: int) -> list[str]:
    """Give the addresses to which a message went, in order."""
    return [event.address for event in house.events if event.message == number and event.address]


async def test_brackets_decide_on_mx_in_a_pool(house: House) -> None:
    """Of two upstreams by one name the one without brackets is found by MX, the other by the name's own address."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, _), dns_server(ZONE) as server:
        port = a.address[1]
        hops = NextHop("name.example", port, by_mx=True), NextHop("name.example", port)
        pool = tuple(
            Upstream(msgspec.structs.replace(PLAIN, next_hops=(hop,), upstream=str(hop)), at, quota=("1/h",))
            for at, hop in enumerate(hops)
        )
        route = msgspec.structs.replace(PLAIN, next_hops=hops, pool=pool)
        await house.open(fallback=route, dns=Dns((server.address,)), retry=SLOW)
        numbers = [await house.send(f"250-{at}@example.net") for at in range(2)]
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert [story(house, number) for number in numbers] == [["127.0.0.2"], ["127.0.0.3"]]


@pytest.mark.parametrize("busy", [True, False])
async def test_an_ambiguous_end_sticks_to_its_host(house: House, busy: bool) -> None:
    """Of two equal hosts the one that may have the message gets it again, though a session with the other is open."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, b), dns_server(ZONE) as server:
        hop = NextHop("up.example", a.address[1], by_mx=True)
        limit = Limit(match=LimitMatch(), max_connections=1 if not busy else 20)
        route = msgspec.structs.replace(PLAIN, next_hops=(hop,))
        await house.open(fallback=route, dns=Dns((server.address,)), retry=FAST, limits=(limit,))
        at = 0
        while at < 6 or not (a.counts.messages and b.counts.messages):
            at += 1
            assert at < 60, "chance has never chosen one of the hosts"
            number = await house.send(f"drop-dot.once-{at}@example.net")
            await house.until(lambda number=number: Kind.DELAYED in house.kinds(number))  # type: ignore[misc]
            for fill in range(4 if busy else 1):  # a session with either host is open by now, or may be
                await house.send(f"250-{at}-{fill}@example.net")
            await house.until(lambda number=number: Kind.RELAYED in house.kinds(number))  # type: ignore[misc]
            assert len(set(story(house, number))) == 1, story(house, number)


async def test_what_a_host_puts_off_is_tried_at_another_in_the_same_attempt(house: House) -> None:
    """4yz at the end of data: one more host, though a session with the first is open; then the schedule."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, _), dns_server(ZONE) as server:
        hop = NextHop("up.example", a.address[1], by_mx=True)
        limit = Limit(match=LimitMatch(), max_connections=1)
        route = msgspec.structs.replace(PLAIN, next_hops=(hop,))
        await house.open(fallback=route, dns=Dns((server.address,)), retry=SLOW, limits=(limit,))
        for at in range(4):
            number = await house.send(f"data-451.{at}@example.net")
            await house.until(lambda number=number: house.kinds(number).count(Kind.DELAYED) == 2)  # type: ignore[misc]
            await house.until(lambda: not house.server.relay.settler.pending)
            assert sorted(story(house, number)) == ["127.0.0.2", "127.0.0.3"]
            [entry] = await house.server.spool.entries_of(number)
            assert (entry.why, entry.attempts) == (Why.RETRY, 1) and entry.due > entry.message.arrival.at + 200


async def test_recipients_that_a_host_puts_off_are_tried_at_another(house: House) -> None:
    """Of three recipients one is taken, one fails, and the one that is put off is tried at the other host at once."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, _), dns_server(ZONE) as server:
        hop = NextHop("up.example", a.address[1], by_mx=True)
        await house.open(
            fallback=msgspec.structs.replace(PLAIN, next_hops=(hop,)), dns=Dns((server.address,)), retry=SLOW
        )
        number = await house.send("250@example.net", "550@example.net", "451.once@example.net")
        await house.until(lambda: house.kinds(number).count(Kind.DELAYED) == 2)
        told = {}
        for event in house.events:
            if event.message == number and event.address:
                told.setdefault(event.recipient, []).append((event.event, event.address, event.attempt))
        (_, first, _), *_ = told["250@example.net"]
        other = "127.0.0.3" if first == "127.0.0.2" else "127.0.0.2"
        assert told["250@example.net"] == [(Kind.RELAYED, first, 1)]
        assert told["550@example.net"] == [(Kind.FAILED, first, 1)]
        # Each sink refuses it once: it is asked at both, no third time, and the one at which it comes next knows it.
        assert told["451.once@example.net"] == [(Kind.DELAYED, first, 1), (Kind.DELAYED, other, 1)]
        await house.until(lambda: not house.server.relay.settler.pending)
        [entry] = await house.server.spool.entries_of(number)
        assert [recipient.address for recipient in entry.recipients] == ["451.once@example.net"]
        assert (entry.why, entry.attempts) == (Why.RETRY, 1)


async def test_what_is_no_other_elsewhere_waits(house: House) -> None:
    """A full mailbox, and a reply that names a time, are not asked about at another host."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, _), dns_server(ZONE) as server:
        hop = NextHop("up.example", a.address[1], by_mx=True)
        await house.open(
            fallback=msgspec.structs.replace(PLAIN, next_hops=(hop,)), dns=Dns((server.address,)), retry=SLOW
        )
        for recipient in ("452.4.2.2@example.net", "451=try_again_in_5_minutes@example.net"):
            number = await house.send(recipient)
            await house.until(lambda number=number: Kind.DELAYED in house.kinds(number))  # type: ignore[misc]
            await house.until(lambda: not house.server.relay.settler.pending)
            [entry] = await house.server.spool.entries_of(number)
            assert entry.why is Why.RETRY and len(story(house, number)) == 1


async def test_what_the_only_living_host_puts_off_waits(house: House) -> None:
    """Where the other host is dead, the attempt ends with the one that answers, and is not repeated there."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, b), dns_server(ZONE) as server:
        await b.stop()
        hop = NextHop("up.example", a.address[1], by_mx=True)
        route = msgspec.structs.replace(PLAIN, next_hops=(hop,))
        await house.open(fallback=route, dns=Dns((server.address,)), retry=SLOW)
        for at in range(3):
            number = await house.send(f"data-451.{at}@example.net")
            await house.until(lambda number=number: Kind.DELAYED in house.kinds(number))  # type: ignore[misc]

            async def waits(number: int = number) -> bool:
                [entry] = await house.server.spool.entries_of(number)
                return entry.why is Why.RETRY and not house.server.relay.settler.pending

            async with asyncio.timeout(15):
                while not await waits():
                    await asyncio.sleep(0.02)
            assert len(story(house, number)) <= 2 and set(story(house, number)) == {"127.0.0.2"}


async def test_a_dead_host_does_not_keep_an_ambiguous_message(house: House) -> None:
    """When the host that may have a message is dead, the message goes to the other one."""
    async with listening(0, "127.0.0.2", "127.0.0.3") as (a, b), dns_server(ZONE) as server:
        hop = NextHop("up.example", a.address[1], by_mx=True)
        await house.open(
            fallback=msgspec.structs.replace(PLAIN, next_hops=(hop,)), dns=Dns((server.address,)), retry=FAST
        )
        number = await house.send("drop-dot.once@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(number))
        dead, alive = (a, b) if story(house, number) == ["127.0.0.2"] else (b, a)
        await dead.stop()
        # The other host drops it once, too: it has not seen the address yet.
        await house.until(lambda: Kind.RELAYED in house.kinds(number))
        assert alive.counts.messages == 1


async def move(house: House, server: DnsServer) -> None:
    """Have moved.example go to its new host."""
    server.load(ZONE.replace("MX 10 old.moved", "MX 10 new.moved"))
    relay = house.server.relay
    relay.resolver.clear()
    relay.sites.clear()
    target, _ = relay.promoter.known["mx/moved.example"]
    relay.promoter.known["mx/moved.example"] = target, 0.0


async def test_what_waits_goes_where_its_domain_has_moved(house: House) -> None:
    """Mail that waits for the mail hosts of before is carried by the new ones as soon as they are known."""
    async with on_port_25("127.0.0.77", "127.0.0.78") as (old, new), dns_server(ZONE) as server:
        limit = Limit(match=LimitMatch(site="old.moved.example"), message_rate=("1/h",))
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), retry=SLOW, limits=(limit,))
        numbers = [await house.send(f"250-{at}@moved.example") for at in range(3)]
        await house.until(lambda: Kind.RELAYED in house.kinds(numbers[0]))
        await move(house, server)
        numbers.append(await house.send("250-9@moved.example"))
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert (old.counts.messages, new.counts.messages) == (1, 3)


async def test_what_comes_back_to_the_hosts_of_before_is_found(house: House) -> None:
    """What a session with the host of before hands back untried is warned about and given up in time."""
    async with on_port_25("127.0.0.77", "127.0.0.78") as _, dns_server(ZONE) as server:
        limit = Limit(match=LimitMatch(site="old.moved.example"), message_rate=("1/h",))
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), retry=SLOW, limits=(limit,))
        first = await house.send("250-1@moved.example")
        await house.until(lambda: Kind.RELAYED in house.kinds(first))
        second = await house.send("250-2@moved.example")
        relay = house.server.relay
        before = relay.promoter.known["mx/moved.example"][0]
        await house.until(lambda: bool(before.ready.todo))
        entry = before.ready.take()
        await move(house, server)
        third = await house.send("250-3@moved.example")
        await house.until(lambda: Kind.RELAYED in house.kinds(third))
        before.ready.push_back(entry)
        relay.tidy()
        entry.expires = 0.0
        relay.promoter.overdue([entry])
        await house.until(lambda: Kind.EXPIRED in house.kinds(second))
