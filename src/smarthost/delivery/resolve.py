"""Resolve: finds the site that answers for a queue: hosts in their order of trial, with addresses (RFC 5321 5.1)."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from ipaddress import ip_address
from random import Random

import msgspec

from smarthost.mail.address import literal_address
from smarthost.mail.entry import Why
from smarthost.mail.outcome import Action, Stage
from smarthost.mail.reply import EnhancedStatus
from smarthost.mail.route import Deliver, Host, NextHop, Route, Site, StsMode, TlsLevel
from smarthost.network.dns import Addresses, DnsFault, Resolver
from smarthost.network.sts import PATIENCE, StsPolicies
from smarthost.policy.classify import NetFault, classify_fault
from smarthost.policy.hosts import order_addresses, order_mx

log = logging.getLogger(__name__)

SMTP_PORT = 25
MAX_HOSTS = 10  # MX hosts whose addresses are looked up; an attempt tries no more addresses than that
LITERAL_TTL = 86_400.0  # seconds; an address needs no DNS
STALE = 3600.0  # seconds that a finding is used beyond its time while DNS fails for the moment
STALE_TTL = 30.0  # seconds until DNS is asked again then
MAX_SITES = 50_000
_SPREAD = 65_536  # what one configured next hop's MX preferences take, so that the next one's come behind


class Unresolved(msgspec.Struct, frozen=True):
    """Why there is no site: the outcome of every recipient of the queue at stage RESOLVE."""

    action: Action
    status: EnhancedStatus
    reason: str
    why: Why = Why.UNRESOLVED


class _Found(msgspec.Struct, frozen=True):
    hosts: tuple[Host, ...]
    expires: float
    sts: StsMode = StsMode.NONE
    sts_fault: str = ""


class _Nothing(msgspec.Struct, frozen=True):
    fault: NetFault
    reason: str


_FAULTS = {
    DnsFault.NO_NAME: (NetFault.NXDOMAIN, "does not exist in DNS"),
    DnsFault.BAD_NAME: (NetFault.NXDOMAIN, "is no domain name"),
    DnsFault.NO_RECORDS: (NetFault.NO_ADDRESS, "has neither mail hosts nor addresses in DNS"),
    DnsFault.TEMPORARY: (NetFault.DNS_FAILURE, "cannot be looked up in DNS now"),
}


class Sites:
    """Finds sites and remembers them while DNS allows.

    When DNS fails for the moment, a finding that was good serves for up to an hour more.
    """

    def __init__(
        self,
        resolver: Resolver,
        own_names: Collection[str],
        rng: Random,
        clock: Callable[[], float],
        sts: StsPolicies | None = None,
    ) -> None:
        """Begin with nothing known; `own_names` are the host names under which mail comes to us."""
        self._resolver, self._sts = resolver, sts
        self._own_names = frozenset(name.rstrip(".").lower() for name in own_names)
        self._rng = rng
        self._clock = clock
        self._known: dict[tuple[Route, str], Site] = {}

    async def resolve(self, route: Route, domain: str) -> Site | Unresolved:
        """Find the site of a route and, for MX delivery, a domain (A-label form or address literal).

        What DNS says for good (no such name, null MX, no address, only ourselves) fails a recipient's own domain; about
        a configured next hop it delays, since the configuration can be mended.
        """
        of_domain = route.deliver is Deliver.MX
        place = (route, domain if of_domain else "")
        known = self._known.get(place)
        now = self._clock()
        if known is not None and now < known.expires:
            return known
        found = await (self._find_secured(route, domain) if of_domain else self._find_next_hops(route.next_hops))
        if isinstance(found, _Nothing):
            if known is not None and found.fault is NetFault.DNS_FAILURE and now < known.expires + STALE:
                # What is known keeps its time, so that the hour counts from there.
                return msgspec.structs.replace(known, expires=now + STALE_TTL)
            fault = found.fault if of_domain else NetFault.DNS_FAILURE
            verdict = classify_fault(Stage.RESOLVE, fault, configured=not of_domain)
            why = Why.TLS_POLICY if fault is NetFault.STS_MISMATCH else Why.UNRESOLVED
            return Unresolved(verdict.action, verdict.status, found.reason, why)
        name = name_by_hosts(found.hosts) + _demand(route, found) if of_domain else _name_by_hops(route)
        name += f"+{route.demand}" if route.demand else ""
        sts_domain = domain if found.sts is not StsMode.NONE or found.sts_fault else ""
        name = f"{route.name}/{name}"
        site = Site(name, found.hosts, route, found.expires, found.sts, sts_domain, found.sts_fault)
        self._known.pop(place, None)
        while len(self._known) >= MAX_SITES:
            del self._known[next(iter(self._known))]
        self._known[place] = site
        return site

    def looking_up(self, domain: str) -> str:
        """Say what mail for a domain waits for while its site is being found, as a sentence."""
        if self._sts is not None and self._sts.is_fetching(domain):
            return f"The MTA-STS policy of {domain} is being fetched; it waits {PATIENCE:.0f} s for that at most."
        return "Its site is being looked up in DNS."

    def clear(self) -> None:
        """Forget every site, as after a reload."""
        self._known.clear()

    async def _find_next_hops(self, next_hops: Sequence[NextHop]) -> _Found | _Nothing:
        """Join the hosts of all configured next hops in their order; one that is not found is left out."""
        answers = await asyncio.gather(*map(self._find_next_hop, next_hops))
        hosts: list[Host] = []
        expires = self._clock() + LITERAL_TTL
        for position, answer in enumerate(answers):
            if isinstance(answer, _Nothing):
                expires = min(expires, self._clock() + STALE_TTL)
                continue
            expires = min(expires, answer.expires)
            for host in answer.hosts:
                hosts.append(msgspec.structs.replace(host, preference=position * _SPREAD + host.preference))
        if hosts:
            return _Found(tuple(hosts), expires)
        reasons = [answer.reason for answer in answers if isinstance(answer, _Nothing)]
        return _Nothing(NetFault.DNS_FAILURE, "; ".join(reasons) or "the route has no next hop")

    async def _find_next_hop(self, hop: NextHop) -> _Found | _Nothing:
        expires = self._clock() + LITERAL_TTL
        if addresses := _known_addresses(hop.host):
            return _Found((Host(hop.host, addresses, hop.port, hop.implicit_tls),), expires)
        found = await (self._find_by_mx(hop.host) if hop.by_mx else self._find_hosts([(0, hop.host)], expires))
        if isinstance(found, _Nothing):
            return found
        hosts = (msgspec.structs.replace(host, port=hop.port, implicit_tls=hop.implicit_tls) for host in found.hosts)
        return _Found(tuple(hosts), found.expires)

    async def _find_secured(self, route: Route, domain: str) -> _Found | _Nothing:
        """Find the hosts of a domain, without those that its MTA-STS policy does not list (RFC 8461 4.1)."""
        if self._sts is None or not route.mta_sts or route.tls is TlsLevel.NONE or domain.startswith("["):
            return await self._find_mail_hosts(domain)
        found, policy = await asyncio.gather(self._find_mail_hosts(domain), self._sts.of(domain))
        if isinstance(found, _Nothing):
            return found
        # What is announced and was not to be had is asked for again soon, and not when DNS next changes.
        found = msgspec.structs.replace(found, expires=min(found.expires, self._sts.again(domain)))
        if policy is not None and policy.mode is StsMode.ENFORCE and not any(policy.lists(h.name) for h in found.hosts):
            # The domain may have changed its policy with its hosts, and the new one is on its way.
            policy = await self._sts.renewed(domain)
        if policy is None or policy.mode is StsMode.NONE:
            return msgspec.structs.replace(found, sts_fault=self._sts.fault(domain))
        listed = tuple(host for host in found.hosts if policy.lists(host.name))
        others = ", ".join(host.name for host in found.hosts if host not in listed)
        if policy.mode is StsMode.TESTING:
            if others:
                log.warning("the MTA-STS policy of %s, in mode testing, does not list %s", domain, others)
            listed = found.hosts
        if not listed:
            return _Nothing(NetFault.STS_MISMATCH, f"the MTA-STS policy of {domain} lists none of its hosts: {others}")
        return _Found(listed, found.expires, policy.mode)

    async def _find_mail_hosts(self, domain: str) -> _Found | _Nothing:
        if domain.startswith("["):
            literal = literal_address(domain)
            if literal is None:
                return _Nothing(NetFault.NXDOMAIN, f"{domain} is no address literal")
            return _Found((Host(str(literal), (str(literal),), SMTP_PORT),), self._clock() + LITERAL_TTL)
        return await self._find_by_mx(domain)

    async def _find_by_mx(self, name: str) -> _Found | _Nothing:
        """Find the hosts by MX records or, where there are none, by the name's own addresses (RFC 5321 5.1)."""
        answer = await self._resolver.mx(name)
        if answer is DnsFault.NO_RECORDS:
            if name.rstrip(".").lower() in self._own_names:
                return _Nothing(NetFault.MX_LOOP, f"{name} is this host itself")
            return await self._find_hosts([(0, name)], self._clock() + LITERAL_TTL)
        if isinstance(answer, DnsFault):
            return _nothing(name, answer)
        ordered = order_mx(answer.records, self._own_names, self._rng)
        if ordered is NetFault.NULL_MX:
            return _Nothing(ordered, f"{name} takes no mail: null MX (RFC 7505)")
        if isinstance(ordered, NetFault):
            return _Nothing(ordered, f"the best mail host of {name} is this host itself: mail loop")
        next_hops = tuple(dict.fromkeys((name.rstrip(".").lower(), answer.name))) if answer.secure else ()
        return await self._find_hosts(ordered[:MAX_HOSTS], answer.expires, next_hops, proved=answer.secure)

    async def _find_hosts(
        self, names: Sequence[tuple[int, str]], expires: float, next_hops: tuple[str, ...] = (), *, proved: bool = True
    ) -> _Found | _Nothing:
        """Look up the addresses of hosts, all at once; hosts without any are left out.

        `proved` says that the names cannot have been forged: DNSSEC proves them, or they are given. `next_hops` are
        those whose MX records gave them, where they are proved.
        """
        answers: list[Addresses | DnsFault] = await asyncio.gather(
            *(self._resolver.addresses(name) for _, name in names)
        )
        hosts = []
        for (preference, name), answer in zip(names, answers, strict=True):
            if isinstance(answer, DnsFault):
                expires = min(expires, self._clock() + STALE_TTL)
                continue
            expires = min(expires, answer.expires)
            addresses, secure = order_addresses(answer.v4, answer.v6), proved and answer.secure
            tlsa_names = _tlsa_names(name, answer) if proved else ()
            hosts.append(
                Host(name, addresses, SMTP_PORT, False, preference, secure, tlsa_names, next_hops if tlsa_names else ())
            )
        if hosts:
            return _Found(tuple(hosts), expires)
        if DnsFault.TEMPORARY in answers:
            return _nothing(names[answers.index(DnsFault.TEMPORARY)][1], DnsFault.TEMPORARY)
        # That a mail host does not exist is not to say that the domain does not.
        return _Nothing(NetFault.NO_ADDRESS, f"no address in DNS for {', '.join(name for _, name in names[:3])}")


