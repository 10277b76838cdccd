"""Decides what a person has suspended: a site, a route, a user or a batch, until a time or until it is resumed."""

import hashlib
import math
import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from smarthost.mail.route import Site
from smarthost.policy.limits import is_about, site_pattern

Place = tuple[str, str]


class SuspensionKind(StrEnum):
    """What is suspended: hosts by a glob or suffix of their names, a route by its name, what a user has handed in, or
    of that what has a tag, by "user/tag".
    """

    SITE = "site"
    ROUTE = "route"
    USER = "user"
    BATCH = "batch"


_OF_MAIL = frozenset({SuspensionKind.USER, SuspensionKind.BATCH})
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Suspension(msgspec.Struct, frozen=True, omit_defaults=True):
    """One suspension, as a person asked for it; Unix times, `until` None where it lasts until it is resumed.

    `batch_code` is what the application calls a batch, where its tag had to be another word.
    """

    kind: SuspensionKind
    name: str
    since: float
    until: float | None = None
    reason: str = ""
    batch_code: str = ""

    @property
    def ends(self) -> float:
        """When it is over; infinite where only a person ends it."""
        return math.inf if self.until is None else self.until

    @property
    def text(self) -> str:
        """Say for people what it is."""
        said = f"a person: {self.reason}" if self.reason else "a person"
        return f"{said} (smarthost suspend {self.kind} {self.name})"


class Suspensions:
    """All that is suspended. Mutable, pure; one of a kind and name at most."""

    def __init__(self, known: Iterable[Suspension] = ()) -> None:
        """Begin with what is known."""
        self._known: dict[Place, Suspension] = {}
        self._patterns: dict[str, re.Pattern[str] | None] = {}
        for suspension in known:
            self.put(suspension)

    @property
    def all(self) -> tuple[Suspension, ...]:
        """Every suspension, in the order in which they were asked for."""
        return tuple(self._known.values())

    @property
    def has_users(self) -> bool:
        """Whether any user, or a batch of one, is suspended, so that mail has to be asked whose it is."""
        return any(kind in _OF_MAIL for kind, _ in self._known)

    def put(self, suspension: Suspension) -> None:
        """Suspend; what was said of the same place before is replaced."""
        self._known[suspension.kind, suspension.name] = suspension
        if suspension.kind is SuspensionKind.SITE:
            self._patterns[suspension.name] = site_pattern(suspension.name)

    def remove(self, kind: SuspensionKind, name: str) -> Suspension | None:
        """Resume; gives what was suspended, None where nothing was."""
        return self._known.pop((kind, name), None)

    def ended(self, now: float) -> list[Suspension]:
        """Give what is over, once."""
        over = [each for each in self._known.values() if each.ends <= now]
        for each in over:
            del self._known[each.kind, each.name]
        return over

    def of_site(self, site: Site) -> Suspension | None:
        """Give what suspends a site or its route, for the longest time; None where nothing does."""
        found = [each for each in self._known.values() if self._is_about(each, site)]
        return max(found, key=lambda each: each.ends, default=None)

    def of_mail(self, identity: str, tag: str) -> Suspension | None:
        """Give what suspends the mail of a user that has a tag, "" for none."""
        found = self._known.get((SuspensionKind.USER, identity))
        if found is None and tag:
            found = self._known.get((SuspensionKind.BATCH, batch_name(identity, tag)))
        return found

    def _is_about(self, suspension: Suspension, site: Site) -> bool:
        if suspension.kind is SuspensionKind.ROUTE:
            return suspension.name == site.route.name
        pattern = self._patterns.get(suspension.name)
        return suspension.kind is SuspensionKind.SITE and pattern is not None and is_about(pattern, site)


def batch_name(identity: str, tag: str) -> str:
    """Name what a user has handed in with a tag."""
    return f"{identity}/{tag}"


def batch_tag(code: str) -> str:
    """Give the tag of a batch, whatever its application calls it: the same for the same code."""
    if _TAG.fullmatch(code) is not None:
        return code
    return f"batch-{hashlib.sha256(code.encode()).hexdigest()[:32]}"
