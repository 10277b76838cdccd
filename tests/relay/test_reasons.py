"""Why mail waits: what is shown can be asked for and acted on, with since when and until when."""

import asyncio
import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dns_server import dns_server
from relay_house import SLOW, House

from smarthost.config_types import DeliverySettings, Dns, Login
from smarthost.control_verbs import Question, Suspend
from smarthost.mail.entry import PARKED, Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel, Upstream
from smarthost.policy.automation import AutomationRule, Remedy, ReplyMatch
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.routing import Match, RouteRule
from smarthost.policy.waiting import SENTENCES
from smarthost.report.timestamp import parse_time
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter
from smarthost.status import take_gauges

BY_MX = (RouteRule(Match(), Route("mx", Deliver.MX, tls=TlsLevel.NONE)),)
DEAD = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)


async def shown(house: House, wanted: Filter) -> list[str]:
    """Give the reasons that `queue list` shows."""
    return [row["why"] async for row in house.server.operations.queue_list(wanted, 0)]


async def test_a_throttled_site_can_be_asked_for_and_acted_on(house: House) -> None:
    """All of a dead site's mail is found by site_throttled, nothing of it by new, and bulk verbs see the same."""
    await house.open(fallback=DEAD, retry=SLOW)
    sent_at = time.time()
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await house.until(lambda: any(Kind.DELAYED in house.kinds(number) for number in numbers))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    operations = house.server.operations
    throttled = Filter(why=Why.SITE_THROTTLED)
    assert await shown(house, throttled) == ["site_throttled"] * 3
    assert await shown(house, Filter(why="new")) == []
    row = [row async for row in operations.why(numbers[-1])].pop()
    assert sent_at - 1 <= parse_time(row["since"]) <= time.time() < parse_time(row["until"])
    assert (await operations.queue_hold(Filter(why="new"), False))["entries"] == 0
    assert (await operations.queue_hold(throttled, True))["entries"] == 3
    assert (await operations.queue_hold(throttled, False))["entries"] == 3
    assert await shown(house, throttled) == []
    assert await shown(house, Filter(why="held")) == ["held"] * 3


async def test_a_refused_login_is_named(house: House) -> None:
    """535 at AUTH: the mail waits for the login's pause, five minutes, and one entry alone has spent an attempt."""
    guarded = Sink(SinkSettings(username="relay", password="right"))
    await guarded.start()
    route = Route(
        "relayhost",
        Deliver.RELAYHOST,
        (NextHop("127.0.0.1", guarded.address[1]),),
        TlsLevel.NONE,
        login="relayhost",
        allow_plaintext_auth=True,
    )
    await house.open(fallback=route, retry=SLOW, credentials={"relayhost": Login("relay", "wrong")})
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await house.until(lambda: any(Kind.DELAYED in house.kinds(number) for number in numbers))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    assert await shown(house, Filter(why=Why.LOGIN_PAUSED)) == ["login_paused"] * 3
    attempts = [(await house.server.spool.entries_of(number))[0].attempts for number in numbers]
    assert sorted(attempts) == [0, 0, 1]
    row = [row async for row in house.server.operations.why(numbers[attempts.index(0)])].pop()
    assert "535" in row["text"] and "wrong" not in row["text"]
    assert 250 < parse_time(row["until"]) - time.time() <= 300
    await guarded.stop()


async def test_a_rate_limit_is_named(house: House) -> None:
    """What waits for a rate says so, until when, and leaves when it may."""
    limit = Limit(match=LimitMatch(), message_rate=("1/h",), number=1)
    await house.open(retry=SLOW, limits=(limit,))
    numbers = [await house.send(f"250-{n}@example.net") for n in range(2)]
    await house.until(lambda: Kind.RELAYED in house.kinds(numbers[0]))
    await house.until(lambda: not house.server.relay.settler.pending)
    assert await shown(house, Filter(why=Why.RATE_LIMITED)) == ["rate_limited"]
    row = [row async for row in house.server.operations.why(numbers[1])].pop()
    assert row["until"] is not None and "message_rate 1/h of [[limit]] 1." in row["text"]


