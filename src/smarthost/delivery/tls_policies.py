"""Finds what TLS must prove at a host: asks for TLSA records, and remembers hosts whose TLS is broken."""

import logging
from collections.abc import Callable

import msgspec

from smarthost.delivery.pauses import Pauses
from smarthost.mail.outcome import Stage
from smarthost.mail.route import Deliver, Host, Site, TlsLevel
from smarthost.network.dns import Resolver
from smarthost.network.session import OpenFault, Session
from smarthost.policy.classify import NetFault
from smarthost.policy.security import TlsaFinding, TlsPolicy, TlsSource, decide

log = logging.getLogger(__name__)

BROKEN = 3 * 86_400.0  # seconds for which a host whose handshake failed gets no other (KumoMTA's number)
STALLED = 600.0  # seconds without another where the handshake did not fail, but came to no end
MOST_STALLS = 3  # such handshakes in a row, each within a day, that are as good as one that failed
STALLS_COUNT = 86_400.0  # seconds
# What a network does, too, and not only a host whose TLS is broken.
_STALLS = frozenset({NetFault.TIMEOUT, NetFault.RESET, NetFault.CLOSED, NetFault.UNREACHABLE, NetFault.REFUSED})


class TlsPolicies:
    """Says what TLS must prove at each host of a site, and why. Mutable: it remembers broken hosts, within bounds."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float]) -> None:
        """Begin with no host known to be broken."""
        self._resolver, self._clock = resolver, clock
        self._broken: Pauses[str] = Pauses()
        self._trials: Pauses[str] = Pauses()
        self._stalls: Pauses[int] = Pauses()

    async def of(self, site: Site, host: Host, domain: str = "") -> TlsPolicy | OpenFault:
        """Give the policy for a host of a site; a fault where DNS does not say whether it has TLSA records.

        `domain` is that of the mail for which a session is opened: of the domains that share a site by MX, the one for
        which a certificate may be, too.

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
        if policy.tlsa and host.next_hops:
            is_other = site.route.deliver is Deliver.MX and domain and domain not in host.next_hops
            policy = msgspec.structs.replace(policy, next_hops=(domain,) if is_other else host.next_hops)
        if policy.source is not TlsSource.ROUTE:
            return policy
        now, place = self._clock(), _place(site, host)
        if policy.on_trial and self._trials.is_paused(place, now):
            policy = msgspec.structs.replace(policy, on_trial=False)
        if policy.level is TlsLevel.MAY and (known := self._broken.cause(place, now)) is not None:
            sentence = f"{policy.sentence}, and no handshake is tried for {_how_long(known[0] - now)}: {known[1]}"
            policy = msgspec.structs.replace(policy, level=TlsLevel.NONE, sentence=sentence)
        return policy

    def learn(self, site: Site, session: Session) -> None:
        """Remember what TLS could not do at a session's host, and tell it once."""
        host, place, now = session.host, _place(site, session.host), self._clock()
        if session.plain_because:
            seconds = self._time_of(place, session.plain_fault, now)
            self._broken.pause(place, now + seconds, session.plain_because, now)
            text = "%s: mail goes in plain text and TLS is not tried again for %s (route %s, level may): %s"
            log.warning(text, host.name, _how_long(seconds), site.route.name, session.plain_because)
        elif session.tls:
            self._stalls.resume(place)
        if session.trial_fault:
            self._trials.pause(place, now + BROKEN, session.trial_fault, now)
            text = "%s: the MTA-STS policy of %s would have refused it, but is in mode testing: %s"
            log.warning(text, host.name, site.sts_domain, session.trial_fault)

    def clear(self) -> None:
        """Forget the broken hosts, as after a reload or when a person asks for an attempt."""
        for remembered in (self._broken, self._trials, self._stalls):
            remembered.clear()

    def _time_of(self, place: str, fault: NetFault | None, now: float) -> float:
        """Give the seconds for which no handshake is tried after one that failed or stalled.

        What the peer's TLS says is believed at once. Silence and resets are a network's as well, so it takes a few.
        """
        if fault not in _STALLS:
            return BROKEN
        known = self._stalls.cause(place, now)
        count = (known[1] if known is not None else 0) + 1
        self._stalls.resume(place)
        if count >= MOST_STALLS:
            return BROKEN
        self._stalls.pause(place, now + STALLS_COUNT, count, now)
        return STALLED

    async def _find_tlsa(self, host: Host) -> TlsaFinding | None:
        """Look for a host's TLSA records at each name that may have some (RFC 7672 2.2.2); None when DNS fails."""
        if not self._resolver.believes_ad:
            return TlsaFinding(host.name, nothing="the resolver is not one whose DNSSEC validation is believed")
        is_proved = host.secure
        if host.tlsa_names and not host.secure:
            # Name servers of unsigned zones may fail on TLSA records, so first it is asked whether the alias is signed.
            found = await self._resolver.is_proved_alias(host.tlsa_names[0])
            if found is None:
                return None
            is_proved = found
        if not is_proved:
            return TlsaFinding(host.name, nothing=f"DNSSEC does not prove the mail host {host.name} and its addresses")
        for name in host.tlsa_names:
            place = f"_{host.port}._tcp.{name}"
            answer = await self._resolver.tlsa(place)
            if answer is None:
                return None
            if answer.records:
                return TlsaFinding(place, answer.records)
        return TlsaFinding(host.name, nothing=f"there are no TLSA records of {host.name}")


def _place(site: Site, host: Host) -> str:
    return f"{site.route.name} {host.name}:{host.port}"


def _how_long(seconds: float) -> str:
    hours = round(seconds / 3600)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h" if hours else f"{max(1, round(seconds / 60))} min"
