"""Reloads in awkward moments: mail that is split again, and look-ups that began under the configuration before."""

import asyncio

import msgspec
from dns_server import dns_server
from relay_house import SLOW, House

from smarthost.config_types import Dns
from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel, Upstream
from smarthost.policy.routing import Match, RouteRule
from smarthost.spool.store import Filter

PLAIN = Route("relayhost", Deliver.RELAYHOST, (), TlsLevel.NONE)
DEAD = NextHop("127.0.0.9", 1)


async def follow(house: House, **changes: object) -> None:
    """Reload another configuration, and have all mail tried at once."""
    house.server.relay.apply(msgspec.structs.replace(house.config, **changes), Keyring())
    await house.server.relay.scheduler.refresh()


async def test_a_message_may_be_split_by_one_reload_after_the_other(house: House) -> None:
    """Each part has a number of its own, though parts of an earlier split are still there; each recipient gets it."""
    await house.open(fallback=msgspec.structs.replace(PLAIN, next_hops=(DEAD,)), retry=SLOW)
    number = await house.send("250@a.example", "250@b.example", "250@c.example", "250@d.example")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    rules: tuple[RouteRule, ...] = ()
    for name in ("d", "c", "b"):
        route = msgspec.structs.replace(PLAIN, name=name, next_hops=(DEAD,))
        rules = (*rules, RouteRule(Match(recipient=(f"*@{name}.example",)), route))
        await follow(house, route_rules=rules, fallback=msgspec.structs.replace(PLAIN, next_hops=(DEAD,)))
        await house.server.operations.queue_retry(Filter(), False)
        async with asyncio.timeout(10):
            while len(await house.server.spool.entries_of(number)) < len(rules) + 1:
                assert not house.server.failed
                await asyncio.sleep(0.02)
    entries = await house.server.spool.entries_of(number)
    assert sorted(entry.queue for entry in entries) == ["b", "c", "d", "relayhost"]
    await follow(house)
    house.server.relay.apply(msgspec.structs.replace(house.config, fallback=hop_route(house)), Keyring())
    await house.server.operations.queue_retry(Filter(), False)
    await house.until(lambda: house.kinds(number).count(Kind.RELAYED) == 4)
    await house.empty()
    assert house.sink.counts.messages == 4


def hop_route(house: House) -> Route:
    """Give the route to the sink."""
    return msgspec.structs.replace(PLAIN, next_hops=(NextHop("127.0.0.1", house.sink.address[1]),))


async def test_a_reload_while_a_pool_is_looked_up_is_followed(house: House) -> None:
    """The pool of the configuration before is not taken into use when its look-up ends after the reload."""
    async with dns_server("example. 300 IN SOA ns.example. root.example. 1 2 3 4 30") as zone:
        zone.is_down = True
        hop = NextHop("slow.example", 25)
        old = Upstream(msgspec.structs.replace(PLAIN, next_hops=(hop,), upstream="old"), 0)
        pool = msgspec.structs.replace(PLAIN, next_hops=(hop,), pool=(old,))
        await house.open(fallback=pool, dns=Dns((zone.address,)), retry=SLOW)
        number = await house.send("250@a.example")
        await house.until(lambda: "relayhost" in house.server.relay.promoter._waiting)
        new_hop = hop_route(house).next_hops[0]
        new = Upstream(msgspec.structs.replace(PLAIN, next_hops=(new_hop,), upstream="new"), 0)
        await follow(house, fallback=msgspec.structs.replace(PLAIN, next_hops=(new_hop,), pool=(new,)))
        await house.until(lambda: Kind.RELAYED in house.kinds(number), 30.0)


async def test_a_reload_while_a_site_is_looked_up_is_followed(house: House) -> None:
    """A site that was found for a route of before is not used under its new configuration."""
    async with dns_server("up.example. 300 IN A 127.0.0.1") as zone:
        zone.delay = 1.0
        await house.open(dns=Dns((zone.address,)), retry=SLOW)
        hop = NextHop("up.example", house.sink.address[1])
        old = msgspec.structs.replace(PLAIN, next_hops=(hop,))
        house.server.relay.apply(msgspec.structs.replace(house.config, fallback=old), Keyring())
        number = await house.send("250@a.example")
        await house.until(lambda: "relayhost" in house.server.relay.promoter._waiting)
        strict = msgspec.structs.replace(old, tls=TlsLevel.VERIFY)
        await follow(house, fallback=strict)
        await house.until(lambda: bool({Kind.RELAYED, Kind.DELAYED} & set(house.kinds(number))))
        assert Kind.RELAYED not in house.kinds(number) and house.sink.counts.messages == 0