def _tlsa_names(name: str, found: Addresses) -> tuple[str, ...]:
    """Give the names at which a host's TLSA records are looked for, in their order (RFC 7672 2.2.2).

    Behind a proved alias that is its target, then its own. Where the alias leads out of what DNSSEC proves, its own
    name may still be in a signed zone; a name without an alias whose addresses are not proved is in none.
    """
    own = name.rstrip(".").lower()
    if found.name == own:
        return (own,) if found.secure else ()
    return (found.name, own) if found.secure else (own,)


def _known_addresses(host: str) -> tuple[str, ...]:
    """Give the addresses that need no DNS: an IP address itself, and those of localhost (RFC 6761 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return ("127.0.0.1", "::1")
    try:
        return (str(ip_address(host)),)
    except ValueError:
        return ()


def _nothing(name: str, fault: DnsFault) -> _Nothing:
    meaning, text = _FAULTS[fault]
    return _Nothing(meaning, f"{name} {text}")


def name_by_hosts(hosts: Sequence[Host]) -> str:
    """Name a site by its most preferred hosts, so that all domains on one provider share a name.

    Names are sorted; a hash stands for those beyond three, and for all where there are hosts of worse preference: mail
    for one domain must not go to another's backup host.
    """
    best = min(host.preference for host in hosts)
    names = sorted({host.name for host in hosts if host.preference == best})
    every = sorted({host.name for host in hosts})
    if len(names) > 3 or len(every) > len(names):
        names[3:] = [sha256(",".join(every).encode()).hexdigest()[:8]]
    return ",".join(names)


def _name_by_hops(route: Route) -> str:
    return route.upstream or ",".join(map(str, route.next_hops))


def _demand(route: Route, found: _Found) -> str:
    """Set sites apart by what is demanded of them: a session that proved less must not carry what needs more."""
    if found.sts is StsMode.ENFORCE:
        return "+sts"
    if route.tls is TlsLevel.DANE and any(host.tlsa_names for host in found.hosts):
        return "+dane" if all(host.tlsa_names for host in found.hosts) else "+partly-dane"
    return ""
