"""Route: policy's choice of a next hop; Site and Host: who really answers, which is resolution's finding."""

import re
from enum import StrEnum

import msgspec


class TlsLevel(StrEnum):
    """How much TLS must prove on the way to a next hop."""

    NONE = "none"
    MAY = "may"
    ENCRYPT = "encrypt"
    VERIFY = "verify"
    DANE = "dane"


class StsMode(StrEnum):
    """What a domain's MTA-STS policy asks of senders (RFC 8461 5); NONE also where there is no policy."""

    NONE = "none"
    TESTING = "testing"
    ENFORCE = "enforce"


class Deliver(StrEnum):
    """What a route does with a message."""

    RELAYHOST = "relayhost"
    MX = "mx"
    DISCARD = "discard"
    HOLD = "hold"
    REJECT = "reject"


class NextHop(msgspec.Struct, frozen=True):
    """One configured next hop. `by_mx` is false for a name in brackets; `implicit_tls` means TLS on connect."""

    host: str
    port: int = 25
    by_mx: bool = False
    implicit_tls: bool = False

    def __str__(self) -> str:
        """Write it in Postfix's relayhost syntax."""
        host = self.host if self.by_mx else f"[{self.host}]"
        scheme = "smtps://" if self.implicit_tls and self.port != 465 else ""
        return f"{scheme}{host}:{self.port}"


class Source(msgspec.Struct, frozen=True):
    """A local IP address to connect from, its share among those of a route, and its name in EHLO ("" for our own)."""

    address: str
    weight: int = 1
    hello: str = ""


class Route(msgspec.Struct, frozen=True):
    """Where mail of one kind goes, and how.

    `next_hops` are tried in order (empty unless deliver is relayhost); `login` is a key into the credentials, or "";
    `source_address` are the local addresses to connect from, of which each session has one. `client_certificate` and
    `client_key` are files that we show to next hops which ask for a certificate. `mta_sts` says that the policies of
    recipients' domains are heeded. `demand` is "requiretls" where the route was made stricter for messages that ask for
    it (`policy.security.as_asked`). A route with a `pool` is not travelled itself: its mail takes the route of one of
    the upstreams, each of which carries its name there.
    """

    name: str
    deliver: Deliver
    next_hops: tuple[NextHop, ...] = ()
    tls: TlsLevel = TlsLevel.MAY
    login: str = ""
    allow_plaintext_auth: bool = False
    ca_file: str = ""
    source_address: tuple[Source, ...] = ()
    upstream: str = ""
    pool: "tuple[Upstream, ...]" = ()
    client_certificate: str = ""
    client_key: str = ""
    mta_sts: bool = False
    demand: str = ""

    def queue_for(self, domain: str) -> str:
        """Name the queue of a recipient of this route: one for a relayhost, one a destination for MX delivery."""
        return f"{self.name}/{domain}" if self.deliver is Deliver.MX else self.name


class Upstream(msgspec.Struct, frozen=True):
    """One member of a pool: the route to it alone, and its share of the mail.

    Those of the lowest `order` that can be used share by their weights; the others are for when none of them can.
    `quota` are rates as texts, "10000/d": what is more goes to the others.
    """

    route: Route
    order: int
    weight: int = 1
    quota: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its next hop, with the user name where several members have the same one."""
        return self.route.upstream


class Host(msgspec.Struct, frozen=True, gc=False):
    """One machine that takes mail for a site, with the addresses to try, in their order.

    `secure` says that DNSSEC proves both how we came to its name and its addresses. `tlsa_names` are the names that may
    have TLSA records, in the order in which they are asked for (RFC 7672 2.2.2), and `next_hops` those whose MX records
    led here, proved and with their alias, which a certificate may have as well (RFC 7672 3.2.2).
    """

    name: str
    addresses: tuple[str, ...]
    port: int = 25
    implicit_tls: bool = False
    preference: int = 0
    secure: bool = False
    tlsa_names: tuple[str, ...] = ()
    next_hops: tuple[str, ...] = ()


# How a name ends that stands for one demand or several (`delivery.resolve`).
_DEMANDS = re.compile(r"(?:\+(?:sts|dane|partly-dane|requiretls))+$")


class Site(msgspec.Struct, frozen=True):
    """Who really answers for a queue.

    `name` is shared by all queues whose hosts are the same set, so that they share limits; `hosts` are in order of
    trial; `expires` is the Unix time until which the finding may be used. `sts` is what the MTA-STS policy of
    `sts_domain`, a recipients' domain, asks for; under ENFORCE `hosts` has none that it does not list. `sts_fault` says
    why a policy that is announced is not known.
    """

    name: str
    hosts: tuple[Host, ...]
    route: Route
    expires: float
    sts: StsMode = StsMode.NONE
    sts_domain: str = ""
    sts_fault: str = ""

    @property
    def place(self) -> str:
        """Its name without what is demanded of its sessions: sites of one place share their rates."""
        return _DEMANDS.sub("", self.name)