async def test_the_rate_that_holds_longest_is_named(house: House) -> None:
    """RATE_LIMITED: of several rates and limits the very one, by its number and what it is about."""
    limits = (
        Limit(match=LimitMatch(route="other"), message_rate=("1/d",), number=1),
        Limit(match=LimitMatch(route="relayhost"), message_rate=("2/s", "3/h"), number=2),
        Limit(match=LimitMatch(), max_connections=3, number=3),
    )
    await house.open(retry=SLOW, limits=limits)
    numbers = [await house.send(f"250-{n}@example.net") for n in range(4)]
    await house.until(lambda: sum(Kind.RELAYED in house.kinds(number) for number in numbers) == 3)
    await house.until(lambda: not house.server.relay.settler.pending)
    row = await waiting(house, Why.RATE_LIMITED, numbers[3])
    assert "message_rate 3/h of [[limit]] 2 (route relayhost)" in row["text"]
    explained = await house.server.operations.explain(Question("250@example.net"))
    assert "message_rate 3/h of [[limit]] 2 (route relayhost)" in explained["earliest"]["text"]
    sources = {each["name"]: each["source"] for each in explained["limits"]}
    assert sources["message_rate"] == "[[limit]] 2 (route relayhost)" and sources["idle_timeout"] == "default"
    assert sources["max_connections"] == "[[limit]] 3"


async def test_a_rate_of_recipients_is_named(house: House) -> None:
    """RATE_LIMITED: recipients are counted, too, and that rate is told by its own key."""
    limit = Limit(match=LimitMatch(), message_rate=("100/s",), recipient_rate=("1/h",), number=1)
    await house.open(retry=SLOW, limits=(limit,))
    first = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    await house.until(lambda: not house.server.relay.settler.pending)
    row = await waiting(house, Why.RATE_LIMITED, await house.send("250-2@example.net"))
    assert "recipient_rate 1/h of [[limit]] 1." in row["text"]


async def test_a_connection_rate_is_named(house: House) -> None:
    """RATE_LIMITED: no session may be opened yet; which rate, of which limit."""
    limit = Limit(match=LimitMatch(), max_connection_rate="1/h", max_messages_per_connection=1, number=1)
    await house.open(retry=SLOW, limits=(limit,))
    first = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    await house.until(lambda: not house.server.relay.settler.pending)
    row = await waiting(house, Why.RATE_LIMITED, await house.send("250-2@example.net"))
    assert "max_connection_rate 1/h of [[limit]] 1." in row["text"]


