"""Finds what TLS must prove at a host: asks for TLSA records, and remembers hosts whose TLS is broken."""

import logging
from collections.abc import Callable

import msgspec

from smarthost.mail.outcome import Stage
from smarthost.mail.route import Host, Site, TlsLevel
from smarthost.network.dns import Resolver
from smarthost.network.session import OpenFault, Session
from smarthost.policy.classify import NetFault
from smarthost.policy.security import TlsaFinding, TlsPolicy, TlsSource, decide

log = logging.getLogger(__name__)

BROKEN = 3 * 86_400.0  # seconds for which a host whose handshake failed gets no other (KumoMTA's number)
MOST_BROKEN = 10_000


class TlsPolicies:
    """Says what TLS must prove at each host of a site, and why. Mutable: it remembers broken hosts, within bounds."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float]) -> None:
        """Begin with no host known to be broken."""
        self._resolver, self._clock = resolver, clock
        # By place: until when (Unix time), and why. The oldest go first when there are too many.
        self._broken: dict[str, tuple[float, str]] = {}
        self._trials: dict[str, tuple[float, str]] = {}

    async def of(self, site: Site, host: Host) -> TlsPolicy | OpenFault:
        """Give the policy for a host of a site; a fault where DNS does not say whether it has TLSA records.

        Such a host must not be used: who can suppress the answer could put a server of his own in its place (RFC 7672
        2.1.3).
        """
        dane: TlsaFinding | None = None
        if site.route.tls is TlsLevel.DANE:
            found = await self._find_tlsa(host)
            if found is None:
                reason = f"it cannot be known now whether {host.name} has TLSA records (DNS failed, or DNSSEC is bogus)"
                return OpenFault(Stage.CONNECT, NetFault.DNS_FAILURE, None, reason)
            dane = found
        policy = decide(site, host, dane)
        if policy.source is not TlsSource.ROUTE:
            return policy
        if policy.on_trial and self._known(self._trials, site, host) is not None:
            policy = msgspec.structs.replace(policy, on_trial=False)
        if policy.level is TlsLevel.MAY and (known := self._known(self._broken, site, host)) is not None:
            sentence = f"{policy.sentence}, and no handshake is tried for {_days(known[0] - self._clock())}: {known[1]}"
            policy = msgspec.structs.replace(policy, level=TlsLevel.NONE, sentence=sentence)
        return policy

    def learn(self, site: Site, session: Session) -> None:
        """Remember what TLS could not do at a session's host, and tell it once."""
        host = session.host
        if session.plain_because:
            self._remember(self._broken, site, host, session.plain_because)
            text = "%s: mail goes in plain text and TLS is not tried again for 3 days (route %s, level may): %s"
            log.warning(text, host.name, site.route.name, session.plain_because)
        if session.trial_fault:
            self._remember(self._trials, site, host, session.trial_fault)
            text = "%s: the MTA-STS policy of %s would have refused it, but is in mode testing: %s"
            log.warning(text, host.name, site.sts_domain, session.trial_fault)

    def clear(self) -> None:
        """Forget the broken hosts, as after a reload or when a person asks for an attempt."""
        self._broken.clear()
        self._trials.clear()

    async def _find_tlsa(self, host: Host) -> TlsaFinding | None:
        """Look for a host's TLSA records, at the name behind an alias first (RFC 7672 2.2.2); None when DNS fails."""
        if not self._resolver.believes_ad:
            return TlsaFinding(host.name, nothing="the resolver is not one whose DNSSEC validation is believed")
        if not host.secure:
            return TlsaFinding(host.name, nothing=f"DNSSEC does not prove the mail host {host.name} and its addresses")
        for name in filter(None, (host.alias_of, host.name.rstrip("."))):
            place = f"_{host.port}._tcp.{name}"
            answer = await self._resolver.tlsa(place)
            if answer is None:
                return None
            if answer.records:
                return TlsaFinding(place, answer.records)
        return TlsaFinding(host.name, nothing=f"there are no TLSA records of {host.name}")

    def _known(self, remembered: dict[str, tuple[float, str]], site: Site, host: Host) -> tuple[float, str] | None:
        known = remembered.get(_place(site, host))
        return known if known is not None and known[0] > self._clock() else None

    def _remember(self, remembered: dict[str, tuple[float, str]], site: Site, host: Host, reason: str) -> None:
        place = _place(site, host)
        remembered.pop(place, None)
        while len(remembered) >= MOST_BROKEN:
            del remembered[next(iter(remembered))]
        remembered[place] = self._clock() + BROKEN, reason


def _place(site: Site, host: Host) -> str:
    return f"{site.route.name} {host.name}:{host.port}"


def _days(seconds: float) -> str:
    hours = max(1, round(seconds / 3600))
    return f"{hours // 24} days" if hours >= 48 else f"{hours} h"
