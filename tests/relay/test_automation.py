"""Rules on replies in a whole relay: each action, its end, and that mail which is relayed is never looked at."""

import asyncio
import smtplib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from relay_house import FAST, SLOW, House

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from dns_server import dns_server
from smtp_peer import smtp_peer

from smarthost.config_types import Dns, Login
from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.event import Event, Kind
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import make_reply
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.automation import Automation, AutomationRule, Remedy, ReplyMatch
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.rate import parse_rate
from smarthost.policy.routing import Match, RouteRule
from smarthost.report.timestamp import parse_time
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter
from smarthost.status import take_gauges

ZONE = """
a.example. 300 IN MX 10 mx.host.example.
b.example. 300 IN MX 10 mx.host.example.
mx.host.example. 300 IN A 127.0.0.1
example. 300 IN SOA ns.example. root.example. 1 3600 600 86400 300
"""
BY_MX = Route("mx", Deliver.MX, (), TlsLevel.NONE)
BUSY = "451.4.7.28.once=too_much_mail@example.net"  # refused the first time, accepted the second


def rule_of(action: Remedy, reply: str = "too much mail", **changes: object) -> AutomationRule:
    """Give a rule on a text."""
    return msgspec.structs.replace(AutomationRule("my-rule", ReplyMatch(reply), action), **changes)


def heard(house: House, kind: Kind) -> list[Event]:
    """Give the events of a kind."""
    return [event for event in house.events if event.event is kind]


async def reload(house: House, **changes: object) -> None:
    """Let the relay follow a changed configuration."""
    house.server.relay.apply(msgspec.structs.replace(house.config, **changes), Keyring())
    await house.server.relay.scheduler.refresh()


async def reason_of(house: House, number: int) -> dict[str, object]:
    """Give what `why` says of a message."""
    return [row async for row in house.server.operations.why(number)].pop()


async def suspend_by(house: House, **changes: object) -> list[int]:
    """Have a rule suspend the site, then send three messages; gives the ids, the refused one's first."""
    await house.open(retry=SLOW, automation=(rule_of(Remedy.SUSPEND, **changes),))
    first = await house.send(BUSY)
    await house.until(lambda: bool(heard(house, Kind.SUSPENDED)))
    return [first, *[await house.send(f"250-{n}@example.net") for n in range(3)]]


async def test_a_suspension_stops_the_site(house: House) -> None:
    """Nothing goes, no attempt is spent; log, `why`, `queue list` and the metric say so, and flush ends it."""
    numbers = await suspend_by(house, duration=600.0)
    await asyncio.sleep(0.3)
    assert not heard(house, Kind.RELAYED)
    [event] = heard(house, Kind.SUSPENDED)
    assert (event.site, event.route, event.code, event.status) == (
        f"relayhost/[127.0.0.1]:{house.sink.address[1]}",
        "relayhost",
        451,
        "4.7.28",
    )
    assert "rule my-rule, suspend for 600 s: too much mail" in event.reply
    operations, spool = house.server.operations, house.server.spool
    entries = [(await spool.entries_of(number))[0] for number in numbers]
    assert [entry.attempts for entry in entries] == [1, 0, 0, 0]
    assert all(entry.due == pytest.approx(entry.message.arrival.at, abs=0.1) for entry in entries[1:])
    assert entries[0].due == pytest.approx(time.time() + 600, abs=100)
    row = await reason_of(house, numbers[1])
    assert row["why"] == "automation" and "my-rule" in str(row["text"]) and "too much mail" in str(row["text"])
    assert 590 < parse_time(str(row["until"])) - time.time() <= 600
    listed = [each async for each in operations.queue_list(Filter(why="automation"), 0)]
    assert [each["why"] for each in listed] == ["automation"] * 4
    assert (listed[1]["cause"], listed[1]["until"]) == (
        "rule my-rule, suspend, after: 451 4.7.28 too much mail",
        row["until"],
    )
    assert list((await take_gauges(house.server.relay)).site_suspended.values()) == [1]
    assert house.server.relay.scheduler.total == 0
    await operations.queue_flush(Filter(ids=(numbers[1],)))
    await house.until(lambda: len(heard(house, Kind.RELAYED)) == 3)
    assert "asked for by a person" in heard(house, Kind.RESUMED)[0].reply
    assert list((await take_gauges(house.server.relay)).site_suspended.values()) == [0]
    assert Kind.RELAYED not in house.kinds(numbers[0])


