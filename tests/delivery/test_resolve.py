"""Finding sites through a real DNS server: MX rules, next hops, what fails and what delays, names and memory."""

import math
from collections.abc import AsyncIterator
from random import Random

import msgspec
import pytest
from dns_server import Clock, DnsServer, dns_server

from smarthost.delivery.resolve import Sites, Unresolved, name_by_hosts
from smarthost.mail.entry import Why
from smarthost.mail.outcome import Action
from smarthost.mail.route import Deliver, Host, NextHop, Route, Site, StsMode, TlsLevel
from smarthost.network.dns import Dnssec, Resolver
from smarthost.policy.security import decide
from smarthost.wire.sts_policy import StsPolicy

ZONE = """
example. 3600 IN SOA ns.example. root.example. 1 2 3 4 120
example. 300 IN MX 20 backup.example.
example. 300 IN MX 10 mail1.example.
example. 300 IN MX 10 mail2.example.
hosted.example. 600 IN MX 5 MAIL2.example.
twin.example. 600 IN MX 1 mail2.example.
twin.example. 600 IN MX 1 mail1.example.
hosted.example. 600 IN MX 5 mail1.example.
mail1.example. 300 IN A 192.0.2.1
mail1.example. 300 IN AAAA 2001:db8::1
mail2.example. 300 IN A 192.0.2.2
backup.example. 300 IN A 192.0.2.3
implicit.example. 60 IN A 192.0.2.4
alias.example. 60 IN CNAME example.
null.example. 300 IN MX 0 .
text.example. 300 IN TXT "nothing"
lost.example. 300 IN MX 10 gone.example.
lost.example. 300 IN MX 20 silent.example.
nowhere.example. 300 IN MX 10 gone.example.
half.example. 300 IN MX 10 gone.example.
half.example. 300 IN MX 20 backup.example.
loop.example. 300 IN MX 10 relay.example.
loop.example. 300 IN MX 20 backup.example.
second.example. 300 IN MX 10 mail1.example.
second.example. 300 IN MX 20 relay.example.
second.example. 300 IN MX 30 backup.example.
relay.example. 300 IN A 192.0.2.99
many.example. 300 IN A 192.0.2.10
many.example. 300 IN A 192.0.2.11
many.example. 300 IN A 192.0.2.12
many.example. 300 IN A 192.0.2.13
many.example. 300 IN A 192.0.2.14
many.example. 300 IN A 192.0.2.15
many.example. 300 IN AAAA 2001:db8::10
"""
MX = Route("direct", Deliver.MX)
BY_STS = Route("direct", Deliver.MX, mta_sts=True)


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """Serve the zone."""
    async with dns_server(ZONE) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """Give a clock that a test moves."""
    return Clock()


@pytest.fixture
def sites(server: DnsServer, clock: Clock) -> Sites:
    """Give what is tested."""
    resolver = Resolver([server.address], clock, lambda *_: None, lifetime=1.5)
    return Sites(resolver, ["relay.example"], Random(7), clock)


def relayhost(*hops: NextHop) -> Route:
    """Make a route to next hops."""
    return Route("ses", Deliver.RELAYHOST, hops)


async def found(sites: Sites, route: Route, domain: str = "any.example") -> Site:
    """Resolve, and have it succeed."""
    site = await sites.resolve(route, domain)
    assert isinstance(site, Site), site
    return site


async def test_mx_by_preference(sites: Sites, clock: Clock) -> None:
    """Hosts come by preference, with their addresses, IPv4 first, and the shortest time."""
    site = await found(sites, MX, "example")
    assert {host.name for host in site.hosts[:2]} == {"mail1.example", "mail2.example"}
    assert site.hosts[2] == Host("backup.example", ("192.0.2.3",), 25, preference=20)
    assert {host.addresses for host in site.hosts} >= {("192.0.2.1", "2001:db8::1")}
    assert site.route is MX
    # The absence of AAAA records holds for 120 s only.
    assert site.expires == clock.now + 120


async def test_equal_preference_is_shuffled(server: DnsServer, clock: Clock) -> None:
    """Hosts of one preference come in a random order."""
    firsts = set()
    for seed in range(12):
        resolver = Resolver([server.address], clock, lambda *_: None)
        firsts.add((await found(Sites(resolver, [], Random(seed), clock), MX, "example")).hosts[0].name)
    assert firsts == {"mail1.example", "mail2.example"}


