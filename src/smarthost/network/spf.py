"""Says what SPF makes of mail that leaves from an address of ours: pyspf's judgement, over our own resolver."""

import asyncio
import time
import warnings
from typing import Any

import msgspec

from smarthost.network.dns import Resolver
from smarthost.network.dns_query import DnsFault, Records
from smarthost.network.in_thread import in_thread

with warnings.catch_warnings():
    # Old escapes in its strings are told of where it is compiled anew, since Python 3.12, on our standard error.
    warnings.simplefilter("ignore")
    import spf

PATIENCE = 10.0  # seconds for one judgement, all lookups included (RFC 7208 4.6.4 asks for 20 at least as a receiver)
_VOID = frozenset({DnsFault.NO_NAME, DnsFault.NO_RECORDS, DnsFault.BAD_NAME})


class SpfFinding(msgspec.Struct, frozen=True):
    """What a receiver would find (RFC 7208 2.6): `result` is pass, fail, softfail, neutral, none, temperror, permerror.

    `domain` is the one that was judged; `mechanism` is the term that decided, "" where none did; `explanation` is a
    sentence; `lookups` counts the terms that asked DNS, of which 10 are allowed (RFC 7208 4.6.4).
    """

    result: str
    domain: str
    mechanism: str
    explanation: str
    lookups: int


async def check_spf(resolver: Resolver, address: str, reverse_path: str, hello: str) -> SpfFinding:
    """Judge mail with a reverse-path that comes from an address; a null reverse-path is judged by the EHLO name.

    pyspf blocks, so it has a thread for itself, and comes back to this loop for each lookup; it ends within seconds.
    """
    loop = asyncio.get_running_loop()
    judge = _Judge(resolver, loop, address, reverse_path, hello)
    try:
        result, _, explanation = await in_thread(judge.check, "spf")
    except (spf.PermError, ValueError, AssertionError) as fault:
        # What pyspf does not expect to find in a record or an address.
        result, explanation = "permerror", f"SPF Permanent Error: {fault}"
    mechanism = getattr(judge, "mechanism", None)
    return SpfFinding(result, judge.o, str(mechanism or ""), explanation, judge.lookups)


class _Judge(spf.query):  # type: ignore[misc]
    """One judgement. `dns` is the only place where pyspf looks anything up."""

    def __init__(
        self, resolver: Resolver, loop: asyncio.AbstractEventLoop, address: str, reverse_path: str, hello: str
    ) -> None:
        """Prepare to judge; nothing is looked up yet."""
        super().__init__(i=address, s=reverse_path, h=hello)
        self._resolver, self._loop = resolver, loop
        self._until = time.monotonic() + PATIENCE

    def dns(self, name: Any, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """Give the values of the records of one type, aliases followed; [] where there are none."""
        name = str(name).rstrip(".").lower()
        if not name:
            return []
        found = self.cache.get((name, qtype))
        if found is None:
            found = self.cache[name, qtype] = self._ask(name, qtype)
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return list(found)

    def _ask(self, name: str, qtype: str) -> list[Any]:
        left = self._until - time.monotonic()
        if left <= 0:
            raise spf.TempError(f"DNS: no judgement within {PATIENCE:.0f} s")
        question = asyncio.run_coroutine_threadsafe(self._resolver.records(name, qtype), self._loop)
        try:
            records = question.result(left)
        except TimeoutError:
            question.cancel()
            raise spf.TempError(f"DNS: no answer about {name} in time") from None
        if records.fault is not None and records.fault not in _VOID:
            raise spf.TempError(f"DNS: no answer about {name}")
        return _values(records, qtype)


def _values(records: Records, qtype: str) -> list[Any]:
    """Give records as pyspf reads them."""
    if qtype == "TXT":
        return [(text,) for text in records.texts]
    if qtype == "MX":
        return list(records.mx)
    return list(records.names if qtype == "PTR" else records.addresses)
