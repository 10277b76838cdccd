"""Decides what TLS must prove on the way to a host: DANE over MTA-STS over the level of the route."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import msgspec

from smarthost.mail.envelope import Envelope
from smarthost.mail.route import Deliver, Host, Route, Site, StsMode, TlsLevel
from smarthost.mail.tlsa import Tlsa


class TlsSource(StrEnum):
    """Who says what TLS must prove: the route of the configuration, the recipient's domain, or the host's zone."""

    ROUTE = "route"
    STS = "sts"
    DANE = "dane"


class Proof(StrEnum):
    """How the peer of a session was verified, as log, trace and reports say it."""

    NONE = "none"
    CA = "ca"
    STS = "sts"
    DANE = "dane"


class TlsPolicy(msgspec.Struct, frozen=True):
    """What TLS must prove at one host, who says so, and why, in a sentence for people.

    `tlsa` are the records of which one must match, for level DANE; `server_name` is the name to ask for, "" for the
    host's own. A certificate that a record of usage 2 vouches for must have it, or one of `next_hops`. `on_trial` says
    that an MTA-STS policy in mode testing would ask for more: what it would refuse is told, and mail goes on.
    """

    level: TlsLevel
    source: TlsSource = TlsSource.ROUTE
    sentence: str = ""
    tlsa: tuple[Tlsa, ...] = ()
    server_name: str = ""
    on_trial: bool = False
    next_hops: tuple[str, ...] = ()


class TlsaFinding(msgspec.Struct, frozen=True):
    """What was found at a name as _25._tcp.mx.example: `records` that DNSSEC proves, or `nothing` says why none."""

    name: str
    records: tuple[Tlsa, ...] = ()
    nothing: str = ""


class TlsPlan(msgspec.Struct, frozen=True):
    """How a session to a host uses TLS.

    `attempt`: TLS is used where it can be had; `required`: no mail without it; `verify`: the certificate must be
    trusted and match the host's name, or its address where the host is an address literal (RFC 6125 6.4, RFC 9525);
    `retry_plain`: after a handshake that failed a new session goes without TLS (RFC 7435). `proof` is what a session
    that came about has then shown.
    """

    attempt: bool
    required: bool
    verify: bool
    retry_plain: bool
    proof: Proof = Proof.NONE


REQUIRETLS = "requiretls"  # what a route demands that was made stricter
PLAIN = TlsPlan(attempt=False, required=False, verify=False, retry_plain=False)
TRIAL = TlsPlan(attempt=True, required=True, verify=True, retry_plain=False, proof=Proof.CA)
_PLANS: Mapping[TlsLevel, TlsPlan] = MappingProxyType(
    {
        TlsLevel.NONE: PLAIN,
        TlsLevel.MAY: TlsPlan(attempt=True, required=False, verify=False, retry_plain=True),
        TlsLevel.ENCRYPT: TlsPlan(attempt=True, required=True, verify=False, retry_plain=False),
        TlsLevel.VERIFY: TlsPlan(attempt=True, required=True, verify=True, retry_plain=False, proof=Proof.CA),
        TlsLevel.DANE: TlsPlan(attempt=True, required=True, verify=False, retry_plain=False, proof=Proof.DANE),
    }
)
_STS_PLAN = TlsPlan(attempt=True, required=True, verify=True, retry_plain=False, proof=Proof.STS)


def plan(policy: TlsPolicy, host: Host) -> TlsPlan:
    """Give the plan for a host.

    TLS on connect cannot be done without, whatever the level; the level then says whether it must prove anything.
    """
    if policy.level is TlsLevel.VERIFY and policy.source is TlsSource.STS:
        return _STS_PLAN
    found = _PLANS[policy.level]
    if host.implicit_tls and not found.required:
        return _PLANS[TlsLevel.ENCRYPT]
    return found


def as_asked(route: Route, envelope: Envelope) -> Route:
    """Give the route by which a message goes that asks something of TLS itself (RFC 8689); else the route as it is.

    With REQUIRETLS, which stands above all else, a route that proves nothing has to: where it may or must use TLS,
    certificates are verified; a pool has only those members that use TLS, if there are any. With "TLS-Required: No"
    what recipients' domains demand is not heeded, neither MTA-STS nor DANE (RFC 8689 4.2.2); what the configuration
    demands of a next hop, or of every host, is.
    """
    if envelope.requiretls:
        if route.pool:
            able = tuple(
                msgspec.structs.replace(member, route=_raised(member.route))
                for member in route.pool
                if member.route.tls is not TlsLevel.NONE
            )
            return msgspec.structs.replace(route, demand=REQUIRETLS, pool=able) if able else route
        return _raised(route) if route.tls not in (TlsLevel.NONE, TlsLevel.VERIFY) else route
    if envelope.tls_optional and route.deliver is Deliver.MX:
        level = TlsLevel.MAY if route.tls is TlsLevel.DANE else route.tls
        if route.mta_sts or level is not route.tls:
            return msgspec.structs.replace(route, tls=level, mta_sts=False)
    return route


def _raised(route: Route) -> Route:
    """Give a route that uses TLS as one that has to prove whom it reaches."""
    level = TlsLevel.VERIFY if route.tls in (TlsLevel.MAY, TlsLevel.ENCRYPT) else route.tls
    return msgspec.structs.replace(route, tls=level, demand=REQUIRETLS)


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """Leave out TLSA records that SMTP cannot use: usages 0 and 1, unknown numbers, data of a wrong form.

    RFC 7672 3.1.3 for the usages. Of records with one usage and selector only those of the best digest count, beside
    those that hold the whole certificate or key (RFC 7671 9).
    """
    lengths = {1: 32, 2: 64}  # octets of SHA-256 and SHA-512
    found = [
        record
        for record in records
        if record.usage in (2, 3)
        and record.selector in (0, 1)
        and (_is_der(record.data) if record.matching == 0 else len(record.data) == lengths.get(record.matching))
    ]
    best: dict[tuple[int, int], int] = {}
    for record in found:
        kind = record.usage, record.selector
        best[kind] = max(record.matching, best.get(kind, 0))
    return tuple(each for each in found if each.matching in (0, best[each.usage, each.selector]))


def _is_der(data: bytes) -> bool:
    """Whether octets are one whole sequence of DER, as certificates and keys are."""
    if len(data) < 2 or data[0] != 0x30:
        return False
    if data[1] < 0x80:
        return len(data) == 2 + data[1]
    count = data[1] - 0x80  # octets of the length
    return 0 < count <= 4 and len(data) == 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def decide(site: Site, host: Host, dane: TlsaFinding | None = None) -> TlsPolicy:
    """Decide what TLS must prove at a host of a site; `dane` is what was found where the route asks for DANE.

    Proved TLSA records come first (RFC 8461 2). Where there are some and none can be used, TLS is still demanded, with
    any certificate (RFC 7672 2.2) unless MTA-STS demands more. Without, MTA-STS holds, then the route; its level "dane"
    then means may for MX delivery, and verify for a relayhost, which is a named peer.
    """
    route = site.route
    if dane is not None and dane.records:
        found = usable(dane.records)
        if found:
            count = f"{len(found)} TLSA record{'s' if len(found) > 1 else ''}"
            sentence = f"{count} at {dane.name}, proved by DNSSEC, say which certificate {host.name} has"
            return TlsPolicy(TlsLevel.DANE, TlsSource.DANE, sentence, found, _server_name(dane.name))
        if site.sts is not StsMode.ENFORCE and not site.route.demand:
            sentence = f"{dane.name} has TLSA records, but none that SMTP can use: TLS is needed, with any certificate"
            return TlsPolicy(TlsLevel.ENCRYPT, TlsSource.DANE, sentence)
    level = route.tls
    sentence = f"route {route.name} says {level.value}"
    if level is TlsLevel.DANE:
        level = TlsLevel.MAY if route.deliver is Deliver.MX and not route.demand else TlsLevel.VERIFY
        why = dane.nothing if dane is not None and dane.nothing else "no TLSA record is proved by DNSSEC"
        sentence += f", and {why}: as {level.value}"
    if site.sts is StsMode.ENFORCE:
        return TlsPolicy(
            TlsLevel.VERIFY, TlsSource.STS, f"the MTA-STS policy of {site.sts_domain} is enforced (RFC 8461)"
        )
    on_trial = site.sts is StsMode.TESTING and level is not TlsLevel.VERIFY
    if site.sts is StsMode.TESTING:
        sentence += f"; the MTA-STS policy of {site.sts_domain} is in mode testing"
    elif site.sts_fault:
        sentence += f"; {site.sts_domain} announces an MTA-STS policy that is not known: {site.sts_fault}"
    return TlsPolicy(level, TlsSource.ROUTE, sentence, on_trial=on_trial)


def _server_name(tlsa_name: str) -> str:
    """Give the TLSA base domain of _25._tcp.mx.example, which the server is asked for by name (RFC 7672 8.1)."""
    return tlsa_name.split(".", 2)[2]
