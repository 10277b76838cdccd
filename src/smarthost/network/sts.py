"""Finds the MTA-STS policies of recipients' domains (RFC 8461): announced in DNS, fetched by HTTPS, kept on disk."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path

import msgspec

from smarthost.network.dns import Addresses, Resolver
from smarthost.network.https import Answer, HttpsFault, get_text
from smarthost.network.in_thread import in_thread
from smarthost.wire.sts_policy import StsPolicy, format_policy, read_policy, read_record

log = logging.getLogger(__name__)

TIMEOUT = 20.0  # seconds for a fetch from one address
PATIENCE = 30.0  # seconds that mail waits for a fetch at most, and for its turn (RFC 8461 3.3 suggests a minute)
RETRY = 300.0  # seconds until a policy that could not be fetched is tried again (RFC 8461 3.3)
REFRESH = 86_400.0  # seconds after which a policy is fetched again, long before it expires (RFC 8461 3.3)
MOST_FETCHES = 32  # at a time
MOST_FETCHING = 1024  # those that wait for their turn included
MOST_KNOWN = 20_000  # policies in memory, and files on disk
PRUNE_EVERY = 512  # files written between two looks at what has expired


class Kept(msgspec.Struct, frozen=True):
    """A policy as it is kept: the id of its record, when it was fetched (Unix time), and its text."""

    id: str
    fetched: float
    text: str


class _Known(msgspec.Struct):
    """What is known of a domain; `policy` None where there is none.

    `again` is when a fetch may be tried, `fault` why the last one brought nothing, or brings nothing yet.
    """

    policy: StsPolicy | None = None
    id: str = ""
    fetched: float = 0.0
    again: float = 0.0
    fault: str = ""

    def holds(self, now: float) -> bool:
        """Whether there is a policy, and it has not expired."""
        return self.policy is not None and now < self.fetched + self.policy.max_age


class StsPolicies:
    """The policies of domains. Mutable. `folder` is where they are kept; `context` gives what verifies their servers.

    Without `keeps` the folder is only read, as by a command beside the relay; `patience` is the seconds that one who
    asks waits for a fetch at most.

    Once known, a policy holds until it expires, whatever DNS or its server say: who can suppress those must not be
    able to switch it off (RFC 8461 10).
    """

    def __init__(
        self,
        resolver: Resolver,
        folder: Path,
        context: Callable[[], ssl.SSLContext],
        clock: Callable[[], float],
        *,
        port: int = 443,
        timeout: float = TIMEOUT,
    ) -> None:
        """Begin with what is on disk, which is read when it is asked for."""
        self._resolver, self._folder, self._context, self._clock = resolver, folder, context, clock
        self._port, self._timeout = port, timeout
        self.keeps, self.patience = True, PATIENCE
        self._known: dict[str, _Known] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(MOST_FETCHES)
        self._written = 0

    async def of(self, domain: str) -> StsPolicy | None:
        """Give the policy that holds for a domain (A-label form) now; None where it has none. Faults are logged.

        Waits for a fetch only where no policy is known that still holds, and not for long: what cannot be had is as
        good as none (RFC 8461 3.3), and what comes later serves later mail.
        """
        domain = domain.rstrip(".").lower()
        known = self._recall(domain)
        announced = read_record((await self._resolver.records(f"_mta-sts.{domain}", "TXT")).texts)
        now = self._clock()
        holds = known.holds(now)
        if not announced:
            known.fault = ""
        if announced and now >= known.again:
            age = now - known.fetched
            # A time of fetching that is to come is that of a clock which has been set right since.
            is_stale = not holds or announced != known.id or age < 0.0
            if is_stale or age >= min(REFRESH, known.policy.max_age / 2 if known.policy else 0.0):
                self._fetch_once(domain, announced, known)
        if not holds:
            await self._wait(domain)
        return known.policy if known.holds(self._clock()) else None

    async def renewed(self, domain: str) -> StsPolicy | None:
        """Give the policy that holds for a domain once the fetch that may be running is over, as far as patience goes.

        To be asked where the one that is known stands in the way: the domain may have changed it just now.
        """
        domain = domain.rstrip(".").lower()
        await self._wait(domain)
        known = self._recall(domain)
        return known.policy if known.holds(self._clock()) else None

    def fault(self, domain: str) -> str:
        """Say why a policy that a domain announces is not known; "" where one is, or none is announced."""
        known = self._known.get(domain.rstrip(".").lower())
        return known.fault if known is not None and not known.holds(self._clock()) else ""

    def is_fetching(self, domain: str) -> bool:
        """Whether a domain's policy is being fetched, or waits for its turn."""
        return domain.rstrip(".").lower() in self._fetching

    def again(self, domain: str) -> float:
        """Give when a policy that is announced and was not to be had is fetched again; infinite where there is none."""
        known = self._known.get(domain.rstrip(".").lower())
        return known.again if known is not None and known.again > self._clock() else inf

    async def stop(self) -> None:
        """Give up the fetches that run."""
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    def _recall(self, domain: str) -> _Known:
        known = self._known.get(domain)
        if known is None:
            known = self._read(domain)
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[domain] = known
        return known

    def _read(self, domain: str) -> _Known:
        """Read what is on disk; a file that cannot be read is as good as none."""
        try:
            kept = msgspec.json.decode(self._file(domain).read_bytes(), type=Kept)
            return _Known(read_policy(kept.text), kept.id, kept.fetched)
        except FileNotFoundError:
            return _Known()
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("the MTA-STS policy of %s that was kept cannot be read: %s", domain, error)
            return _Known()

    def _file(self, domain: str) -> Path:
        # Domains are A-labels here; what could still be a path of its own does not become one.
        return self._folder / f"{domain.replace('/', '_')}.json"

    async def _wait(self, domain: str) -> None:
        """Wait for a fetch that runs, with patience. Who stops waiting does not take the policy from the others."""
        fetch = self._fetching.get(domain)
        if fetch is not None:
            await asyncio.wait((fetch,), timeout=self.patience)

    def _fetch_once(self, domain: str, announced: str, known: _Known) -> None:
        """Begin a fetch, unless one runs, or too many wait for their turn."""
        if domain in self._fetching:
            return
        if len(self._fetching) >= MOST_FETCHING:
            known.again = self._clock() + RETRY
            known.fault = f"{MOST_FETCHING} other fetches go first"
            log.warning("the MTA-STS policy of %s is not fetched now: %s", domain, known.fault)
            return
        known.fault = "its fetch has not come to an end yet"
        task = self._fetching[domain] = asyncio.ensure_future(self._fetch(domain, announced, known))
        task.add_done_callback(partial(self._fetched, domain))

    def _fetched(self, domain: str, task: "asyncio.Task[None]") -> None:
        del self._fetching[domain]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("fetching the MTA-STS policy of %s failed", domain, exc_info=error)

    async def _fetch(self, domain: str, announced: str, known: _Known) -> None:
        """Fetch a policy and keep it; on a fault what is known stays, and the fault is told."""
        known.again = self._clock() + RETRY
        async with self._places:
            text = await self._get(domain)
            policy = text if isinstance(text, HttpsFault) else _read(text)
            if isinstance(policy, HttpsFault):
                known.fault = f"mta-sts.{domain} {policy.reason}"
                what = "the one that is known still holds" if known.holds(self._clock()) else "mail goes as without one"
                log.warning(
                    "%s announces an MTA-STS policy, but mta-sts.%s %s; %s", domain, domain, policy.reason, what
                )
                return
            known.policy, known.id, known.fetched, known.again = policy, announced, self._clock(), 0.0
            known.fault = ""
            if self.keeps:
                kept = Kept(announced, known.fetched, format_policy(policy))
                await in_thread(partial(self._write, domain, kept, known.fetched))

    async def _get(self, domain: str) -> str | HttpsFault:
        """Get the policy's text; its server has to prove its name by a certificate (RFC 8461 3.3)."""
        host = f"mta-sts.{domain}"
        found = await self._resolver.addresses(host)
        if not isinstance(found, Addresses):
            return HttpsFault("has no address in DNS")
        url = f"https://{host}/.well-known/mta-sts.txt"
        answer: Answer | HttpsFault = HttpsFault("has no address in DNS")
        for address in (*found.v4[:1], *found.v6[:1]):
            fetch = partial(get_text, url, address, self._context(), self._timeout, port=self._port)
            answer = await in_thread(fetch)
            if not isinstance(answer, HttpsFault):
                break
        if isinstance(answer, HttpsFault):
            return answer
        if answer.status != 200:
            return HttpsFault(f"answered with status {answer.status}")
        if answer.content_type != "text/plain":
            return HttpsFault("gave a policy that is not text/plain")
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            return HttpsFault("gave a policy that is not UTF-8")

    def _write(self, domain: str, kept: Kept, now: float) -> None:
        """In a thread: keep a policy on disk; without it, one is fetched again after a restart."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = self._file(domain)
            beside = file.with_suffix(".new")
            beside.write_bytes(msgspec.json.encode(kept))
            beside.replace(file)
            self._written += 1
            if self._written % PRUNE_EVERY == 1:
                self._prune(now)
        except OSError as error:
            log.warning("the MTA-STS policy of %s cannot be kept: %s", domain, error.strerror or error)

    def _prune(self, now: float) -> None:
        """Delete what has expired, and the oldest of what is too many."""
        files = []
        for file in self._folder.glob("*.json"):
            try:
                kept = msgspec.json.decode(file.read_bytes(), type=Kept)
                if now < kept.fetched + read_policy(kept.text).max_age:
                    files.append((kept.fetched, file))
                    continue
            except (OSError, ValueError, msgspec.MsgspecError):
                pass
            with suppress(OSError):
                file.unlink()
        for _, file in sorted(files)[:-MOST_KNOWN]:
            with suppress(OSError):
                file.unlink()


def _read(text: str) -> StsPolicy | HttpsFault:
    try:
        return read_policy(text)
    except ValueError as error:
        return HttpsFault(f"gave a policy that cannot be used: {error}")
