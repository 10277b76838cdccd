"""Decides what a site may be given: connections, rates, messages and idle time, the most specific limit first."""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from smarthost.mail.route import Deliver, Site
from smarthost.policy.glob import compile_globs
from smarthost.policy.rate import Rate, parse_rate

IDLE_RELAYHOST = 60.0  # seconds; the login and the TLS session are worth keeping
IDLE_MX = 5.0  # seconds; strangers' servers have better uses for a connection


class OnLimit(StrEnum):
    """What becomes of mail over a limit: in the queue it waits; at the door it is refused for now."""

    DEFER = "defer"
    ERROR = "error"


class LimitMatch(msgspec.Struct, frozen=True):
    """What a limit is about; "" does not restrict. `site` is a glob, or a suffix, of an MX host's name."""

    site: str = ""
    route: str = ""
    destination: str = ""
    sender_domain: str = ""
    user: str = ""
    tag: str = ""

    @property
    def is_of_site(self) -> bool:
        """Whether it speaks of sites and routes only, as a limit must that a whole site shares."""
        return not (self.destination or self.sender_domain or self.user or self.tag)

    @property
    def specificity(self) -> tuple[int, int]:
        """How narrow it is: the number of its keys, then their letters that are no wildcard."""
        keys = (self.site, self.route, self.destination, self.sender_domain, self.user, self.tag)
        return sum(map(bool, keys)), sum(len(key.replace("*", "").replace("?", "")) for key in keys)


class Limit(msgspec.Struct, frozen=True):
    """One limit as configured; None leaves a key to less specific limits. Rates are texts, times are seconds.

    `number` is its place among the limits, from 1 on, by which people are told of it, unless it has a `label`.
    """

    match: LimitMatch = LimitMatch()
    max_connections: int | None = None
    max_connection_rate: str | None = None
    message_rate: tuple[str, ...] | None = None
    max_messages_per_connection: int | None = None
    max_recipients_per_transaction: int | None = None
    idle_timeout: float | None = None
    recipient_rate: tuple[str, ...] | None = None
    on_limit: OnLimit = OnLimit.DEFER
    number: int = 0
    label: str = ""

    @property
    def title(self) -> str:
        """Write which limit is meant: its place in the configuration and what it is about, or its label."""
        if self.label:
            return self.label
        match = ", ".join(f"{key} {value}" for key, value in msgspec.structs.asdict(self.match).items() if value)
        return f"[[limit]] {self.number}" + (f" ({match})" if match else "")


class SiteLimits(msgspec.Struct, frozen=True):
    """What one site may be given. Times are seconds; no rates means that nothing is paced."""

    max_connections: int = 20
    max_connection_rate: tuple[Rate, ...] = ()
    message_rate: tuple[Rate, ...] = ()
    max_messages_per_connection: int = 100
    max_recipients_per_transaction: int = 100
    idle_timeout: float = IDLE_RELAYHOST
    recipient_rate: tuple[Rate, ...] = ()
    max_age: float = 300.0


class LimitTable:
    """All limits, most specific first; of two that are equally specific the one written first wins.

    A limit with a destination, a sender_domain, a user or a tag is not about a whole site and is left out here
    (`policy.restraints`).
    """

    def __init__(self, limits: Iterable[Limit]) -> None:
        """Sort and compile; raises ValueError when a rate is none."""
        of_sites = [limit for limit in limits if limit.match.is_of_site]
        of_sites.sort(key=lambda limit: limit.match.specificity, reverse=True)
        self._rows = tuple((site_pattern(limit.match.site), limit, _known(limit)) for limit in of_sites)

    def for_site(self, site: Site) -> SiteLimits:
        """Give a site's limits: for each key the most specific limit that says something about it, else the default."""
        found: dict[str, object] = {}
        for _, known in self._about(site):
            found = known | found
        if "idle_timeout" not in found:
            found["idle_timeout"] = IDLE_RELAYHOST if site.route.deliver is Deliver.RELAYHOST else IDLE_MX
        return msgspec.structs.replace(SiteLimits(), **found)

    def sources(self, site: Site) -> dict[str, str]:
        """Say for people which limit each key of a site's limits comes from; keys with their default are left out."""
        found: dict[str, str] = {}
        for limit, known in self._about(site):
            found = dict.fromkeys(known, limit.title) | found
        return found

    def _about(self, site: Site) -> Iterator[tuple[Limit, dict[str, object]]]:
        """Give the limits that are about a site, the most specific first, each with the keys that it sets."""
        for pattern, limit, known in self._rows:
            route = limit.match.route
            if (not route or route == site.route.name) and (pattern is None or is_about(pattern, site)):
                yield limit, known


def site_pattern(site: str) -> re.Pattern[str] | None:
    """Compile a glob, or a suffix, of an MX host's name; None for "", which is every site."""
    if not site:
        return None
    if "*" in site or "?" in site:
        return compile_globs((site,))
    return compile_globs((site, f"*.{site}"))


def is_about(pattern: re.Pattern[str], site: Site) -> bool:
    """Whether a pattern names one of the hosts of a site, or the site."""
    # One host is enough: a domain that adds a backup of its own still loads the provider's hosts.
    return any(pattern.fullmatch(host.name.rstrip(".")) for host in site.hosts) or bool(pattern.fullmatch(site.name))


def _known(limit: Limit) -> dict[str, object]:
    known: dict[str, object] = {
        key: getattr(limit, key)
        for key in ("max_connections", "max_messages_per_connection", "max_recipients_per_transaction", "idle_timeout")
        if getattr(limit, key) is not None
    }
    if limit.max_connection_rate is not None:
        known["max_connection_rate"] = (parse_rate(limit.max_connection_rate),)
    if limit.message_rate is not None:
        known["message_rate"] = tuple(map(parse_rate, limit.message_rate))
    if limit.recipient_rate is not None:
        known["recipient_rate"] = tuple(map(parse_rate, limit.recipient_rate))
    return known