async def test_domains_on_the_same_hosts_share_a_site(sites: Sites) -> None:
    """The site's name is made of the best hosts, sorted, whatever the domain; the route keeps routes apart."""
    one, other = await found(sites, MX, "hosted.example"), await found(sites, MX, "twin.example")
    assert one.name == other.name == "direct/mail1.example,mail2.example"


async def test_a_domain_with_a_backup_of_its_own_has_a_site_of_its_own(sites: Sites) -> None:
    """Mail for one domain must never be given to the backup host of another, whose best hosts are the same."""
    one, other = await found(sites, MX, "hosted.example"), await found(sites, MX, "example")
    assert other.name.startswith("direct/mail1.example,mail2.example,") and other.name != one.name


def test_names_of_large_sites_are_short() -> None:
    """Beyond three hosts a hash stands for the rest."""
    name = name_by_hosts([Host(f"mx{number}.example", ()) for number in range(9)])
    assert name.startswith("mx0.example,mx1.example,mx2.example,")
    assert len(name) == len("mx0.example,mx1.example,mx2.example,") + 8


async def test_implicit_mx_and_alias(sites: Sites) -> None:
    """Without MX the domain's own addresses serve; an alias is followed."""
    site = await found(sites, MX, "implicit.example")
    assert site.hosts == (Host("implicit.example", ("192.0.2.4",), 25),)
    assert (await found(sites, MX, "alias.example")).name == (await found(sites, MX, "example")).name


@pytest.mark.parametrize(("domain", "address"), [("[192.0.2.77]", "192.0.2.77"), ("[IPv6:2001:db8::7]", "2001:db8::7")])
async def test_address_literals(sites: Sites, server: DnsServer, domain: str, address: str) -> None:
    """An address literal needs no DNS."""
    site = await found(sites, MX, domain)
    assert site.hosts == (Host(address, (address,), 25),)
    assert not server.questions


@pytest.mark.parametrize(
    ("domain", "action", "status"),
    [
        ("absent.example", Action.FAILED, "5.1.2"),
        ("null.example", Action.FAILED, "5.1.10"),
        ("text.example", Action.FAILED, "5.4.4"),
        ("nowhere.example", Action.FAILED, "5.4.4"),
        ("loop.example", Action.FAILED, "5.4.6"),
        ("lost.example", Action.DELAYED, "4.4.3"),
        ("servfail.example", Action.DELAYED, "4.4.3"),
        ("silent.example", Action.DELAYED, "4.4.3"),
        ("[nonsense]", Action.FAILED, "5.1.2"),
    ],
)
async def test_domains_that_cannot_take_mail(sites: Sites, domain: str, action: Action, status: str) -> None:
    """What DNS says for good fails; what it fails to say delays."""
    nothing = await sites.resolve(MX, domain)
    assert isinstance(nothing, Unresolved)
    assert (nothing.action, str(nothing.status)) == (action, status)
    assert nothing.reason


async def test_own_domain_without_mx_is_a_loop(sites: Sites) -> None:
    """Mail for our own host name without MX would come back to us."""
    nothing = await sites.resolve(MX, "relay.example")
    assert isinstance(nothing, Unresolved)
    assert str(nothing.status) == "5.4.6"


async def test_hosts_no_better_than_ourselves_are_left_out(sites: Sites) -> None:
    """Where we are a backup, only better hosts are tried."""
    site = await found(sites, MX, "second.example")
    assert [host.name for host in site.hosts] == ["mail1.example"]


async def test_a_host_without_address_is_left_out(sites: Sites, clock: Clock) -> None:
    """The other hosts serve, for half a minute."""
    site = await found(sites, MX, "half.example")
    assert [host.name for host in site.hosts] == ["backup.example"]
    assert site.expires == clock.now + 30


async def test_addresses_are_bounded(sites: Sites) -> None:
    """A host has five addresses at most, both families among them."""
    (host,) = (await found(sites, MX, "many.example")).hosts
    assert len(host.addresses) == 5
    assert "2001:db8::10" in host.addresses


