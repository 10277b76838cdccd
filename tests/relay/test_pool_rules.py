"""What rules, and refused logins, do to one upstream of a pool leaves the others alone."""

import asyncio

import msgspec
import pytest
from relay_house import SLOW, House
from test_automation import heard, reload, rule_of, second_way, see
from test_pools import hop_of, pool_of, sinks, upstream

from smarthost.config_types import Login
from smarthost.mail.event import Kind
from smarthost.policy.automation import Remedy
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink


def went(house: House, number: int) -> list[tuple[str, str]]:
    """Give what became of a message where, in order: address and event."""
    return [(event.address, event.event.value) for event in house.events if event.message == number and event.address]


@pytest.mark.parametrize("code", [451, 550])
async def test_a_switch_takes_out_the_upstream_that_said_it(house: House, code: int) -> None:
    """What one upstream has refused, and all mail, goes to the other one for the time, and not by the other route."""
    async with sinks(2) as (a, b), second_way(house) as (other, way):
        rule = rule_of(Remedy.SWITCH_ROUTE, "blocked", route="other", duration=600.0)
        pool = pool_of(upstream(hop_of(a), 0), upstream(hop_of(b), 1))
        await house.open(fallback=pool, retry=SLOW, route_rules=(way,), automation=(rule,))
        number = await house.send(f"{code}=blocked@example.net")
        await house.until(lambda: len(went(house, number)) == 2)
        # The second upstream says the same, and is taken out, too: only then there is the other route.
        assert [address for address, _ in went(house, number)] == [a.address[0], b.address[0]]
        assert len(heard(house, Kind.SWITCHED)) == 2
        last = await house.send("250@example.net")
        await house.until(lambda: Kind.RELAYED in house.kinds(last))
        assert other.counts.messages == 1 and a.counts.messages == b.counts.messages == 0


async def test_the_others_carry_on_while_one_is_switched(house: House) -> None:
    """Mail goes to the healthy upstream, comes back when the time is over, and never takes the other route."""
    async with sinks(2) as (a, b), second_way(house) as (other, way):
        rule = rule_of(Remedy.SWITCH_ROUTE, "blocked", route="other", duration=2.0)
        await asyncio.to_thread(see, b, "550.once=blocked@example.net")
        pool = pool_of(upstream(hop_of(a), 0), upstream(hop_of(b), 1))
        await house.open(fallback=pool, retry=SLOW, route_rules=(way,), automation=(rule,))
        numbers = [await house.send("550.once=blocked@example.net")]
        numbers += [await house.send(f"250-{at}@example.net") for at in range(3)]
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert (a.counts.messages, b.counts.messages, other.counts.messages) == (0, 4, 0)
        assert not any(event.event is Kind.FAILED for event in house.events)
        await house.until(lambda: bool(heard(house, Kind.RESUMED)))
        last = await house.send("250-9@example.net")
        await house.until(lambda: Kind.RELAYED in house.kinds(last))
        assert (a.counts.messages, b.counts.messages, other.counts.messages) == (1, 4, 0)


async def test_a_switched_upstream_stays_out_over_a_reload_and_a_person_ends_it(house: House) -> None:
    """A reload keeps the measure, `queue flush` ends it."""
    async with sinks(1) as (a,), second_way(house) as (other, way):
        rule = rule_of(Remedy.SWITCH_ROUTE, "blocked", route="other", duration=600.0)
        await house.open(fallback=pool_of(upstream(hop_of(a))), retry=SLOW, route_rules=(way,), automation=(rule,))
        first = await house.send("451=blocked@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(first))
        await reload(house)
        second = await house.send("250-1@example.net")
        await house.until(lambda: Kind.RELAYED in house.kinds(second))
        assert (a.counts.messages, other.counts.messages) == (0, 1)
        [dispatcher] = [each for name, each in house.server.relay.dispatchers.items() if name.startswith("relayhost")]
        house.server.relay.remedies.lift(dispatcher)
        assert dispatcher.ready.ruled_until == 0.0 and heard(house, Kind.RESUMED)


async def test_upstreams_without_auth_of_their_own_are_paused_alone(house: House) -> None:
    """One login for two hosts: the one that refuses it is left alone, the other carries all mail."""
    async with sinks(1, username="relay", password="other") as (a,):
        house.sink = Sink(SinkSettings(username="relay", password="right"))
        await house.sink.start()
        members = [upstream(hop_of(a), 0), upstream(hop_of(house.sink), 1)]
        members = [
            msgspec.structs.replace(each, route=msgspec.structs.replace(each.route, login="relayhost"))
            for each in members
        ]
        guarded = Login("relay", "right")
        await house.open(fallback=pool_of(*members), retry=SLOW, credentials={"relayhost": guarded})
        numbers = [await house.send(f"250-{at}@example.net") for at in range(4)]
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert a.counts.messages == 0 and house.sink.counts.messages == 4
        relay = house.server.relay
        paused = {
            each.ready.site.route.upstream: relay.connector.login_pause(each.ready.site) is not None
            for each in relay.dispatchers.values()
        }
        assert paused == {str(hop_of(a)): True, str(hop_of(house.sink)): False}
        await house.empty()
