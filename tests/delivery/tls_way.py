"""A connector with real TLS and real DNS, for tests of what TLS must prove; its fixtures are in conftest.py."""

from pathlib import Path
from random import Random

import trustme
from dns_server import Clock, DnsServer
from smtp_peer import SmtpPeer

from smarthost.crypto.tls import TlsContexts
from smarthost.delivery.connect import Connector
from smarthost.delivery.tls_policies import TlsPolicies
from smarthost.mail.route import Deliver, Host, Route, Site, StsMode, TlsLevel
from smarthost.network.dns import Dnssec, Resolver
from smarthost.network.session import Session, SessionSettings, Timeouts
from smarthost.policy.security import TlsPolicy

QUICK = Timeouts(starttls=3.0)


class Way:
    """A connector with real contexts, and what it needs."""

    def __init__(self, folder: Path, authority: trustme.CA, zone: DnsServer, clock: Clock) -> None:
        """Trust the authority, and the resolver."""
        self.zone = zone
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self.resolver = Resolver([zone.address], clock, lambda *_: None, lifetime=3.0, dnssec=Dnssec.AUTO)
        self.policies = TlsPolicies(self.resolver, clock)
        self.connector = Connector(self.settings, TlsContexts(), clock, Random(1), QUICK, policies=self.policies)

    def settings(self, site: Site) -> SessionSettings:
        """Say how sessions are opened."""
        return SessionSettings("relay.example", site.route.tls, self.ca_file)

    def site(self, peer: SmtpPeer, level: TlsLevel, sts: StsMode = StsMode.NONE, *, secure: bool = True) -> Site:
        """Make a site of one host, which is the peer."""
        names = ("mx.example",) if secure else ()
        host = Host("mx.example", ("127.0.0.1",), peer.port, secure=secure, tlsa_names=names)
        return Site("mx/mx.example", (host,), Route("mx", Deliver.MX, tls=level), 9e9, sts, "to.example")

    async def policy(self, site: Site) -> TlsPolicy:
        """Give what holds for the host."""
        found = await self.policies.of(site, site.hosts[0])
        assert isinstance(found, TlsPolicy)
        return found


async def opened(way: Way, site: Site) -> Session:
    """Connect, and close."""
    session = await way.connector.connect(site)
    assert isinstance(session, Session), session
    session.abandon()
    return session
