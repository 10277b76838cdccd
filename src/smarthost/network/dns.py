"""Resolver: lookups behind a cache of our own, with one question at a time for each name and type."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from smarthost.mail.tlsa import Tlsa
from smarthost.network.dns_query import LIFETIME, Ask, DnsFault, Dnssec, Records, ask, believes_ad, make_stub

__all__ = ["Addresses", "DnsFault", "Dnssec", "MxAnswer", "Resolver", "TlsaAnswer"]

MIN_TTL, MAX_TTL = 30.0, 86_400.0  # seconds an answer is kept, whatever the zone says
MIN_NEGATIVE_TTL, MAX_NEGATIVE_TTL = 30.0, 900.0
FAULT_TTL = 30.0  # seconds that a server failure or timeout is remembered (RFC 9520 3.2 allows up to 5 minutes)
MAX_CACHED = 50_000

# Called after each question that went to a server: type, result ("ok" or a DnsFault) and seconds.
Observe = Callable[[str, str, float], None]


class MxAnswer(msgspec.Struct, frozen=True):
    """The MX records of a domain as pairs of preference and host name, in the server's order.

    A null MX (RFC 7505) is one pair whose host name is "". `expires` is a Unix time in seconds, `secure` says that
    DNSSEC proves them; `name` is the domain's own name behind its aliases.
    """

    records: tuple[tuple[int, str], ...]
    expires: float
    secure: bool = False
    name: str = ""


class Addresses(msgspec.Struct, frozen=True):
    """The IPv4 and IPv6 addresses of a host; at least one. `expires` is a Unix time in seconds.

    `secure` says that DNSSEC proves all of them; `name` is the host's own name behind its aliases, proved or not.
    """

    v4: tuple[str, ...]
    v6: tuple[str, ...]
    expires: float
    secure: bool = False
    name: str = ""


class TlsaAnswer(msgspec.Struct, frozen=True):
    """The TLSA records of a service that DNSSEC proves; () where there is none, or none that is proved."""

    records: tuple[Tlsa, ...]


class Resolver:
    """Looks names up, absolute names only, and remembers answers, absences and failures within bounds.

    Faults are values. `servers` are as "127.0.0.1:5353"; [] means the system's. `clock` gives Unix seconds. At most
    `max_cached` answers are remembered.
    """

    def __init__(
        self,
        servers: Sequence[str],
        clock: Callable[[], float],
        observe: Observe,
        *,
        lifetime: float = LIFETIME,
        dnssec: Dnssec = Dnssec.OFF,
        ask: Ask = ask,
    ) -> None:
        """Begin with nothing known; `lifetime` in seconds bounds one question, and `ask` puts it.

        Raises ValueError for a server that is no address.
        """
        self._servers = tuple(servers)
        self._clock = clock
        self._observe = observe
        self._lifetime = lifetime
        self.max_cached = MAX_CACHED
        self._question = ask
        self._dnssec = dnssec
        self._stub = make_stub(self._servers, lifetime, dnssec)
        self._cached: dict[tuple[str, str], tuple[Records, float]] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[tuple[Records, float]]] = {}

    async def mx(self, domain: str) -> MxAnswer | DnsFault:
        """Give a domain's MX records, aliases followed."""
        records, expires = await self._look_up("MX", domain)
        return records.fault or MxAnswer(records.mx, expires, records.secure, records.owner)

    async def addresses(self, name: str) -> Addresses | DnsFault:
        """Give a host's addresses, both families asked for at once.

        One family is enough: where the other failed for a time, what there is holds until that failure is forgotten.
        """
        (v4, v4_expires), (v6, v6_expires) = await asyncio.gather(self._look_up("A", name), self._look_up("AAAA", name))
        if v4.addresses or v6.addresses:
            found = [each for each in (v4, v6) if each.addresses]
            secure = all(each.secure for each in found)
            return Addresses(v4.addresses, v6.addresses, min(v4_expires, v6_expires), secure, found[0].owner)
        faults = (v4.fault, v6.fault)
        # A name that does not exist has no records of any type (RFC 8020 2).
        for fault in (DnsFault.BAD_NAME, DnsFault.NO_NAME, DnsFault.TEMPORARY):
            if fault in faults:
                return fault
        return DnsFault.NO_RECORDS

    async def records(self, name: str, rdtype: str) -> Records:
        """Give the records of one type: "A", "AAAA", "MX", "TXT" or "PTR", aliases followed."""
        return (await self._look_up(rdtype, name))[0]

    async def tlsa(self, name: str) -> TlsaAnswer | None:
        """Give the TLSA records of a name as _25._tcp.mx.example; None where DNS failed, or DNSSEC proves them false.

        To be asked only where the host's addresses are secure: elsewhere many name servers fail on this type, and
        nothing would be gained (RFC 7672 2.2.2).
        """
        records, _ = await self._look_up("TLSA", name)
        if records.fault is DnsFault.TEMPORARY:
            return None
        return TlsaAnswer(records.tlsa if records.secure else ())

    async def is_proved_alias(self, name: str) -> bool | None:
        """Whether DNSSEC proves that a name is an alias, wherever it leads; None where DNS failed."""
        records, _ = await self._look_up("CNAME", name)
        if records.fault is DnsFault.TEMPORARY:
            return None
        return records.fault is None and records.secure

    @property
    def believes_ad(self) -> bool:
        """Whether answers can be secure at all: DANE needs that."""
        return believes_ad(self._stub)

    def clear(self) -> None:
        """Forget everything and read the system's servers anew; questions under way end as they began."""
        self._cached.clear()
        self._asking.clear()
        self._stub = make_stub(self._servers, self._lifetime, self._dnssec)

    async def _look_up(self, rdtype: str, name: str) -> tuple[Records, float]:
        place = rdtype, name.rstrip(".").lower()
        cached = self._cached.get(place)
        if cached is not None and self._clock() < cached[1]:
            return cached
        question = self._asking.get(place)
        if question is None:
            question = self._asking[place] = asyncio.create_task(self._ask(*place))
            question.add_done_callback(partial(self._asked, place))
        # Shielded: one who stops waiting does not take the answer from the others.
        return await asyncio.shield(question)

    async def _ask(self, rdtype: str, name: str) -> tuple[Records, float]:
        started = time.perf_counter()
        records = await self._question(self._stub, name, rdtype)
        self._observe(rdtype, records.fault or "ok", time.perf_counter() - started)
        found = records, self._clock() + _kept_for(records)
        place = rdtype, name
        # After clear() this may be a question of before, with the servers of before: its answer is not kept.
        if self._asking.get(place) is asyncio.current_task():
            self._keep(place, found)
        return found

    def _asked(self, place: tuple[str, str], question: "asyncio.Task[tuple[Records, float]]") -> None:
        if self._asking.get(place) is question:
            del self._asking[place]

    def _keep(self, place: tuple[str, str], found: tuple[Records, float]) -> None:
        # The oldest goes first, expired or not: cheap, and what is still needed comes back with one question.
        self._cached.pop(place, None)
        while len(self._cached) >= self.max_cached:
            del self._cached[next(iter(self._cached))]
        self._cached[place] = found


def _kept_for(records: Records) -> float:
    """Give the seconds that a finding is kept."""
    match records.fault:
        case None:
            return min(max(records.ttl, MIN_TTL), MAX_TTL)
        case DnsFault.TEMPORARY:
            return FAULT_TTL
        case _:
            return min(max(records.ttl, MIN_NEGATIVE_TTL), MAX_NEGATIVE_TTL)
