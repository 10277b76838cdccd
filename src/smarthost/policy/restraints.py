"""Decides which limits hold for a part of the mail: a user's, a sender's domain's, a destination's or a tag's."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from smarthost.mail.address import to_a_label
from smarthost.policy.glob import compile_globs
from smarthost.policy.limits import Limit, OnLimit
from smarthost.policy.rate import Rate, parse_rate

KEYS = ("destination", "sender_domain", "user", "tag", "route")  # of a limit's match, in the order of telling
_REMEMBERED = 4096


class Facts(NamedTuple):
    """What limits ask of a recipient and its message; "" where there is none, as in a report or with no login."""

    destination: str
    sender_domain: str
    user: str
    tag: str
    route: str


def sender_domain(reverse_path: str) -> str:
    """Give the A-label form of a reverse-path's domain, as it is written where it has none; "" for the null one."""
    domain = reverse_path.rpartition("@")[2]
    return (to_a_label(domain) or domain) if domain else ""


class Restraint(msgspec.Struct, frozen=True):
    """The limits of one thing: each user, say, that a limit's glob matches has one of its own.

    `name` is that of its cells: "user=app1"; `label` tells people which limit it is and what it says.
    """

    name: str
    label: str
    message_rate: tuple[Rate, ...] = ()
    recipient_rate: tuple[Rate, ...] = ()
    max_connections: int | None = None


class Restraints:
    """All limits that are about a part of the mail and do the same when they are reached.

    Among limits whose match has the same keys the most specific wins, key by key, of two the one written first.
    Limits whose match has other keys hold beside them.
    """

    def __init__(self, limits: Iterable[Limit] = (), on_limit: OnLimit = OnLimit.DEFER) -> None:
        """Compile; raises ValueError when a rate is none."""
        kinds: dict[tuple[str, ...], list[_Row]] = {}
        for limit in sorted(limits, key=lambda each: each.match.specificity, reverse=True):
            if not limit.match.is_of_site and limit.on_limit is on_limit:
                row = _Row(limit)
                kinds.setdefault(row.keys, []).append(row)
        self._kinds = tuple(sorted(kinds.items()))
        self._known: dict[Facts, tuple[Restraint, ...]] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._kinds)

    def of(self, facts: Facts) -> tuple[Restraint, ...]:
        """Give what holds for mail with these facts, remembered for the next time."""
        known = self._known.get(facts)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = (_join(keys, facts, [row for row in rows if row.is_about(facts)]) for keys, rows in self._kinds)
            known = self._known[facts] = tuple(each for each in found if each is not None)
        return known


class _Row:
    """A limit whose globs are compiled. Nothing ("") is matched by no glob: a report of ours has no sender."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        globs = {key: getattr(limit.match, key) for key in KEYS}
        self.keys = tuple(key for key in KEYS if globs[key])
        self._patterns: list[tuple[int, re.Pattern[str]]] = [
            (KEYS.index(key), compile_globs((globs[key],))) for key in self.keys
        ]

    def is_about(self, facts: Facts) -> bool:
        return all(facts[place] and pattern.fullmatch(facts[place]) for place, pattern in self._patterns)


def _join(keys: tuple[str, ...], facts: Facts, rows: Sequence[_Row]) -> Restraint | None:
    """Give what limits of the same keys say together of mail that they match; None if none does."""
    if not rows:
        return None
    limits = [row.limit for row in rows]
    said = {
        key: next((limit for limit in limits if getattr(limit, key) is not None), None)
        for key in ("message_rate", "recipient_rate", "max_connections")
    }
    speaking = sorted({limit.number for limit in said.values() if limit is not None})
    of = " ".join(f"{key} {getattr(facts, key)}" for key in keys)
    messages, recipients, connections = said.values()
    texts = [f"message_rate {', '.join(messages.message_rate or ())}"] if messages else []
    texts += [f"recipient_rate {', '.join(recipients.recipient_rate or ())}"] if recipients else []
    texts += [f"max_connections {connections.max_connections}"] if connections else []
    return Restraint(
        name=" ".join(f"{key}={getattr(facts, key)}" for key in keys),
        label=f"[[limit]] {' and '.join(map(str, speaking))} ({of}): {'; '.join(texts)}",
        message_rate=tuple(map(parse_rate, (messages and messages.message_rate) or ())),
        recipient_rate=tuple(map(parse_rate, (recipients and recipients.recipient_rate) or ())),
        max_connections=connections.max_connections if connections else None,
    )


def suffix_of(restraints: Iterable[Restraint]) -> str:
    """Give what the name of a queue needs more, so that what is restrained alike waits in a queue of its own."""
    found = "".join(f" {each.name}" for each in restraints)
    return f"/{found}" if found else ""
