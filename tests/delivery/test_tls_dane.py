"""DANE by names: where TLSA records are looked for, and which names a certificate may have (RFC 7672 2.2.2, 3.2.2)."""

import msgspec
import pytest
import trustme
from dns_server import DnsServer
from smtp_peer import SmtpPeer, smtp_peer
from tls_names import END, SECURED, server_side, tlsa_text
from tls_way import Way, opened

from smarthost.delivery.connect import Unreached
from smarthost.delivery.transaction import Job, find_obstacle
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.route import Deliver, Site, TlsLevel
from smarthost.network.session import Session
from smarthost.policy.classify import NetFault
from smarthost.spool.store import Content
from smarthost.wire.extensions import Extensions


def site_for(way: Way, peer: SmtpPeer, *next_hops: str, names: tuple[str, ...] = ("mx.example",)) -> Site:
    """Make a site of the peer, to which the MX records of the next hops led."""
    site = way.site(peer, TlsLevel.DANE)
    host = msgspec.structs.replace(site.hosts[0], next_hops=next_hops, tlsa_names=names)
    return msgspec.structs.replace(site, hosts=(host,))


def obstacle(session: Session, domain: str) -> NetFault | None:
    """Say what keeps a message to a domain from a session."""
    recipients = (Recipient(f"you@{domain}", domain),)
    message = Message(1, Arrival(0.0), Envelope("", recipients), 10)
    job = Job(Entry(message, 1, f"mx/{domain}", recipients, 0.0, 9e9, 9e9), recipients, Content(b"", "", 0), 0.0)
    return find_obstacle(job, Extensions(), session.proof, session.only_for)


@pytest.mark.parametrize(
    ("shown", "next_hops", "domain", "only_for"),
    [
        ("mx.example", ("to.example",), "to.example", ()),
        ("to.example", ("to.example",), "to.example", ("to.example",)),
        ("real.example", ("to.example", "real.example"), "to.example", ("to.example", "real.example")),
        ("second.example", ("to.example",), "second.example", ("second.example",)),
        ("to.example", ("to.example",), "second.example", None),
        ("mx.other.example", ("to.example",), "to.example", None),
    ],
)
async def test_names_that_an_anchor_vouches_for(
    way: Way, zone: DnsServer, shown: str, next_hops: tuple[str, ...], domain: str, only_for: tuple[str, ...] | None
) -> None:
    """The host's name proves it for all domains; a next hop's for that domain alone, of those that share the host."""
    context, chain = server_side(trustme.CA(), shown, whole=True)
    async with smtp_peer(SECURED + END, context=context, complete=False) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(chain[-1], 2)}")
        session = await way.connector.connect(site_for(way, peer, *next_hops), domain=domain)
    if only_for is None:
        assert isinstance(session, Unreached) and "is not for mx.example" in session.reason
        return
    assert isinstance(session, Session) and session.only_for == only_for and session.tls.endswith("=dane")
    assert obstacle(session, domain) is None
    assert obstacle(session, "third.example") is (NetFault.CERTIFICATE if only_for else None)
    session.abandon()


async def test_a_configured_next_hop_may_have_its_name_for_all_mail(way: Way, zone: DnsServer) -> None:
    """A relayhost that is found by its MX records takes mail for any domain."""
    context, chain = server_side(trustme.CA(), "to.example", whole=True)
    async with smtp_peer(SECURED + END, context=context) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(chain[-1], 2)}")
        site = site_for(way, peer, "to.example")
        route = msgspec.structs.replace(site.route, deliver=Deliver.RELAYHOST)
        session = await opened(way, msgspec.structs.replace(site, route=route))
    assert session.only_for == () and obstacle(session, "third.example") is None


async def test_names_do_not_count_for_usage_3(way: Way, zone: DnsServer) -> None:
    """A record that names the certificate itself needs no name in it (RFC 7672 3.1.1)."""
    context, chain = server_side(trustme.CA(), "nobody.invalid")
    async with smtp_peer(SECURED + END, context=context) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(chain[0], 3)}")
        session = await opened(way, site_for(way, peer, "to.example"))
    assert session.tls.endswith("=dane") and session.only_for == ()


async def test_the_name_of_an_alias_is_not_the_base_domain_of_its_target(way: Way, zone: DnsServer) -> None:
    """Where the records are those of the name behind an alias, an anchor's certificate must have that name."""
    context, chain = server_side(trustme.CA(), "mx.example", whole=True)
    async with smtp_peer(SECURED, context=context, complete=False) as peer:
        zone.load(f"_{peer.port}._tcp.real.example. 300 IN TLSA {tlsa_text(chain[-1], 2)}")
        site = site_for(way, peer, names=("real.example", "mx.example"))
        unreached = await way.connector.connect(site)
    assert isinstance(unreached, Unreached) and "is not for real.example" in unreached.reason


async def test_only_the_best_digest_counts(way: Way, zone: DnsServer) -> None:
    """A SHA-512 digest of another key is not outdone by the right one of SHA-256: somebody may have broken that."""
    context, chain = server_side(trustme.CA(), "mx.example")
    async with smtp_peer(SECURED, context=context, complete=False) as peer:
        name = f"_{peer.port}._tcp.mx.example. 300 IN TLSA"
        zone.load(f"{name} {tlsa_text(chain[0], 3, 1, 1)}\n{name} 3 1 2 {'ab' * 64}")
        unreached = await way.connector.connect(site_for(way, peer))
    assert isinstance(unreached, Unreached) and "none of those in the TLSA records" in unreached.reason


@pytest.mark.parametrize("alias", ["proved", "unproved", "unknown", "none"])
async def test_an_alias_that_leads_out_of_the_signed_zone(way: Way, zone: DnsServer, alias: str) -> None:
    """Records at its own name count where the alias is signed; elsewhere nobody is asked for any (RFC 7672 2.2.2)."""
    context, chain = server_side(trustme.CA(), "nobody.invalid")
    async with smtp_peer(SECURED + END, context=context, complete=False) as peer:
        name = f"_{peer.port}._tcp.mx.example."
        text = f"{name} 300 IN TLSA {tlsa_text(chain[0], 3)}\n"
        zone.load(text + ("mx.example. 300 IN CNAME cloud.test." if alias != "none" else ""))
        if alias == "unproved":
            zone.insecure.add("mx.example.")
        elif alias == "unknown":
            zone.failing.add(("mx.example.", "CNAME"))
        site = site_for(way, peer)
        outside = msgspec.structs.replace(site.hosts[0], secure=False)
        session = await way.connector.connect(msgspec.structs.replace(site, hosts=(outside,)))
    assert bool(zone.questions[name, "TLSA"]) is (alias == "proved")
    if alias == "unknown":
        assert isinstance(session, Unreached) and "it cannot be known now" in session.reason
        return
    assert isinstance(session, Session)
    assert session.tls.endswith("verified=dane" if alias == "proved" else "verified=none")
    session.abandon()
