"""Match: whether an entry is one that a filter means."""

import fnmatch
import re

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Recipient
from smarthost.spool.store import Filter


class Matcher:
    """A filter, compiled once."""

    def __init__(self, wanted: Filter, now: float) -> None:
        """Compile a filter; ages count from `now` (Unix seconds)."""
        self._wanted = wanted
        self._ids = frozenset(wanted.ids)
        self._arrived_before = now - wanted.older
        self._sender = _glob(wanted.sender)
        self._recipient = _glob(wanted.recipient)
        self._destination = _glob(wanted.destination)
        self._route = _glob(wanted.route)
        self._user = _glob(wanted.user)
        self._tag = _glob(wanted.tag)

    def matches(self, entry: Entry) -> bool:
        """Whether an entry passes every test of the filter. One recipient has to pass both tests of recipients."""
        message = entry.message
        wanted = self._wanted
        return (
            (not self._ids or message.id in self._ids)
            and (not wanted.why or entry.why == wanted.why)
            and (not wanted.older or message.arrival.at <= self._arrived_before)
            and _passes(self._sender, message.envelope.reverse_path)
            and _passes(self._route, entry.queue.partition("/")[0])
            and _passes(self._user, message.arrival.identity)
            and _passes(self._tag, message.tag)
            and any(map(self._means, entry.recipients))
        )

    def _means(self, recipient: Recipient) -> bool:
        return _passes(self._recipient, recipient.address) and _passes(self._destination, recipient.domain)


def _glob(pattern: str) -> re.Pattern[str] | None:
    return re.compile(fnmatch.translate(pattern), re.IGNORECASE) if pattern else None


def _passes(pattern: re.Pattern[str] | None, text: str) -> bool:
    return pattern is None or pattern.match(text) is not None