async def test_since_is_the_last_that_happened(house: House) -> None:
    """A delayed message waits since its attempt, a held one since it was held; one in delivery says so."""
    await house.open(retry=SLOW)
    number = await house.send("451@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    operations = house.server.operations
    for kind, act in ((Kind.DELAYED, None), (Kind.HELD, operations.queue_hold)):
        if act is not None:
            await act(Filter(ids=(number,)), False)
        row = [row async for row in operations.why(number)].pop()
        told = next(event.time for event in reversed(house.events) if event.event is kind)
        assert abs(parse_time(row["since"]) - told) < 0.01
    hanging = await house.send("hang@example.net")
    await house.until(lambda: house.server.relay.dispatcher_of("relayhost") is not None)
    row = [row async for row in operations.why(hanging)].pop()
    assert "in delivery" in row["text"]


async def told(house: House, message: int) -> dict[str, Any]:
    """Give what `why` says of a message with one entry."""
    [row] = [row async for row in house.server.operations.why(message)]
    return row


async def waiting(house: House, why: Why, message: int) -> dict[str, Any]:
    """Wait until a message waits for a reason; `queue list` and its filter must say the same then."""
    async with asyncio.timeout(15):
        while (row := await told(house, message))["why"] != why:
            await asyncio.sleep(0.02)
    assert [*await shown(house, Filter(why=why))] == [why]
    assert row["text"] and row["since"]
    return row


async def test_new_waits_for_its_first_attempt(house: House) -> None:
    """NEW: while DNS is asked where to send it."""
    async with dns_server("") as server:
        await house.open(route_rules=BY_MX, dns=Dns((server.address,)))
        row = await waiting(house, Why.NEW, await house.send("you@silent.example"))
        assert "just arrived" in row["text"] and "Its site is being looked up in DNS" in row["text"]


async def test_new_names_the_policy_that_is_fetched(house: House) -> None:
    """NEW: while an MTA-STS policy is fetched from a web server that does not answer."""
    by_sts = (RouteRule(Match(), Route("mx", Deliver.MX, mta_sts=True)),)
    zone = """
    slow.example. 60 IN MX 1 mx.slow.example.
    mx.slow.example. 60 IN A 127.0.0.1
    _mta-sts.slow.example. 60 IN TXT "v=STSv1; id=1"
    mta-sts.slow.example. 60 IN A 127.0.0.1
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with dns_server(zone) as server:
            await house.open(route_rules=by_sts, dns=Dns((server.address,)))
            house.server.relay.sts._port = silent.getsockname()[1]
            row = await waiting(house, Why.NEW, number := await house.send("you@slow.example"))
            while "being fetched" not in row["text"]:
                await asyncio.sleep(0.02)
                row = await told(house, number)
            assert "The MTA-STS policy of slow.example is being fetched; it waits 30 s" in row["text"]


async def test_ambiguous_says_what_may_have_happened(house: House) -> None:
    """AMBIGUOUS: the peer hung up behind the content; until its next attempt."""
    await house.open(retry=SLOW)
    row = await waiting(house, Why.AMBIGUOUS, await house.send("drop-dot@example.net"))
    assert "may have taken it" in row["text"] and parse_time(row["until"]) > time.time() + 300


async def test_next_host_says_that_the_attempt_goes_on(house: House) -> None:
    """NEXT_HOST: one of two hosts has put it off, and the other one keeps us waiting for its greeting."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    one = Sink(SinkSettings(listen="127.0.0.2:0"))
    await one.start()
    other = await asyncio.start_server(silent, "127.0.0.3", one.address[1])
    hops = NextHop("127.0.0.2", one.address[1]), NextHop("127.0.0.3", one.address[1])
    route = Route("relayhost", Deliver.RELAYHOST, hops, TlsLevel.NONE)
    await house.open(retry=SLOW, fallback=route)
    row = await waiting(house, Why.NEXT_HOST, await house.send("data-451@example.net"))
    assert "another one" in row["text"]
    await house.close()
    other.close()
    await one.stop()


async def test_retry_has_the_reply_and_the_time(house: House) -> None:
    """RETRY: with the peer's words, until the time on the schedule."""
    await house.open(retry=SLOW)
    row = await waiting(house, Why.RETRY, await house.send("451@example.net"))
    assert "Last: 451 " in row["text"] and parse_time(row["until"]) > time.time() + 300


async def test_busy_waits_for_a_connection(house: House) -> None:
    """SITE_BUSY: the one connection that is allowed carries another message; nobody knows until when."""
    await house.open(retry=SLOW, limits=(Limit(match=LimitMatch(), max_connections=1),))
    await house.send("hang@example.net")
    await house.until(lambda: house.server.relay.dispatcher_of("relayhost") is not None)
    row = await waiting(house, Why.SITE_BUSY, await house.send("250@example.net"))
    assert row["until"] is None and row["text"].endswith("Reason: max_connections 1 of [[limit]] 0.")
    explained = await house.server.operations.explain(Question("250-2@example.net"))
    assert explained["earliest"]["why"] == Why.SITE_BUSY and explained["earliest"]["at"] is None
    assert "max_connections 1 of [[limit]] 0" in explained["earliest"]["text"]


async def test_busy_waits_for_those_on_the_same_hosts(house: House) -> None:
    """SITE_BUSY: the connection that the limit allows belongs to another site of these hosts, which is said."""
    await house.open(retry=SLOW, limits=(Limit(match=LimitMatch(), max_connections=1),))
    relay = house.server.relay
    place = f"relayhost/[127.0.0.1]:{house.sink.address[1]}"

    class Stranger:
        rank, is_slow = 0, False

        def work(self) -> None:
            pass

        def spare_idle(self, most: int) -> int:
            return 0

        def spare_busy(self, before: float) -> int:
            return 0

        def cut_stalled(self, seconds: float) -> int:
            return 0

    taken = relay.sharing.take(Stranger(), place, 1)
    assert taken is not None
    explained = await house.server.operations.explain(Question("250-2@example.net"))
    assert explained["earliest"]["why"] == Why.SITE_BUSY
    number = await house.send("250@example.net")
    row = await waiting(house, Why.SITE_BUSY, number)
    assert row["text"].endswith(f"[[limit]] 0, which all sites on the hosts of {place} have together.")
    taken.give_back()
    await house.until(lambda: Kind.RELAYED in house.kinds(number))


async def test_busy_relay_waits_for_its_turn(house: House) -> None:
    """RELAY_BUSY: the one connection that all sites may have carries another site's message."""
    await house.sink.start()
    other = Sink(SinkSettings())
    await other.start()
    route = Route("other", Deliver.RELAYHOST, (NextHop("127.0.0.1", other.address[1]),), TlsLevel.NONE)
    rules = (RouteRule(Match(recipient=("*@other.example",)), route),)
    await house.open(retry=SLOW, route_rules=rules, delivery=DeliverySettings(1))
    await house.send("hang@other.example")
    await house.until(lambda: house.server.relay.sharing.total.taken == 1)
    row = await waiting(house, Why.RELAY_BUSY, await house.send("250@example.net"))
    assert row["until"] is None and "[delivery] max_connections" in row["text"]
    explained = await house.server.operations.explain(Question("250-2@example.net"))
    assert explained["earliest"]["why"] == Why.RELAY_BUSY and explained["verdict"] == "waits"
    gauges = await take_gauges(house.server.relay)
    assert gauges.delivery_connections == {"taken": 1, "allowed": 1} and gauges.delivery_sites_waiting == 1
    await other.stop()


async def test_busy_dns_waits_for_its_turn(house: House) -> None:
    """DNS_BUSY: while look-ups wait for their turn, who is being looked up says so."""
    async with dns_server("") as server:
        await house.open(route_rules=BY_MX, dns=Dns((server.address,)))
        relay = house.server.relay
        relay.questions._turns = asyncio.Semaphore(1)
        await house.send("you@silent.example")
        await house.until(lambda: relay.questions.running == 1)
        number = await house.send("you@silent2.example")
        await house.until(lambda: relay.questions.waiting == 1)
        row = await told(house, number)
        assert row["why"] == Why.DNS_BUSY and "each has its turn" in row["text"]
        assert set(await shown(house, Filter(why=Why.DNS_BUSY))) == {Why.DNS_BUSY}
        assert (await take_gauges(house.server.relay)).dns_questions == {"running": 1, "waiting": 1}


async def test_unresolved_names_the_fault_for_all_who_wait(house: House) -> None:
    """UNRESOLVED: who has had the attempt, and who came behind it, say that DNS gave no answer."""
    async with dns_server("") as server:
        await house.open(route_rules=BY_MX, retry=SLOW, dns=Dns((server.address,)))
        first = await house.send("you@servfail.example")
        await waiting(house, Why.UNRESOLVED, first)
        second = await house.send("me@servfail.example")
        row = await told(house, second)
        assert row["why"] == Why.UNRESOLVED and "servfail.example cannot be looked up" in row["text"]
        assert time.time() < parse_time(row["until"]) < time.time() + 120
        assert await shown(house, Filter(why=Why.UNRESOLVED)) == [Why.UNRESOLVED] * 2


async def test_a_tls_policy_names_the_domain_and_its_hosts(house: House) -> None:
    """TLS_POLICY: an MTA-STS policy that is known lists another host than DNS names; the whole queue says so."""
    folder = house.folder / "mta-sts"
    folder.mkdir(parents=True, mode=0o700)
    text = "version: STSv1\nmode: enforce\nmx: mx.good.example\nmax_age: 86400\n"
    folder.joinpath("good.example.json").write_text(json.dumps({"id": "1", "fetched": time.time(), "text": text}))
    async with dns_server("good.example. 60 IN MX 1 evil.example.\nevil.example. 60 IN A 192.0.2.1") as server:
        by_sts = (RouteRule(Match(), Route("mx", Deliver.MX, mta_sts=True)),)
        await house.open(route_rules=by_sts, retry=SLOW, dns=Dns((server.address,)))
        row = await waiting(house, Why.TLS_POLICY, await house.send("you@good.example"))
        assert "MTA-STS policy of good.example lists none of its hosts: evil.example" in row["text"]
        assert time.time() < parse_time(row["until"])


async def test_automation_names_the_rule_and_the_reply(house: House) -> None:
    """AUTOMATION: the rule's name, the words that led to it, and its end."""
    rule = AutomationRule("blocked", ReplyMatch("^451 "), Remedy.SUSPEND, duration=600.0)
    await house.open(retry=SLOW, automation=(rule,))
    row = await waiting(house, Why.AUTOMATION, await house.send("451@example.net"))
    assert "rule blocked" in row["text"] and "451 " in row["text"]
    assert parse_time(row["until"]) > time.time() + 300


@pytest.mark.parametrize(
    ("why", "quota", "word"),
    [(Why.QUOTA_USED, ("1/h",), "quota of 1/h is used up"), (Why.NO_UPSTREAM, (), "connection refused")],
)
async def test_upstreams_that_cannot_be_used_are_named(
    house: House, why: Why, quota: tuple[str, ...], word: str
) -> None:
    """QUOTA_USED and NO_UPSTREAM: each upstream of the pool with its obstacle, and until when."""
    await house.sink.start()
    hops = (NextHop("127.0.0.1", house.sink.address[1] if quota else 1), NextHop("127.0.0.9", 1))
    routes = [msgspec.structs.replace(DEAD, next_hops=(hop,), upstream=str(hop)) for hop in hops]
    pool = tuple(Upstream(route, order, 1, quota) for order, route in enumerate(routes))
    await house.open(retry=SLOW, fallback=msgspec.structs.replace(DEAD, next_hops=hops, pool=pool))
    if quota:
        number = await house.send("250@example.net")
        await house.until(lambda: Kind.RELAYED in house.kinds(number))
    row = await waiting(house, why, await house.send("250-2@example.net"))
    assert word in row["text"] and parse_time(row["until"]) > time.time()


async def test_suspended_names_the_person_s_words(house: House) -> None:
    """SUSPENDED: what was suspended, why, and until when."""
    await house.open(retry=SLOW)
    await house.server.operations.suspension.suspend(Suspend("route", "relayhost", 600.0, "moving house"))
    row = await waiting(house, Why.SUSPENDED, await house.send("250@example.net"))
    assert "moving house" in row["text"] and parse_time(row["until"]) > time.time() + 300


async def test_scheduled_says_until_when(house: House) -> None:
    """SCHEDULED: until the time that its sender asked for."""
    await house.open()
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    content = f"X-Smarthost-Send-At: {when.isoformat()}\r\nSubject: x\r\n\r\nhello\r\n"
    row = await waiting(house, Why.SCHEDULED, await house.send("250@example.net", content=content))
    assert parse_time(row["until"]) == when.timestamp()


@pytest.mark.parametrize("why", sorted(PARKED))
async def test_parked_waits_for_a_person(house: House, why: Why) -> None:
    """HELD, REPORT_FAILED, INTERNAL_ERROR, CONTENT_LOST: no end by itself, and what was the matter."""
    await house.open(retry=SLOW)
    number = await house.send("451@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    [entry] = await house.server.spool.entries_of(number)
    assert house.server.relay.scheduler.claim(entry)
    house.server.relay.settler.park(entry, why, "what was the matter")
    await house.until(lambda: not house.server.relay.settler.pending)
    row = await waiting(house, why, number)
    assert row["until"] is None and "what was the matter" in row["text"]


def test_every_reason_has_its_test() -> None:
    """A reason that is added has a sentence, a test in this file that names it, and a row in docs/operating.md."""
    source = Path(__file__).read_text()
    missing = [why.name for why in Why if why not in PARKED and f"Why.{why.name}" not in source]
    assert not missing and set(SENTENCES) == set(Why)
    manual = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    chapter = manual.partition("## Why is this message still here?")[2].partition("\n## ")[0]
    assert [why for why in Why if f"`{why}`" not in chapter] == []
