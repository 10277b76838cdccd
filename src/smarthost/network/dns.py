"""Resolver: lookups behind a cache of our own, with one question at a time for each name and type."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from smarthost.network.dns_query import LIFETIME, Ask, DnsFault, Records, ask, make_stub

__all__ = ["Addresses", "DnsFault", "MxAnswer", "Resolver"]

MIN_TTL, MAX_TTL = 30.0, 86_400.0  # seconds an answer is kept, whatever the zone says
MIN_NEGATIVE_TTL, MAX_NEGATIVE_TTL = 30.0, 900.0
FAULT_TTL = 30.0  # seconds that a server failure or timeout is remembered (RFC 9520 3.2 allows up to 5 minutes)
MAX_CACHED = 50_000

# Called after each question that went to a server: type, result ("ok" or a DnsFault) and seconds.
Observe = Callable[[str, str, float], None]


class MxAnswer(msgspec.Struct, frozen=True):
    """The MX records of a domain as pairs of preference and host name, in the server's order.

    A null MX (RFC 7505) is one pair whose host name is "". `expires` is a Unix time in seconds.
    """

    records: tuple[tuple[int, str], ...]
    expires: float


class Addresses(msgspec.Struct, frozen=True):
    """The IPv4 and IPv6 addresses of a host; at least one. `expires` is a Unix time in seconds."""

    v4: tuple[str, ...]
    v6: tuple[str, ...]
    expires: float


class Resolver:
    """Looks names up, absolute names only, and remembers answers, absences and failures within bounds.

    Faults are values. `servers` are as "127.0.0.1:5353"; [] means the system's. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        servers: Sequence[str],
        clock: Callable[[], float],
        observe: Observe,
        *,
        lifetime: float = LIFETIME,
        max_cached: int = MAX_CACHED,
        ask: Ask = ask,
    ) -> None:
        """Begin with nothing known; `lifetime` in seconds bounds one question, and `ask` puts it.

        Raises ValueError for a server that is no address.
        """
        self._servers = tuple(servers)
        self._clock = clock
        self._observe = observe
        self._lifetime = lifetime
        self._max_cached = max_cached
        self._question = ask
        self._stub = make_stub(self._servers, lifetime)
        self._cached: dict[tuple[str, str], tuple[Records, float]] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[tuple[Records, float]]] = {}

    async def mx(self, domain: str) -> MxAnswer | DnsFault:
        """Give a domain's MX records, aliases followed."""
        records, expires = await self._look_up("MX", domain)
        return records.fault or MxAnswer(records.mx, expires)

    async def addresses(self, name: str) -> Addresses | DnsFault:
        """Give a host's addresses, both families asked for at once.

        One family is enough: where the other failed for a time, what there is holds until that failure is forgotten.
        """
        (v4, v4_expires), (v6, v6_expires) = await asyncio.gather(self._look_up("A", name), self._look_up("AAAA", name))
        if v4.addresses or v6.addresses:
            return Addresses(v4.addresses, v6.addresses, min(v4_expires, v6_expires))
        faults = (v4.fault, v6.fault)
        # A name that does not exist has no records of any type (RFC 8020 2).
        for fault in (DnsFault.BAD_NAME, DnsFault.NO_NAME, DnsFault.TEMPORARY):
            if fault in faults:
                return fault
        return DnsFault.NO_RECORDS

    async def records(self, name: str, rdtype: str) -> Records:
        """Give the records of one type: "A", "AAAA", "MX", "TXT" or "PTR", aliases followed."""
        return (await self._look_up(rdtype, name))[0]

    def clear(self) -> None:
        """Forget everything and read the system's servers anew; questions under way end as they began."""
        self._cached.clear()
        self._asking.clear()
        self._stub = make_stub(self._servers, self._lifetime)

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
        while len(self._cached) >= self._max_cached:
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
