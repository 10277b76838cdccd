"""Explaining: what would become of a message, from the running relay's own state, and nothing is sent for it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dns_server import DnsServer, dns_server
from relay_house import SLOW, House

from smarthost.__main__ import main
from smarthost.cli.explain_format import format_explanation
from smarthost.config_types import DkimKey, Dns
from smarthost.control_verbs import Question, Refusal
from smarthost.crypto.dkim_keys import Algorithm, generate_key, load_key, public_record
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, Source, TlsLevel, Upstream
from smarthost.policy.admission import User
from smarthost.policy.bounce_terms import BounceTerms
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.rewriting import Rewrite
from smarthost.policy.routing import Match, RouteRule
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules
from smarthost.report.timestamp import parse_time

DEAD = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)
ZONE = """
example.net. 300 IN MX 10 mx1.example.net.
example.net. 300 IN MX 20 mx2.example.net.
mx1.example.net. 300 IN A 127.0.0.1
mx1.example.net. 300 IN AAAA ::1
mx2.example.net. 300 IN A 127.0.0.2
null.example. 300 IN MX 0 .
example.org. 300 IN TXT "v=spf1 ip4:192.0.2.25 -all"
_dmarc.example.org. 300 IN TXT "v=DMARC1; p=reject; sp=quarantine; aspf=s"
strict.example. 300 IN TXT "v=spf1 ip4:192.0.2.25 -all"
_dmarc.strict.example. 300 IN TXT "v=DMARC1; p=reject; adkim=s; aspf=s"
"""


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """Serve the zone."""
    async with dns_server(ZONE) as server:
        yield server


async def ask(house: House, recipient: str = "you@example.net", **more: str) -> dict[str, Any]:
    """Ask the running relay."""
    return await house.server.operations.explain(Question(recipient, **({"sender": "app@example.org"} | more)))


async def test_a_route_is_named_with_its_rule_and_its_hosts(house: House, server: DnsServer) -> None:
    """The rule that matched, its next hops, hosts, addresses and TLS are said; nothing is sent or queued."""
    ses = Route("ses", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1), NextHop("127.0.0.2", 2)), TlsLevel.VERIFY)
    rules = (
        RouteRule(Match(recipient=("*@other.example",)), Route("hold", Deliver.HOLD)),
        RouteRule(Match(sender=("*@example.org",), tag=("bulk",)), ses),
    )
    await house.open(route_rules=rules, dns=Dns((server.address,)))
    row = await ask(house, tag="bulk")
    assert row["verdict"] == "sent" and row["basis"] == "relay"
    assert row["route"]["name"] == "ses" and row["route"]["queue"] == "ses"
    assert row["route"]["rule"] == {"number": 2, "match": {"sender": ["*@example.org"], "tag": ["bulk"]}}
    assert [(host["name"], host["port"]) for host in row["hosts"]] == [("127.0.0.1", 1), ("127.0.0.2", 2)]
    assert row["hosts"][0]["tls"]["level"] == "verify" and "ses" in row["hosts"][0]["tls"]["because"]
    assert {"name": "max_connections", "value": 20}.items() <= row["limits"][0].items()
    assert (await ask(house))["route"]["rule"] is None
    assert (await ask(house, "you@other.example"))["verdict"] == "held"
    assert house.sink.counts.messages == 0 and (await house.server.spool.count())["total"] == 0


async def test_mx_hosts_come_in_their_order(house: House, server: DnsServer) -> None:
    """MX hosts stand by preference with all their addresses; null MX fails, and a fault of DNS leaves it open."""
    rules = (RouteRule(Match(tag=("mx",)), Route("mx", Deliver.MX, tls=TlsLevel.MAY)),)
    await house.open(route_rules=rules, dns=Dns((server.address,)))
    row = await ask(house, tag="mx")
    assert [host["name"] for host in row["hosts"]] == ["mx1.example.net", "mx2.example.net"]
    assert [each["address"] for each in row["hosts"][0]["addresses"]] == ["127.0.0.1", "::1"]
    assert row["site"]["name"].startswith("mx/mx1.example.net,")
    failing = await ask(house, "you@null.example", tag="mx")
    assert failing["verdict"] == "fails" and "null MX" in failing["site"]["fault"]
    assert (await ask(house, "you@servfail.example", tag="mx"))["verdict"] == "unresolved"


async def test_a_dead_site_is_said_to_be_left_alone(house: House, server: DnsServer) -> None:
    """Throttled by real mail: a new message would wait, until when and why; the address is named."""
    await house.open(fallback=DEAD, retry=SLOW, dns=Dns((server.address,)))
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    row = await ask(house)
    assert row["verdict"] == "waits" and row["earliest"]["why"] == "site_throttled"
    assert parse_time(row["earliest"]["at"]) > time.time()
    assert row["site"]["state"] == "throttled" and "throttled_until" in row["site"]
    assert "did not answer" in row["hosts"][0]["addresses"][0]["because"]


async def test_a_limit_in_use_is_said_to_hold(house: House, server: DnsServer) -> None:
    """A quota that is used up: the next message waits for it, and explain says until when."""
    limit = Limit(match=LimitMatch(), message_rate=("1/h",))
    await house.open(retry=SLOW, limits=(limit,), dns=Dns((server.address,)))
    assert (await ask(house))["verdict"] == "sent"
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    row = await ask(house)
    assert (row["verdict"], row["earliest"]["why"]) == ("waits", "rate_limited")
    assert any(each["name"] == "message_rate" and each["value"] == ["1/h"] for each in row["limits"])
    assert parse_time(row["earliest"]["at"]) > time.time() + 3000


async def test_signature_spf_and_dmarc(house: House, server: DnsServer, tmp_path: Path) -> None:
    """The key that signs and whether it is published, SPF for our address, and alignment, strict and relaxed."""
    key = tmp_path / "key.pem"
    generate_key(Algorithm.ED25519_SHA256, key, 2048)
    record = public_record(load_key("example.org", "s1", key))
    server.load(ZONE + f's1._domainkey.example.org. 300 IN TXT "{record}"')
    keys = (DkimKey("example.org", "s1", key), DkimKey("strict.example", "s1", key))
    await house.open(dkim=keys, dns=Dns((server.address,)))
    row = await ask(house, address="192.0.2.25")
    assert row["signatures"][0] | {"text": ""} == {
        "domain": "example.org",
        "selector": "s1",
        "algorithm": "ed25519-sha256",
        "published": True,
        "text": "",
    }
    assert (row["spf"][0]["result"], row["spf"][0]["mechanism"]) == ("pass", "ip4:192.0.2.25")
    assert "--address" in str((await ask(house))["spf"]) and "--address" not in str(row["spf"])
    assert (row["dmarc"]["result"], row["dmarc"]["policy"]) == ("pass", "reject")
    assert row["dmarc"]["dkim_aligned"] == ["example.org"] and row["dmarc"]["spf_aligned"]
    below = await ask(house, sender="app@mail.example.org", address="192.0.2.25")
    assert below["dmarc"]["policy"] == "quarantine" and below["dmarc"]["dkim_aligned"] == ["example.org"]
    other = await ask(house, author="app@mail.example.org", address="192.0.2.25")
    assert not other["dmarc"]["spf_aligned"] and other["dmarc"]["result"] == "pass"
    unpublished = await ask(house, sender="a@mail.strict.example", address="192.0.2.26")
    assert unpublished["signatures"][0]["published"] is False
    assert unpublished["dmarc"]["result"] == "fail" and unpublished["spf"][0]["result"] == "none"


async def test_bounces_that_come_back_are_judged_by_their_own_domain(house: House, server: DnsServer) -> None:
    """Mail that leaves with a return path of ours has its SPF judged at that domain, and a note says so."""
    terms = BounceTerms(domain="null.example", senders=("app@example.org",))
    await house.open(dns=Dns((server.address,)), bounces=terms)
    row = await ask(house, address="192.0.2.25")
    assert (row["spf"][0]["domain"], row["sender"]["reverse_path"]) == ("null.example", "app@example.org")
    assert any("[bounces]" in note for note in row["notes"])
    other = await ask(house, sender="other@example.org", address="192.0.2.25")
    assert other["spf"][0]["domain"] == "example.org" and not any("[bounces]" in note for note in other["notes"])


async def test_each_source_address_is_judged(house: House, server: DnsServer) -> None:
    """SPF for each address that a session may leave from; what one of them alone would pass does not align."""
    sources = (Source("192.0.2.25"), Source("192.0.2.26", hello="out2.example.org"))
    route = msgspec.structs.replace(DEAD, name="out", source_address=sources)
    await house.open(route_rules=(RouteRule(Match(), route),), dns=Dns((server.address,)))
    row = await ask(house)
    assert [(spf["address"], spf["result"]) for spf in row["spf"]] == [("192.0.2.25", "pass"), ("192.0.2.26", "fail")]
    assert not row["dmarc"]["spf_aligned"]


async def test_a_pool_is_told_with_all_its_upstreams(house: House, server: DnsServer) -> None:
    """Each upstream with its share and quota; one that cannot be used now says why, and the next one is the site."""
    hops = (NextHop("127.0.0.9", 1), NextHop("127.0.0.8", 2))
    routes = [msgspec.structs.replace(DEAD, next_hops=(hop,), upstream=str(hop)) for hop in hops]
    pool = (Upstream(routes[0], 0), Upstream(routes[1], 1, 2, ("5/h",)))
    await house.open(
        fallback=msgspec.structs.replace(DEAD, next_hops=hops, pool=pool), retry=SLOW, dns=Dns((server.address,))
    )
    row = await ask(house)
    assert row["route"]["upstream"] == str(hops[0])
    assert row["route"]["upstreams"][1] == {"name": str(hops[1]), "order": 1, "weight": 2, "quota": ["5/h"]}
    number = await house.send("250@example.net")
    await waiting_for(house, number, Why.NO_UPSTREAM)
    row = await ask(house)
    assert "because" in row["route"]["upstreams"][0] and row["earliest"]["why"] == Why.NO_UPSTREAM
    text = format_explanation(row, time.time())
    assert "upstream  [127.0.0.8]:2, order 1, weight 2, quota 5/h" in text and "not used until" in text


async def waiting_for(house: House, number: int, why: Why) -> None:
    """Wait until a message waits for a reason."""
    async with asyncio.timeout(15):
        while [row["why"] async for row in house.server.operations.why(number)] != [why]:
            await asyncio.sleep(0.02)


async def test_what_the_door_would_refuse(house: House, server: DnsServer) -> None:
    """A user who may not use the sender, a user who is nobody, a route that rejects; rewriting is told."""
    user = User("app1", "$argon2id$x", allowed_senders=("*@example.org",))
    rules = (RouteRule(Match(recipient=("*@bad.example",)), Route("no", Deliver.REJECT)),)
    rewrite = Rewrite("root@*", reverse_path="alerts@example.org", header_from="alerts@example.org")
    await house.open(users=(user,), route_rules=rules, rewrites=(rewrite,), dns=Dns((server.address,)))
    assert (await ask(house, user="app1"))["verdict"] == "sent"
    refused = await ask(house, user="app1", sender="x@example.com")
    assert refused["verdict"] == "refused" and refused["refusal"].startswith("553 5.7.1")
    assert "no [[user]]" in (await ask(house, user="app2"))["refusal"]
    assert (await ask(house, "x@bad.example"))["refusal"].startswith("550 5.7.1")
    rewritten = await ask(house, sender="root@localhost")
    assert rewritten["sender"]["reverse_path"] == rewritten["sender"]["author"] == "alerts@example.org"
    assert sum("[[rewrite]]" in note for note in rewritten["notes"]) == 2
    with pytest.raises(Refusal):
        await ask(house, address="192.0.2.256")
    for recipient in ("", "a@b@c", "x@" + "a" * 70 + ".example", "a b"):
        with pytest.raises(Refusal):
            await ask(house, recipient)


@pytest.mark.parametrize(("at", "verdict"), [("rcpt", "refused"), ("send", "suppressed")])
async def test_a_suppressed_recipient_gets_nothing(house: House, server: DnsServer, at: str, verdict: str) -> None:
    """Refused at RCPT, or accepted and failed on send, by configuration."""
    rules = SuppressionRules(enabled=True, at=SuppressionPoint(at))
    await house.open(suppression=rules, dns=Dns((server.address,)))
    assert (await ask(house, "550@example.net"))["verdict"] == "sent"
    number = await house.send("550@example.net")
    await house.until(lambda: Kind.FAILED in house.kinds(number))
    row = await ask(house, "550@example.net")
    assert row["verdict"] == verdict and "suppression list" in row["refusal"]


async def test_the_command_asks_the_relay_or_else_the_configuration(
    house: House, server: DnsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same question before and after the relay has stopped: its state is in the first answer alone, as it says."""
    config = tmp_path / "smarthost.toml"
    config.write_text(
        f'hostname = "relay.example.org"\ndata_directory = "{house.folder}"\nrelayhost = "[127.0.0.1]:1"\n'
        f'relayhost_tls = "none"\n[dns]\nservers = ["{server.address}"]\n[[route]]\nname = "mx"\ndeliver = "mx"\n'
        'match = { recipient = ["*@null.example"] }\n'
    )
    command = ["explain", "--config", str(config), "--sender", "app@example.org", "--address", "192.0.2.25"]

    async def run(*more: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, [*command, *more])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    await house.open(fallback=DEAD, retry=SLOW, dns=Dns((server.address,)))
    code, text = await run("you@example.net")
    assert code == 0 and "known from  the running relay" in text and "earliest" in text
    code, text = await run("you@nowhere@twice")
    assert (code, "is no address" in text) == (64, True)
    await house.close()
    code, text = await run("you@example.net")
    assert code == 0 and "the configuration alone" in text and "SPF  pass by ip4:192.0.2.25" in text
    assert "DMARC  it passes" in text
    code, text = await run("you@null.example", "--json")
    assert (code, json.loads(text)["verdict"]) == (68, "fails")
    assert (await run("you@nowhere@twice"))[0] == 64
    await house.sink.start()
    await house.open()


async def test_what_restrains_a_part_of_the_mail_holds_that_part_alone(house: House, server: DnsServer) -> None:
    """A limit of one sender's domain is told by its name and holds that sender; asking changes nothing for others."""
    limit = Limit(match=LimitMatch(sender_domain="slow.example"), message_rate=("1/h",), number=1)
    await house.open(retry=SLOW, limits=(limit,), dns=Dns((server.address,)))
    for _ in range(2):
        row = await ask(house, sender="a@slow.example")
        assert row["verdict"] == "sent"
    assert any("sender_domain slow.example" in each["source"] for each in row["limits"])
    number = await house.send("250@example.net", sender="a@slow.example")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    row = await ask(house, sender="b@slow.example")
    assert (row["verdict"], row["earliest"]["why"]) == ("waits", Why.RATE_LIMITED)
    assert "[[limit]] 1 (sender_domain slow.example)" in row["earliest"]["text"]
    other = await ask(house)
    assert other["verdict"] == "sent" and not any("slow.example" in each["source"] for each in other["limits"])
    numbers = [await house.send(f"250-{at}@example.net") for at in range(3)]
    await house.until(lambda: all(Kind.RELAYED in house.kinds(each) for each in numbers))