async def test_a_suspension_ends_by_itself(house: House) -> None:
    """After its time all that waited goes, in its first attempt."""
    numbers = await suspend_by(house, duration=1.0)
    await house.until(lambda: len(heard(house, Kind.RELAYED)) == 3)
    [event] = heard(house, Kind.SUSPENDED)
    relayed = heard(house, Kind.RELAYED)
    assert {each.message for each in relayed} == set(numbers[1:])
    assert all(each.attempt == 1 and each.time >= event.time + 1.0 for each in relayed)
    await house.until(lambda: bool(heard(house, Kind.RESUMED)))
    assert not heard(house, Kind.FAILED)


async def test_a_suspension_outlives_a_reload(house: House) -> None:
    """A reload of the same rules keeps the site suspended; one without the rule lets the mail go."""
    await suspend_by(house, duration=600.0)
    await reload(house)
    await asyncio.sleep(0.4)
    assert not heard(house, Kind.RELAYED) and not heard(house, Kind.RESUMED)
    await reload(house, automation=())
    await house.until(lambda: len(heard(house, Kind.RELAYED)) == 3)
    assert "the rule is gone" in heard(house, Kind.RESUMED)[0].reply


async def test_a_threshold_lets_the_first_pass(house: House) -> None:
    """With 2/h one refusal changes nothing, the second one suspends; two recipients of one reply count once."""
    await house.open(retry=SLOW, automation=(rule_of(Remedy.SUSPEND, threshold=parse_rate("2/h")),))
    await house.send("data-451-1=too_much_mail@example.net", "data-451-2=too_much_mail@example.net")
    await house.until(lambda: len(heard(house, Kind.DELAYED)) == 2)
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    assert not heard(house, Kind.SUSPENDED)
    await house.send("data-451-3=too_much_mail@example.net")
    await house.until(lambda: bool(heard(house, Kind.SUSPENDED)))
    assert house.sink.counts.connections == 1


async def test_a_slower_rate_is_let_go_after_its_time(house: House) -> None:
    """The rate of the rule holds beside the configured one for its duration, and `why` names the rule."""
    rule = rule_of(Remedy.SLOW_DOWN, duration=2.0, message_rate=(parse_rate("1/min"),))
    limit = Limit(match=LimitMatch(), message_rate=("1000/s",))
    await house.open(retry=SLOW, limits=(limit,), automation=(rule,))
    await house.send(BUSY)
    await house.until(lambda: bool(heard(house, Kind.SLOWED)))
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await asyncio.sleep(0.3)
    assert not heard(house, Kind.RELAYED)
    row = await reason_of(house, numbers[0])
    assert row["why"] == "rate_limited" and "my-rule" in str(row["text"])
    await house.until(lambda: len(heard(house, Kind.RELAYED)) == 3)
    assert min(event.time for event in heard(house, Kind.RELAYED)) >= heard(house, Kind.SLOWED)[0].time + 2.0
    [dispatcher] = house.server.relay.dispatchers.values()
    assert dispatcher.ready.limits is dispatcher.ready.configured and not dispatcher.ready.slowed_by


async def test_fewer_connections_are_let_go_after_their_time(house: House) -> None:
    """Surplus sessions end with what they carry, and more are opened again when the time is over."""
    rule = rule_of(Remedy.SLOW_DOWN, duration=3.0, max_connections=1)
    await house.open(retry=SLOW, automation=(rule,))
    for n in range(6):
        await house.send(f"slow-150-{n}@example.net")
    [dispatcher] = house.server.relay.dispatchers.values()
    await house.until(lambda: len(dispatcher.transfers) > 1)
    await house.send(BUSY)
    await house.until(lambda: bool(heard(house, Kind.SLOWED)))
    assert (dispatcher.ready.limits.max_connections, dispatcher.ready.window.maximum) == (1, 1)
    await house.until(lambda: len(dispatcher.transfers) <= 1)
    await house.until(lambda: len(heard(house, Kind.RELAYED)) == 6)
    await house.until(lambda: bool(heard(house, Kind.RESUMED)))
    assert (dispatcher.ready.limits.max_connections, dispatcher.ready.window.maximum) == (20, 20)


