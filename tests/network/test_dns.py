"""The resolver against a real server over UDP and TCP: answers, absences, failures, and how long each is remembered."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from dns_server import Clock, DnsServer, dns_server

from smarthost.network import dns_query
from smarthost.network.dns import Addresses, DnsFault, MxAnswer, Resolver

ZONE = """
example. 3600 IN SOA ns.example. root.example. 1 2 3 4 120
example. 300 IN MX 20 backup.example.
example. 300 IN MX 10 MAIL.example.
mail.example. 300 IN A 192.0.2.1
mail.example. 300 IN A 192.0.2.2
mail.example. 600 IN AAAA 2001:db8::1
backup.example. 5 IN A 192.0.2.9
six.example. 300 IN AAAA 2001:db8::6
alias.example. 60 IN CNAME mail.example.
far.example. 60 IN CNAME target.elsewhere.
null.example. 300 IN MX 0 .
text.example. 300 IN TXT "no address"
parts.example. 300 IN TXT "v=spf1 ip4:192.0" ".2.0/24 -all"
1.2.0.192.in-addr.arpa. 300 IN PTR Mail.example.
truncated.example. 300 IN A 192.0.2.7
long.example. 999999 IN A 192.0.2.8
"""


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """Serve the zone."""
    async with dns_server(ZONE) as server:
        yield server


@pytest.fixture
def resolver(server: DnsServer, clock: Clock) -> Resolver:
    """Give a resolver that asks the server."""
    return Resolver([server.address], clock, lambda *_: None, lifetime=0.4)


async def test_mx_records_come_with_their_preference(resolver: Resolver, clock: Clock) -> None:
    """MX records are pairs of preference and lower-case name, and expire with their TTL."""
    answer = await resolver.mx("example")
    assert isinstance(answer, MxAnswer)
    assert sorted(answer.records) == [(10, "mail.example"), (20, "backup.example")]
    assert answer.expires == clock.now + 300


async def test_null_mx_is_an_empty_name(resolver: Resolver) -> None:
    """A null MX has an empty host name."""
    answer = await resolver.mx("null.example")
    assert isinstance(answer, MxAnswer)
    assert answer.records == ((0, ""),)


async def test_addresses_of_both_families(resolver: Resolver, server: DnsServer, clock: Clock) -> None:
    """A and AAAA are asked for together; the shorter TTL counts."""
    found = await resolver.addresses("mail.example")
    assert isinstance(found, Addresses)
    assert (sorted(found.v4), found.v6) == (["192.0.2.1", "192.0.2.2"], ("2001:db8::1",))
    assert found.expires == clock.now + 300
    assert server.questions["mail.example.", "A"] == server.questions["mail.example.", "AAAA"] == 1


async def test_one_family_is_enough(resolver: Resolver, clock: Clock) -> None:
    """A host with IPv6 only is found; the negative answer for IPv4 holds for the SOA's minimum."""
    found = await resolver.addresses("six.example")
    assert found == Addresses((), ("2001:db8::6",), clock.now + 120, name="six.example")


async def test_texts_and_names_are_read(resolver: Resolver) -> None:
    """The strings of a TXT record are one text, without a space between; a PTR gives host names in lower case."""
    assert (await resolver.records("parts.example", "TXT")).texts == (b"v=spf1 ip4:192.0.2.0/24 -all",)
    assert (await resolver.records("1.2.0.192.in-addr.arpa", "PTR")).names == ("mail.example",)
    assert (await resolver.records("mail.example", "TXT")).fault is DnsFault.NO_RECORDS


async def test_aliases_are_followed(resolver: Resolver, clock: Clock) -> None:
    """A CNAME leads to the target's addresses, for no longer than the alias holds."""
    found = await resolver.addresses("alias.example")
    assert isinstance(found, Addresses)
    assert sorted(found.v4) == ["192.0.2.1", "192.0.2.2"]
    assert found.expires == clock.now + 60


async def test_an_alias_without_its_target_is_asked_again(server: DnsServer, resolver: Resolver) -> None:
    """Where a server gives an alias alone, its target is a question of its own."""
    server.load(ZONE.replace("far.example. 60 IN CNAME target.elsewhere.", "target.elsewhere. 60 IN A 192.0.2.77"))
    fill = server.fill

    def fill_alias_alone(response, name, rdtype):  # type: ignore[no-untyped-def]
        if name.to_text() == "far.example.":
            response.answer.append(dns_rrset("far.example.", "CNAME", "target.elsewhere."))
        else:
            fill(response, name, rdtype)

    server.fill = fill_alias_alone  # type: ignore[method-assign]
    found = await resolver.addresses("far.example")
    assert isinstance(found, Addresses)
    assert found.v4 == ("192.0.2.77",)


def dns_rrset(name: str, rdtype: str, text: str):  # type: ignore[no-untyped-def]
    """Make one record set."""
    return dns_query.dns.rrset.from_text(name, 60, "IN", rdtype, text)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("absent.example", DnsFault.NO_NAME),
        ("text.example", DnsFault.NO_RECORDS),
        ("servfail.example", DnsFault.TEMPORARY),
        ("refused.example", DnsFault.TEMPORARY),
        ("silent.example", DnsFault.TEMPORARY),
        ("garbage.example", DnsFault.TEMPORARY),
        (f"{'x' * 64}.example", DnsFault.BAD_NAME),
        ("two..dots.example", DnsFault.BAD_NAME),
        ("", DnsFault.BAD_NAME),
    ],
)
async def test_faults_are_told_apart(resolver: Resolver, name: str, fault: DnsFault) -> None:
    """Absence of the name, absence of records and failure of the servers are different values, never exceptions."""
    assert await resolver.mx(name) is fault
    assert await resolver.addresses(name) is fault


