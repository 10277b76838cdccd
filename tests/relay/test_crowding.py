"""More sites than connections: each has its turn through a whole relay, and dead ones hold no place for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from relay_house import SLOW, House

from smarthost import open_files
from smarthost.config_types import DeliverySettings
from smarthost.delivery import places as places_module
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.open_files import connections_within
from smarthost.policy.routing import Match, RouteRule
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink


def rule_for(name: str, port: int, address: str = "127.0.0.1") -> RouteRule:
    """Give the route of one domain to one next hop."""
    return RouteRule(
        Match(recipient=(f"*@{name}.example",)),
        Route(name, Deliver.RELAYHOST, (NextHop(address, port),), TlsLevel.NONE),
    )


@asynccontextmanager
async def silent(number: int) -> AsyncIterator[tuple[list[int], list[int]]]:
    """Listen on some ports and never say a word; gives them, and a list with one item for each open connection."""
    connections: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            await reader.read()
        except OSError:
            pass
        connections.pop()
        writer.close()

    servers = [await asyncio.start_server(answer, "127.0.0.1", 0) for _ in range(number)]
    yield [server.sockets[0].getsockname()[1] for server in servers], connections
    for server in servers:
        server.close()


async def test_more_sites_than_connections(house: House) -> None:
    """Ten sites share three connections: all mail goes, no more are ever open, and none is left taken."""
    sinks = [Sink(SinkSettings()) for _ in range(10)]
    for sink in sinks:
        await sink.start()
    rules = tuple(rule_for(f"site{at}", sink.address[1]) for at, sink in enumerate(sinks))
    await house.open(route_rules=rules, retry=SLOW, delivery=DeliverySettings(3))
    relay, most = house.server.relay, 0
    places = relay.sharing.total
    numbers = [await house.send(f"slow-20@site{at % 10}.example") for at in range(40)]

    def all_relayed() -> bool:
        nonlocal most
        open_now = sum(len(each.transfers) + each.opening for each in relay.dispatchers.values())
        assert open_now <= places.taken <= 3
        most = max(most, open_now)
        return all(Kind.RELAYED in house.kinds(number) for number in numbers)

    await house.until(all_relayed, 30)
    assert [sink.counts.messages for sink in sinks] == [4] * 10 and most == 3
    assert not any(event.event is Kind.DELAYED for event in house.events)
    for dispatcher in relay.dispatchers.values():
        dispatcher.retire()
    await house.until(lambda: places.taken == places.waiting == places.called_back == 0)
    for sink in sinks:
        await sink.stop()


async def test_silent_sites_do_not_hold_all_places(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside eight sites that let us in and say nothing mail for a healthy one goes, and no attempt is spent."""
    monkeypatch.setattr(places_module, "SLOW", 0.2)
    async with silent(8) as (ports, connections):
        await house.sink.start()
        rules = (
            *(rule_for(f"dead{at}", port) for at, port in enumerate(ports)),
            rule_for("good", house.sink.address[1]),
        )
        await house.open(route_rules=rules, retry=SLOW, delivery=DeliverySettings(4))
        for at in range(8):
            await house.send(f"you@dead{at}.example")
        await house.until(lambda: len(connections) == 4)
        number = await house.send("you@good.example")
        await house.until(lambda: Kind.RELAYED in house.kinds(number))
        # One of them has the time that the timeouts give; the others come in turn, as others need the places, too.
        await house.until(lambda: len(connections) >= 1)
        assert not any(event.event in (Kind.DELAYED, Kind.ATTEMPTED) for event in house.events)


async def test_a_reload_changes_the_number(house: House) -> None:
    """The bound follows the configuration."""
    await house.open(delivery=DeliverySettings(7))
    relay = house.server.relay
    assert relay.sharing.total.most == 7
    changed = DeliverySettings(9)
    relay.apply(type(house.config)(**{**_fields(house), "delivery": changed}), relay.keyring)
    assert relay.sharing.total.most == 9


def _fields(house: House) -> dict[str, object]:
    return {name: getattr(house.config, name) for name in house.config.__struct_fields__}


def test_the_limit_of_open_files_bounds_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """At most half of the files that may be open are connections upstream, which is logged; unlimited is no bound."""
    monkeypatch.setattr(open_files.resource, "getrlimit", lambda _: (1000, 4096))
    assert connections_within(400) == 400 and not caplog.records
    assert connections_within(10_000) == 500
    assert "at most 500 connections upstream instead of 10000: only 1000 files may be open" in caplog.text
    monkeypatch.setattr(open_files.resource, "getrlimit", lambda _: (open_files.resource.RLIM_INFINITY, -1))
    assert connections_within(10_000) == 10_000