async def test_a_temporary_refusal_fails(house: House) -> None:
    """With `fail` a 4yz reply is the end of that recipient, with a report that has its words; others are untouched."""
    await house.open(retry=SLOW, automation=(rule_of(Remedy.FAIL, "account is gone"),))
    number = await house.send("451.4.2.1=account_is_gone@example.net", "451-2@example.net")
    await house.until(lambda: {Kind.FAILED, Kind.DELAYED, Kind.REPORTED} <= {event.event for event in house.events})
    await house.until(lambda: not house.server.relay.settler.pending)
    [event] = heard(house, Kind.FAILED)
    assert (event.code, event.status, event.recipient[:3]) == (451, "5.2.1", "451")
    [entry] = await house.server.spool.entries_of(number)
    assert [recipient.address for recipient in entry.recipients] == ["451-2@example.net"]


async def test_a_permanent_refusal_is_delayed(house: House) -> None:
    """With `defer` a 5yz reply is tried again on the schedule."""
    await house.open(retry=FAST, automation=(rule_of(Remedy.DEFER, "another day"),))
    number = await house.send("550.once=come_another_day@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    assert house.kinds(number) == [Kind.ACCEPTED, Kind.DELAYED, Kind.RELAYED]
    [event] = heard(house, Kind.DELAYED)
    assert (event.code, event.status) == (550, "4.1.1")


@asynccontextmanager
async def second_way(house: House, **settings: object) -> AsyncIterator[tuple[Sink, RouteRule]]:
    """Give a second sink and a route to it that no mail takes by itself."""
    sink = Sink(SinkSettings(**settings))  # type: ignore[arg-type]
    await sink.start()
    route = Route("other", Deliver.RELAYHOST, (NextHop("127.0.0.1", sink.address[1]),), TlsLevel.NONE)
    yield sink, RouteRule(Match(sender=("nobody@nowhere.example",)), route)
    await sink.stop()


def see(sink: Sink, recipient: str) -> None:
    """Let a sink refuse an address for the first time."""
    with smtplib.SMTP(*sink.address, timeout=10) as client:
        client.ehlo()
        client.mail("a@example.org")
        client.rcpt(recipient)


async def test_mail_takes_another_route_for_a_time(house: House) -> None:
    """What was refused, new mail and mail that waits go by the other route at once, until the time is over."""
    blocked = "550.once=you_are_blocked@example.net"
    async with second_way(house) as (other, way):
        await asyncio.to_thread(see, other, blocked)
        rule = rule_of(Remedy.SWITCH_ROUTE, "blocked", route="other", duration=2.0)
        await house.open(retry=SLOW, route_rules=(way,), automation=(rule,))
        first = await house.send(blocked)
        await house.until(lambda: Kind.RELAYED in house.kinds(first))
        assert house.kinds(first) == [Kind.ACCEPTED, Kind.DELAYED, Kind.RELAYED]
        second = await house.send("250-2@example.net")
        await house.until(lambda: Kind.RELAYED in house.kinds(second))
        assert house.kinds(second) == [Kind.ACCEPTED, Kind.RELAYED]
        assert (house.sink.counts.messages, other.counts.messages) == (0, 2)
        assert {event.route for event in heard(house, Kind.RELAYED)} == {"other"}
        assert "rule my-rule, switch_route for 2 s" in heard(house, Kind.SWITCHED)[0].reply
        await house.until(lambda: bool(heard(house, Kind.RESUMED)))
        third = await house.send("250-3@example.net")
        await house.until(lambda: Kind.RELAYED in house.kinds(third))
        assert (house.sink.counts.messages, other.counts.messages) == (1, 2)
        await house.until(lambda: len(house.server.relay.scheduler.contents) == 0)


async def test_two_routes_that_lead_to_each_other(house: House) -> None:
    """Mail that both routes refuse for good goes from one to the other once, then it has failed."""
    blocked = "550=you_are_blocked@example.net"
    async with second_way(house) as (other, way):
        there = rule_of(Remedy.SWITCH_ROUTE, "blocked", route="other", name="there")
        back = rule_of(Remedy.SWITCH_ROUTE, "blocked", route="relayhost", name="back")
        there = msgspec.structs.replace(there, match=ReplyMatch("blocked", route="relayhost"))
        back = msgspec.structs.replace(back, match=ReplyMatch("blocked", route="other"))
        await house.open(retry=SLOW, route_rules=(way,), automation=(there, back))
        number = await house.send(blocked)
        await house.until(lambda: Kind.FAILED in house.kinds(number))
        assert house.kinds(number)[:3] == [Kind.ACCEPTED, Kind.DELAYED, Kind.FAILED]
        assert [event.route for event in house.events if event.message == number][1:3] == ["relayhost", "other"]
        assert other.counts.recipients_refused == {550: 1}
        waits = await house.send("451=you_are_blocked@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(waits))
        await asyncio.sleep(0.3)
        [entry] = await house.server.spool.entries_of(waits)
        assert entry.due > time.time() + 400 and entry.attempts == 1


async def test_domains_of_one_site_are_led_together(house: House) -> None:
    """A domain that is seen first while its site's mail takes another route takes it too, with no attempt here."""
    async with second_way(house) as (other, way), dns_server(ZONE) as server:
        rule = rule_of(Remedy.SWITCH_ROUTE, "refused", route="other")
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), route_rules=(way,), automation=(rule,), retry=SLOW)
        relay = house.server.relay
        site = await relay.sites.resolve(BY_MX, "a.example")
        dispatcher = relay.dispatcher_for(site)
        dispatcher.queues.add("mx/a.example")
        refusal = make_reply(421, "4.7.0", "refused here")
        assert relay.remedies.hear(dispatcher, Stage.GREETING, refusal) is rule
        numbers = [await house.send("250@a.example"), await house.send("250@b.example")]
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert other.counts.messages == 2
        assert len(heard(house, Kind.SWITCHED)) == 1 and not heard(house, Kind.DELAYED)


