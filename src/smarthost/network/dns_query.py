"""Asks name servers one question through dnspython, and turns its answers and exceptions into words of ours."""

from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from ipaddress import ip_address

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.rrset
import msgspec

from smarthost.mail.tlsa import Tlsa

LIFETIME = 5.0  # seconds for one question, all servers and repetitions included
PER_TRY = 2.0  # seconds until the next server is asked, or the same one again
EDNS_PAYLOAD = 1232  # octets; fits every path without fragments (DNS flag day 2020)
MAX_CNAMES = 8  # that we follow ourselves when a server gives an alias without its target
RESOLV_CONF = "/etc/resolv.conf"
DEFAULT_SERVER = "127.0.0.1"  # what resolv.conf(5) says where no server is named


class DnsFault(StrEnum):
    """Why there is no answer. Only NO_NAME, BAD_NAME and NO_RECORDS say something about the name asked for."""

    NO_NAME = "nxdomain"  # the name does not exist
    BAD_NAME = "bad_name"  # the text cannot be a domain name
    NO_RECORDS = "no_records"  # the name exists, without records of this type
    TEMPORARY = "temporary"  # servers failed, refused, did not answer, or answered nonsense


class Dnssec(StrEnum):
    """Whose AD bit is believed: of resolvers on this machine or named in the configuration, of all, or of none."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Records(msgspec.Struct, frozen=True):
    """The records of one type: for MX pairs of preference and host name, for A and AAAA addresses; `ttl` in seconds.

    For TXT `texts` are the records, each with its strings joined (RFC 7208 3.3); for PTR and CNAME `names` are host
    names without the final dot. `fault` is None where there are records. A null MX's host name is "" (RFC 7505).
    `secure` says that a validating resolver which is believed vouches for them, aliases included; `owner` is the name
    behind the aliases.
    """

    mx: tuple[tuple[int, str], ...] = ()
    addresses: tuple[str, ...] = ()
    ttl: float = 0.0
    fault: DnsFault | None = None
    texts: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()
    tlsa: tuple[Tlsa, ...] = ()
    secure: bool = False
    owner: str = ""


# Puts one question: a stub resolver, a name, a record type; the answer, or what went wrong, as Records.
Ask = Callable[[dns.asyncresolver.Resolver, str, str], Coroutine[None, None, Records]]


def make_stub(
    servers: Sequence[str], lifetime: float = LIFETIME, dnssec: Dnssec = Dnssec.OFF
) -> dns.asyncresolver.Resolver:
    """Build a stub resolver for servers as "127.0.0.1:5353", "[::1]:53" or a bare address; [] means the system's.

    A missing or empty resolv.conf means the server on this machine. Raises ValueError for a server that is no address.
    It asks for the AD bit (RFC 6840 5.7) where `dnssec` lets it be believed.
    """
    stub = dns.asyncresolver.Resolver(configure=False)
    if servers:
        stub.nameservers = [_parse_server(server) for server in servers]
    else:
        try:
            stub.read_resolv_conf(RESOLV_CONF)
        except (dns.exception.DNSException, OSError, ValueError):
            pass
        stub.nameservers = stub.nameservers or [DEFAULT_SERVER]
    stub.lifetime = lifetime
    stub.timeout = min(PER_TRY, lifetime)
    stub.use_edns(0, 0, EDNS_PAYLOAD)
    # Somebody on the path to a distant resolver could set the bit; one that is named was chosen for its answers.
    is_near = bool(servers) or all(_is_loopback(server) for server in stub.nameservers)
    if dnssec is Dnssec.ON or (dnssec is Dnssec.AUTO and is_near):
        stub.flags = dns.flags.RD | dns.flags.AD
    return stub


def believes_ad(stub: dns.asyncresolver.Resolver) -> bool:
    """Whether the AD bit of a stub resolver's answers is believed."""
    return bool((stub.flags or 0) & dns.flags.AD)


def _is_loopback(server: object) -> bool:
    try:
        return ip_address(str(server)).is_loopback
    except ValueError:
        return False


def _parse_server(text: str) -> dns.nameserver.Nameserver:
    host, port = text, "53"
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = (rest.removeprefix(":") or port) if closed else ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isdecimal():
        raise ValueError(f"{text!r} is not the address of a name server")
    return dns.nameserver.Do53Nameserver(str(ip_address(host)), int(port))


async def ask(stub: dns.asyncresolver.Resolver, name: str, rdtype: str) -> Records:
    """Ask for one type of an absolute name, aliases followed; never raises for what DNS may do.

    The types are MX, A, AAAA, TXT, PTR, TLSA and CNAME.
    """
    try:
        question = dns.name.from_text(name.rstrip(".") + ".")
    except (dns.exception.DNSException, UnicodeError):
        question = dns.name.root
    if question == dns.name.root:
        return Records(fault=DnsFault.BAD_NAME)
    ttl, secure = float("inf"), True
    for _ in range(MAX_CNAMES):
        found, target, found_ttl = await _ask_once(stub, question, rdtype)
        ttl = min(ttl, found_ttl)
        secure = secure and found.secure
        if found.fault is not DnsFault.NO_RECORDS or target == question:
            break
        question = target
    return msgspec.structs.replace(found, ttl=ttl, secure=secure)


async def _ask_once(
    stub: dns.asyncresolver.Resolver, question: dns.name.Name, rdtype: str
) -> tuple[Records, dns.name.Name, float]:
    """Give what one question brought, the name at the end of the aliases, and the seconds that this holds."""
    try:
        answer = await stub.resolve(question, rdtype, raise_on_no_answer=False, search=False)
    except dns.resolver.NXDOMAIN as absent:
        return Records(fault=DnsFault.NO_NAME), question, _negative_ttl(absent)
    except (dns.exception.DNSException, OSError, EOFError, ValueError):
        return Records(fault=DnsFault.TEMPORARY), question, 0.0
    target, ttl = answer.canonical_name, float(answer.chaining_result.minimum_ttl)
    secure = believes_ad(stub) and bool(answer.response.flags & dns.flags.AD)
    if answer.rrset is None:
        return Records(fault=DnsFault.NO_RECORDS, secure=secure), target, ttl
    records = _read_records(answer.rrset, rdtype)
    owner = target.to_text(omit_final_dot=True).lower()
    return msgspec.structs.replace(records, secure=secure, owner=owner), target, ttl


def _read_records(rrset: dns.rrset.RRset, rdtype: str) -> Records:
    match rdtype:
        case "MX":
            pairs = ((record.preference, record.exchange.to_text(omit_final_dot=True).lower()) for record in rrset)
            return Records(mx=tuple((preference, "" if host in (".", "@") else host) for preference, host in pairs))
        case "TXT":
            return Records(texts=tuple(b"".join(record.strings) for record in rrset))
        case "PTR" | "CNAME":
            return Records(names=tuple(record.target.to_text(omit_final_dot=True).lower() for record in rrset))
        case "TLSA":
            found = (Tlsa(record.usage, record.selector, record.mtype, bytes(record.cert)) for record in rrset)
            return Records(tlsa=tuple(found))
        case _:
            return Records(addresses=tuple(record.address for record in rrset))


def _negative_ttl(absent: dns.resolver.NXDOMAIN) -> float:
    """Give the seconds that a name stays absent (RFC 2308 5): the shortest of the responses."""
    responses: dict[dns.name.Name, dns.message.QueryMessage] = absent.responses()  # type: ignore[no-untyped-call]
    return min((float(response.resolve_chaining().minimum_ttl) for response in responses.values()), default=0.0)