async def test_next_hops_in_order(sites: Sites) -> None:
    """All next hops give hosts in their order; brackets mean addresses, else MX; port and TLS are the hop's."""
    route = relayhost(
        NextHop("mail2.example", 587), NextHop("example", 2525, by_mx=True), NextHop("192.0.2.50", 465, False, True)
    )
    site = await found(sites, route)
    assert site.hosts[0] == Host("mail2.example", ("192.0.2.2",), 587, preference=0)
    assert {host.name for host in site.hosts[1:3]} == {"mail1.example", "mail2.example"}
    assert site.hosts[3].name == "backup.example"
    assert {host.port for host in site.hosts[1:4]} == {2525}
    assert site.hosts[4].addresses == ("192.0.2.50",)
    assert site.hosts[4].implicit_tls
    order = [host.preference for host in site.hosts]
    assert order == sorted(order)
    assert site.name == "ses/[mail2.example]:587,example:2525,[192.0.2.50]:465"


async def test_a_relayhost_is_one_site_for_all_domains(sites: Sites) -> None:
    """The recipient's domain does not matter, and is not looked up."""
    route = relayhost(NextHop("192.0.2.50", 25))
    assert await found(sites, route, "one.example") is await found(sites, route, "absent.example")


async def test_an_unresolvable_next_hop_is_skipped(sites: Sites, clock: Clock) -> None:
    """As long as another one is found; the first is looked for again soon."""
    site = await found(sites, relayhost(NextHop("absent.example"), NextHop("mail1.example")))
    assert [host.name for host in site.hosts] == ["mail1.example"]
    assert site.expires == clock.now + 30


@pytest.mark.parametrize(
    "hop",
    [
        NextHop("absent.example"),
        NextHop("absent.example", by_mx=True),
        NextHop("null.example", by_mx=True),
        NextHop("text.example"),
        NextHop("loop.example", by_mx=True),
        NextHop("silent.example"),
        NextHop(f"{'x' * 70}.example"),
    ],
)
async def test_a_configured_next_hop_never_fails_mail(sites: Sites, hop: NextHop) -> None:
    """Whatever DNS says about a configured name, mail waits."""
    nothing = await sites.resolve(relayhost(hop), "any.example")
    assert isinstance(nothing, Unresolved)
    assert (nothing.action, str(nothing.status)) == (Action.DELAYED, "4.4.3")


async def test_localhost_needs_no_dns(sites: Sites, server: DnsServer) -> None:
    """localhost is this machine."""
    site = await found(sites, relayhost(NextHop("localhost", 2525)))
    assert site.hosts[0].addresses == ("127.0.0.1", "::1")
    assert not server.questions


async def test_sites_are_remembered(sites: Sites, server: DnsServer, clock: Clock) -> None:
    """Until it expires a site is the same object; then it is found again."""
    site = await found(sites, MX, "implicit.example")
    assert await found(sites, MX, "implicit.example") is site
    clock.now = site.expires
    assert await found(sites, MX, "implicit.example") is not site
    sites.clear()
    assert await found(sites, MX, "implicit.example") is not site


async def test_a_stale_site_serves_while_dns_is_down(sites: Sites, server: DnsServer, clock: Clock) -> None:
    """When DNS fails for the moment, the last finding serves for an hour, looked at again each half minute."""
    site = await found(sites, MX, "implicit.example")
    server.is_down = True
    clock.now = site.expires + 1
    stale = await found(sites, MX, "implicit.example")
    assert (stale.hosts, stale.expires) == (site.hosts, clock.now + 30)
    clock.now = site.expires + 3601
    nothing = await sites.resolve(MX, "implicit.example")
    assert isinstance(nothing, Unresolved)
    assert str(nothing.status) == "4.4.3"


async def test_a_stale_site_does_not_outlive_a_clear_answer(sites: Sites, server: DnsServer, clock: Clock) -> None:
    """A domain that is gone is gone, though it was there before."""
    site = await found(sites, MX, "implicit.example")
    server.load(ZONE.replace("implicit.example.", "explicit.example."))
    clock.now = site.expires + 1
    assert isinstance(await sites.resolve(MX, "implicit.example"), Unresolved)


