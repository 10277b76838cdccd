"""Gives messages return paths by which their bounces come back to the relay, and reads them back."""

from collections.abc import Sequence

import msgspec

from smarthost.mail.entry import Entry
from smarthost.mail.message import Message
from smarthost.policy.bounce_terms import BounceTerms
from smarthost.wire.verp import ReturnPath, make_return_path, read_return_path, tag_of

HTTP = "http"  # the door of messages that came by HTTP


class ReturnPaths:
    """The return paths of one configuration, made and read with one key."""

    def __init__(self, terms: BounceTerms, key: bytes) -> None:
        """Follow terms that name a domain."""
        self.terms, self._key = terms, key

    def __repr__(self) -> str:
        """Show no key."""
        return f"ReturnPaths({self.terms!r})"

    def apart(self, message: Message, entries: tuple[Entry, ...], keeps_return_path: bool) -> tuple[Entry, ...]:
        """Give each recipient whose bounces come back to us an entry of its own, with its return path.

        A null reverse-path stays null, and so does that of a report: else a bounce of a bounce would have a way back.
        `keeps_return_path` says that the sender has named one, which only `replaces_return_path` overrules.
        """
        envelope = message.envelope
        if message.report or not envelope.reverse_path:
            return entries
        apart: list[Entry] = []
        for entry in entries:
            if not self._are_for(message, entry.queue.partition("/")[0], keeps_return_path):
                apart.append(msgspec.structs.replace(entry, number=len(apart) + 1))
                continue
            for recipient in entry.recipients:
                path = make_return_path(self.terms.mailbox, message.id, recipient.address, self._key)
                own = (msgspec.structs.replace(recipient, return_path=path),)
                apart.append(msgspec.structs.replace(entry, number=len(apart) + 1, recipients=own))
        return tuple(apart)

    def _are_for(self, message: Message, route: str, keeps_return_path: bool) -> bool:
        terms, arrival = self.terms, message.arrival
        if arrival.door == HTTP:
            return terms.http and (terms.replaces_return_path or not keeps_return_path)
        return terms.mean(message.envelope.reverse_path, arrival.identity, route)

    def read(self, return_path: str) -> ReturnPath | None:
        """Say whose a return path is; None for one that we did not make."""
        return read_return_path(return_path, self.terms.mailbox, self._key)

    def is_over(self, path: ReturnPath, now: float) -> bool:
        """Whether a return path is too old to be heeded."""
        return now - (path.message >> 4) / 1_000_000 > self.terms.lifetime

    def recipient_of(self, path: ReturnPath, addresses: Sequence[str]) -> str | None:
        """Give the one of some addresses whose return path this is."""
        return next((each for each in addresses if tag_of(path.message, each, self._key) == path.tag), None)