async def test_a_domain_that_joins_a_suspended_site_waits_too(house: House) -> None:
    """A domain that is seen first while its site is suspended waits with it, and no connection is tried."""
    async with dns_server(ZONE) as server:
        rule = rule_of(Remedy.SUSPEND, "refused", duration=600.0)
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), automation=(rule,), retry=SLOW)
        relay = house.server.relay
        dispatcher = relay.dispatcher_for(await relay.sites.resolve(BY_MX, "a.example"))
        relay.remedies.hear(dispatcher, Stage.GREETING, make_reply(421, "4.7.0", "refused here"))
        number = await house.send("250@b.example")
        await house.until(lambda: relay.scheduler.total == 0)
        assert (await reason_of(house, number))["why"] == "automation"
        assert house.kinds(number) == [Kind.ACCEPTED]


async def test_a_refused_greeting_is_offered_too(house: House) -> None:
    """What a host says before any command is a reply like others: here it fails the mail that would wait."""
    async with second_way(house, max_connections=1) as (full, _):
        route = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", full.address[1]),), TlsLevel.NONE)
        rule = AutomationRule("full", ReplyMatch("^421 ", stage=Stage.GREETING), Remedy.FAIL)
        await house.open(fallback=route, retry=SLOW, automation=(rule,))
        _, writer = await asyncio.open_connection(*full.address)
        number = await house.send("250@example.net")
        await house.until(lambda: Kind.FAILED in house.kinds(number))
        [event] = heard(house, Kind.FAILED)
        assert (event.code, event.status[0], event.stage) == (421, "5", Stage.GREETING)
        writer.close()