async def test_mta_sts_leaves_out_hosts_that_are_not_listed(
    server: DnsServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Under enforce only listed hosts are used; under testing the others are told of; no policy changes nothing."""
    policies = Policies(
        {
            "example": StsPolicy(StsMode.ENFORCE, ("mail1.example", "backup.example"), 1000),
            "hosted.example": StsPolicy(StsMode.TESTING, ("mail1.example",), 1000),
            "second.example": StsPolicy(StsMode.NONE, (), 1000),
        }
    )
    resolver = Resolver([server.address], clock, lambda *_: None)
    sites = Sites(resolver, ["relay.example"], Random(7), clock, policies)  # type: ignore[arg-type]
    site = await found(sites, BY_STS, "example")
    assert {host.name for host in site.hosts} == {"mail1.example", "backup.example"}
    assert (site.sts, site.sts_domain) == (StsMode.ENFORCE, "example") and site.name.endswith("+sts")
    site = await found(sites, BY_STS, "hosted.example")
    assert len(site.hosts) == 2 and site.sts is StsMode.TESTING and "+" not in site.name
    assert "mode testing, does not list mail2.example" in caplog.text
    assert (await found(sites, BY_STS, "second.example")).sts is StsMode.NONE
    assert (await found(sites, MX, "example")).sts is StsMode.NONE
    none = msgspec.structs.replace(BY_STS, tls=TlsLevel.NONE)
    assert (await found(sites, none, "example")).sts is StsMode.NONE
    assert policies.asked == ["example", "hosted.example", "second.example"]


async def test_mail_waits_where_mta_sts_lists_none_of_the_hosts(server: DnsServer, clock: Clock) -> None:
    """That is a delay with a reason of its own, never a failure: somebody may have forged the MX records."""
    policies = Policies({"example": StsPolicy(StsMode.ENFORCE, ("*.elsewhere.example",), 1000)})
    resolver = Resolver([server.address], clock, lambda *_: None)
    sites = Sites(resolver, ["relay.example"], Random(7), clock, policies)  # type: ignore[arg-type]
    nothing = await sites.resolve(BY_STS, "example")
    assert isinstance(nothing, Unresolved)
    assert (nothing.action, nothing.why, str(nothing.status)) == (Action.DELAYED, Why.TLS_POLICY, "4.7.5")
    assert "MTA-STS policy of example" in nothing.reason and "mail1.example" in nothing.reason


async def test_a_policy_that_is_in_the_way_may_be_the_one_of_before(server: DnsServer, clock: Clock) -> None:
    """Where the policy that is kept lists none of the hosts, the new one that is being fetched is waited for."""
    policies = Policies({"example": StsPolicy(StsMode.ENFORCE, ("*.elsewhere.example",), 1000)})
    policies.renewals["example"] = StsPolicy(StsMode.ENFORCE, ("*.example",), 1000)
    sites = Sites(Resolver([server.address], clock, lambda *_: None), ["relay.example"], Random(7), clock, policies)  # type: ignore[arg-type]
    site = await found(sites, BY_STS, "example")
    assert site.sts is StsMode.ENFORCE and {host.name for host in site.hosts} >= {"mail1.example"}


async def test_a_policy_that_is_not_to_be_had_is_told(server: DnsServer, clock: Clock) -> None:
    """The mail goes as without one, and what holds at its hosts says why that is not known."""
    policies = Policies({})
    policies.faults["example"] = "mta-sts.example did not answer in time"
    sites = Sites(Resolver([server.address], clock, lambda *_: None), ["relay.example"], Random(7), clock, policies)  # type: ignore[arg-type]
    site = await found(sites, BY_STS, "example")
    assert "example announces an MTA-STS policy" in decide(site, site.hosts[0]).sentence
    assert "did not answer in time" in decide(site, site.hosts[0]).sentence


async def test_what_dnssec_proves_is_kept_with_the_host(server: DnsServer, clock: Clock) -> None:
    """A host is secure when its MX record and its addresses are; sites with other demands have other names."""
    server.is_validating = True
    server.load(f"{ZONE}\nproved.example. 60 IN MX 1 also.example.\nalso.example. 60 IN CNAME mail1.example.")
    server.insecure |= {"hosted.example.", "backup.example."}
    resolver = Resolver([server.address], clock, lambda *_: None, dnssec=Dnssec.AUTO)
    sites = Sites(resolver, ["relay.example"], Random(7), clock)
    dane = Route("direct", Deliver.MX, tls=TlsLevel.DANE)
    secure = {host.name: host.secure for host in (await found(sites, dane, "example")).hosts}
    assert secure == {"mail1.example": True, "mail2.example": True, "backup.example": False}
    assert not any(host.secure for host in (await found(sites, dane, "hosted.example")).hosts)
    [host] = (await found(sites, dane, "proved.example")).hosts
    assert (host.name, host.secure) == ("also.example", True)
    assert host.tlsa_names == ("mail1.example", "also.example") and host.next_hops == ("proved.example",)
    [host] = (await found(sites, dane, "implicit.example")).hosts
    assert host.secure and (host.tlsa_names, host.next_hops) == (("implicit.example",), ())
    names = [(await found(sites, dane, name)).name for name in ("twin.example", "hosted.example", "example")]
    assert names[:2] == ["direct/mail1.example,mail2.example+dane", "direct/mail1.example,mail2.example"]
    assert names[2].endswith("+partly-dane")


async def test_an_alias_that_leads_out_of_the_signed_zone_may_have_tlsa_records(
    server: DnsServer, clock: Clock
) -> None:
    """They are looked for at its own name alone (RFC 7672 2.2.2); where the MX record is not proved, nowhere."""
    server.is_validating = True
    server.load(
        f"""{ZONE}
        alias-domain.example. 60 IN CNAME out.example.
        out.example. 60 IN MX 1 out-mx.example.
        out-mx.example. 60 IN CNAME cloud.test.
        cloud.test. 60 IN A 192.0.2.9
        unsigned.test. 60 IN MX 1 out-mx.example."""
    )
    server.insecure |= {"out-mx.example.", "unsigned.test."}
    sites = Sites(
        Resolver([server.address], clock, lambda *_: None, dnssec=Dnssec.AUTO), ["relay.example"], Random(7), clock
    )
    dane = Route("direct", Deliver.MX, tls=TlsLevel.DANE)
    site = await found(sites, dane, "out.example")
    [host] = site.hosts
    assert (host.secure, host.tlsa_names, host.next_hops) == (False, ("out-mx.example",), ("out.example",))
    assert site.name.endswith("+dane")
    [host] = (await found(sites, dane, "alias-domain.example")).hosts
    assert host.next_hops == ("alias-domain.example", "out.example")
    [host] = (await found(sites, dane, "unsigned.test")).hosts
    assert (host.tlsa_names, host.next_hops) == ((), ())


class Policies:
    """Stands where MTA-STS policies come from."""

    def __init__(self, policies: dict[str, StsPolicy]) -> None:
        """Take the policies by their domain."""
        self.policies, self.asked = policies, list[str]()
        self.renewals, self.faults = dict[str, StsPolicy](), dict[str, str]()

    soon = math.inf

    def again(self, domain: str) -> float:
        """Give when a failed fetch is repeated."""
        return self.soon

    def fault(self, domain: str) -> str:
        """Say why a policy is not known."""
        return self.faults.get(domain, "")

    async def of(self, domain: str) -> StsPolicy | None:
        """Give a domain's policy."""
        self.asked.append(domain)
        return self.policies.get(domain)

    async def renewed(self, domain: str) -> StsPolicy | None:
        """Give a domain's policy once a fetch that runs is over."""
        return self.renewals.get(domain, self.policies.get(domain))


async def test_a_policy_that_could_not_be_fetched_is_looked_for_soon(server: DnsServer, clock: Clock) -> None:
    """The site found without it is believed until the next fetch, not for as long as its MX records."""
    policies = Policies({})
    policies.soon = clock.now + 40
    sites = Sites(Resolver([server.address], clock, lambda *_: None), ["relay.example"], Random(7), clock, policies)  # type: ignore[arg-type]
    assert (await found(sites, BY_STS, "example")).expires == clock.now + 40
    policies.soon = math.inf
    sites.clear()
    assert (await found(sites, BY_STS, "example")).expires > clock.now + 40
