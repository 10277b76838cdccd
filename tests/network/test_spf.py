"""SPF by pyspf over our own resolver and a real DNS server: each result, RFC 7208's limits, and a server that fails."""

import time
from collections.abc import AsyncIterator

import pytest
from dns_server import DnsServer, dns_server

from smarthost.network import spf as network_spf
from smarthost.network.dns import Resolver
from smarthost.network.spf import check_spf

MANY = "\n".join(f'many{n}.example. 300 IN TXT "v=spf1 ?ip4:203.0.113.{n}"' for n in range(11))
ZONE = f"""
pass.example. 300 IN TXT "v=spf1 ip4:192.0.2.0/24 -all"
fail.example. 300 IN TXT "v=spf1 ip4:198.51.100.1 -all"
soft.example. 300 IN TXT "v=spf1 ip4:198.51.100.1 ~all"
neutral.example. 300 IN TXT "v=spf1 ?all"
none.example. 300 IN TXT "unrelated"
two.example. 300 IN TXT "v=spf1 -all"
two.example. 300 IN TXT "v=spf1 +all"
include.example. 300 IN TXT "v=spf1 include:pass.example -all"
redirect.example. 300 IN TXT "v=spf1 redirect=pass.example"
mx.example. 300 IN TXT "v=spf1 mx -all"
mx.example. 300 IN MX 10 out.example.
out.example. 300 IN A 192.0.2.25
out.example. 300 IN AAAA 2001:db8::25
six.example. 300 IN TXT "v=spf1 a:out.example -all"
ptr.example. 300 IN TXT "v=spf1 ptr -all"
25.2.0.192.in-addr.arpa. 300 IN PTR host.ptr.example.
host.ptr.example. 300 IN A 192.0.2.25
alias.example. 300 IN CNAME pass.example.
void.example. 300 IN TXT "v=spf1 a:no1.example a:no2.example a:no3.example -all"
many.example. 300 IN TXT "v=spf1 {" ".join(f"include:many{n}.example" for n in range(11))} -all"
broken.example. 300 IN TXT "v=spf1 include:servfail.example -all"
relay.example. 300 IN TXT "v=spf1 ip4:192.0.2.25 -all"
{MANY}
"""


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """Serve the zone."""
    async with dns_server(ZONE) as server:
        yield server


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    """Give a resolver that asks the server."""
    return Resolver([server.address], time.time, lambda *_: None, lifetime=2.0)


@pytest.mark.parametrize(
    ("domain", "result", "mechanism"),
    [
        ("pass.example", "pass", "ip4:192.0.2.0/24"),
        ("fail.example", "fail", "-all"),
        ("soft.example", "softfail", "~all"),
        ("neutral.example", "neutral", "?all"),
        ("none.example", "none", ""),
        ("nothing.example", "none", ""),
        ("two.example", "permerror", ""),
        ("include.example", "pass", "include:pass.example"),
        ("redirect.example", "pass", "ip4:192.0.2.0/24"),
        ("mx.example", "pass", "mx"),
        ("ptr.example", "pass", "ptr"),
        ("alias.example", "pass", "ip4:192.0.2.0/24"),
        ("void.example", "permerror", ""),
        ("many.example", "permerror", ""),
        ("broken.example", "temperror", ""),
    ],
)
async def test_results(resolver: Resolver, domain: str, result: str, mechanism: str) -> None:
    """Each result of RFC 7208 2.6 with the term that decided, the limits of 4.6.4 among them."""
    found = await check_spf(resolver, "192.0.2.25", f"app@{domain}", "relay.example")
    assert (found.result, found.mechanism, found.domain) == (result, mechanism, domain)


async def test_an_ipv6_address_is_judged_by_its_own_records(resolver: Resolver) -> None:
    """The mechanism a looks up AAAA for an IPv6 address (RFC 7208 5)."""
    assert (await check_spf(resolver, "2001:db8::25", "a@six.example", "relay.example")).result == "pass"
    assert (await check_spf(resolver, "2001:db8::26", "a@six.example", "relay.example")).result == "fail"


async def test_a_null_reverse_path_is_judged_by_the_ehlo_name(resolver: Resolver) -> None:
    """Reports have no reverse-path: postmaster of the EHLO name stands for it (RFC 7208 2.4)."""
    found = await check_spf(resolver, "192.0.2.25", "", "relay.example")
    assert (found.result, found.domain) == ("pass", "relay.example")


async def test_it_asks_our_servers_alone_and_remembers(resolver: Resolver, server: DnsServer) -> None:
    """Lookups go through our resolver and its cache; pyspf's own are not used."""
    for _ in range(3):
        await check_spf(resolver, "192.0.2.25", "a@include.example", "relay.example")
    assert server.questions["include.example.", "TXT"] == server.questions["pass.example.", "TXT"] == 1


async def test_it_ends_in_time(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that do not answer make it a temporary error when patience ends, and no sooner or later failure."""
    monkeypatch.setattr(network_spf, "PATIENCE", 0.3)
    slow = Resolver([server.address], time.time, lambda *_: None, lifetime=5.0)
    found = await check_spf(slow, "192.0.2.25", "a@silent.example", "relay.example")
    assert found.result == "temperror"