async def test_truncated_answers_come_over_tcp(resolver: Resolver, server: DnsServer) -> None:
    """A truncated UDP answer is asked for again over TCP."""
    found = await resolver.addresses("truncated.example")
    assert isinstance(found, Addresses)
    assert found.v4 == ("192.0.2.7",)
    assert server.over_tcp == 2


async def test_answers_are_remembered_for_their_ttl(resolver: Resolver, server: DnsServer, clock: Clock) -> None:
    """An answer is asked for once in its TTL, whatever the spelling; a short TTL counts as 30 s."""
    for name in ("backup.example", "BACKUP.example.", "backup.example"):
        await resolver.addresses(name)
    assert server.questions["backup.example.", "A"] == 1
    clock.now += 29
    await resolver.addresses("backup.example")
    assert server.questions["backup.example.", "A"] == 1
    clock.now += 2
    await resolver.addresses("backup.example")
    assert server.questions["backup.example.", "A"] == 2


async def test_long_ttl_is_cut_to_a_day(resolver: Resolver, clock: Clock) -> None:
    """No answer holds for more than a day."""
    found = await resolver.addresses("long.example")
    assert isinstance(found, Addresses)
    assert found.expires <= clock.now + 86_400


async def test_absence_is_remembered(resolver: Resolver, server: DnsServer, clock: Clock) -> None:
    """A negative answer holds for the SOA's minimum, here 120 s."""
    await resolver.mx("absent.example")
    clock.now += 119
    await resolver.mx("absent.example")
    assert server.questions["absent.example.", "MX"] == 1
    clock.now += 2
    await resolver.mx("absent.example")
    assert server.questions["absent.example.", "MX"] == 2


async def test_failure_is_remembered_for_half_a_minute(resolver: Resolver, server: DnsServer, clock: Clock) -> None:
    """A failing server is not asked for the same again within 30 s."""
    await resolver.mx("servfail.example")
    asked = server.questions["servfail.example.", "MX"]
    await resolver.mx("servfail.example")
    assert server.questions["servfail.example.", "MX"] == asked
    clock.now += 31
    await resolver.mx("servfail.example")
    assert server.questions["servfail.example.", "MX"] > asked


async def test_a_failing_family_is_not_waited_for_long(resolver: Resolver, server: DnsServer, clock: Clock) -> None:
    """Where AAAA fails for the moment, the IPv4 addresses serve until it is asked again."""
    server.failing.add(("mail.example.", "AAAA"))
    found = await resolver.addresses("mail.example")
    assert isinstance(found, Addresses)
    assert (len(found.v4), found.v6, found.expires) == (2, (), clock.now + 30)


async def test_one_question_at_a_time_for_a_name(resolver: Resolver, server: DnsServer) -> None:
    """Fifty who want the same wait for one question; one who gives up takes nothing from the others."""
    server.delay = 0.05
    asking = [asyncio.create_task(resolver.mx("example")) for _ in range(50)]
    await asyncio.sleep(0.01)
    asking[0].cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert server.questions["example.", "MX"] == 1
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, MxAnswer) for answer in answers[1:])


async def test_clear_forgets(resolver: Resolver, server: DnsServer) -> None:
    """After clear everything is asked for again."""
    await resolver.mx("example")
    resolver.clear()
    await resolver.mx("example")
    assert server.questions["example.", "MX"] == 2


async def test_memory_is_bounded(server: DnsServer, clock: Clock) -> None:
    """Beyond the bound the oldest answer is forgotten."""
    resolver = Resolver([server.address], clock, lambda *_: None)
    resolver.max_cached = 2
    for name in ("example", "null.example", "absent.example", "example"):
        await resolver.mx(name)
    assert server.questions["example.", "MX"] == 2


async def test_questions_are_observed(server: DnsServer, clock: Clock) -> None:
    """Each question that goes out is told with its type and result; a remembered answer is not."""
    seen: list[tuple[str, str, float]] = []
    resolver = Resolver([server.address], clock, lambda *what: seen.append(what))
    await resolver.mx("example")
    await resolver.mx("example")
    await resolver.mx("absent.example")
    assert [(rdtype, result) for rdtype, result, _ in seen] == [("MX", "ok"), ("MX", "nxdomain")]
    assert all(0 < seconds < 1 for _, _, seconds in seen)


@pytest.mark.parametrize("content", [None, "", "# nothing\nsearch example\n", "nameserver nonsense\n"])
async def test_a_system_without_servers_is_no_reason_to_stop(
    content: str | None, tmp_path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A resolv.conf that is missing, empty or wrong means the server on this machine."""
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(dns_query, "RESOLV_CONF", str(path))
    stub = dns_query.make_stub([])
    assert [str(server) for server in stub.nameservers] in (["127.0.0.1"], ["Do53:127.0.0.1@53"])
    Resolver([], clock, lambda *_: None)


@pytest.mark.parametrize("server", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[::1]:5353"])
def test_servers_are_read(server: str) -> None:
    """A server is an address with or without a port."""
    (found,) = dns_query.make_stub([server]).nameservers
    assert str(found).endswith("@5353" if "5353" in server else "@53")


@pytest.mark.parametrize("server", ["dns.example", "127.0.0.1:x", "", "[::1"])
def test_a_server_that_is_no_address_is_refused(server: str) -> None:
    """A server's name, or nonsense, raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        dns_query.make_stub([server])