async def test_a_refused_login_is_offered_too(house: House) -> None:
    """A rule on the reply to AUTH suspends the site for longer than the login's own pause."""
    async with second_way(house, username="relay", password="right") as (guarded, _):
        route = Route(
            "relayhost",
            Deliver.RELAYHOST,
            (NextHop("127.0.0.1", guarded.address[1]),),
            TlsLevel.NONE,
            login="relayhost",
            allow_plaintext_auth=True,
        )
        rule = AutomationRule("no-login", ReplyMatch("^535 ", stage=Stage.AUTH), Remedy.SUSPEND, 1200.0)
        login = {"relayhost": Login("relay", "wrong")}
        await house.open(fallback=route, retry=SLOW, credentials=login, automation=(rule,))
        number = await house.send("250@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(number))
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        assert heard(house, Kind.SUSPENDED)[0].stage is Stage.AUTH
        row = await reason_of(house, number)
        assert row["why"] == "automation" and "no-login" in str(row["text"])


async def test_a_session_that_is_dismissed_is_heard_once(house: House) -> None:
    """421 that ends a session with mail on it is one reply, though session and recipients all tell of it."""
    rule = rule_of(Remedy.SUSPEND, threshold=parse_rate("2/h"))
    await house.open(retry=SLOW, automation=(rule,))
    number = await house.send("421-1=too_much_mail@example.net", "250-2@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await asyncio.sleep(0.2)
    assert not heard(house, Kind.SUSPENDED)


async def test_what_is_said_to_an_idle_session_is_heard(house: House) -> None:
    """A 421 that no mail is under way for is a refusal of the site like others."""
    dialog = """
    <- 220 peer ESMTP
    -> EHLO relay.example.org
    <- 250 peer
    -> MAIL *
    <- 250 2.1.0 ok
    -> RCPT *
    <- 250 2.1.5 ok
    -> DATA
    <- 354 go
    -> ...
    <- 250 2.0.0 ok
    == stall 100
    <- 421 4.7.0 too much mail
    == close
    """
    async with smtp_peer(dialog) as peer:
        route = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", peer.port),), TlsLevel.NONE)
        await house.open(fallback=route, retry=SLOW, automation=(rule_of(Remedy.SUSPEND, duration=600.0),))
        number = await house.send("a@example.net")
        await house.until(lambda: bool(heard(house, Kind.SUSPENDED)))
        assert house.kinds(number) == [Kind.ACCEPTED, Kind.RELAYED]
        later = await house.send("b@example.net")
        assert (await reason_of(house, later))["why"] == "automation"
        assert peer.faults == []


async def test_relayed_mail_is_never_looked_at(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule is asked about mail that was relayed, to one recipient or many, but about the refusal among it."""
    asked: list[object] = []
    observe = Automation.observe
    monkeypatch.setattr(Automation, "observe", lambda *given: asked.append(given[3]) or observe(*given))
    await house.open(retry=SLOW, automation=(rule_of(Remedy.SUSPEND, ".*mail.*"),))
    for n in range(3):
        await house.send(f"250-{n}@example.net")
    await house.send(*[f"250-{n}@example.org" for n in range(5)])
    await house.until(lambda: len(heard(house, Kind.RELAYED)) == 8)
    assert house.server.relay.remedies.active and not asked
    await house.send("451@example.net", "250@example.net")
    await house.until(lambda: bool(heard(house, Kind.DELAYED)))
    assert len(asked) == 1


async def test_without_rules_nothing_is_asked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the presets off and no rule of one's own a refusal costs nothing more than before."""
    monkeypatch.setattr(Automation, "observe", lambda *given: pytest.fail("a rule was asked"))
    await house.open(retry=SLOW, automation_presets=False)
    number = await house.send("451@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    assert not house.server.relay.remedies.active


async def test_a_hint_sets_the_next_attempt(house: House) -> None:
    """A 4yz reply that names a time is tried again then, not by the schedule, and not before."""
    await house.open(retry=FAST)
    soon = await house.send("451.once=greylisted_for_2_seconds@example.net")
    late = await house.send("451=please_try_again_in_30_minutes@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(soon))
    times = [event.time for event in house.events if event.message == soon]
    assert 2.0 <= times[-1] - times[-2] < 4.0
    assert house.kinds(soon) == [Kind.ACCEPTED, Kind.DELAYED, Kind.RELAYED]
    [entry] = await house.server.spool.entries_of(late)
    assert 1790 < entry.due - time.time() <= 1800 * 1.15
    assert entry.attempts == 1
