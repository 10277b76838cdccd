"""The only way into the queue: begins drafts, routes what they hold into entries, and signs our own reports."""

from asyncio import AbstractEventLoop
from collections.abc import Callable

from smarthost.crypto.dkim import BodyHash, sign
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Envelope
from smarthost.mail.message import REPORTS, Arrival, Message, MessageIds
from smarthost.mail.reply import Reply, make_reply
from smarthost.mail.route import Deliver, Route
from smarthost.policy.backoff import at_pace, deadline, lifetime
from smarthost.queue.draft import Draft
from smarthost.queue.recall import Recall
from smarthost.queue.rules import Rules
from smarthost.queue.signers import Signers
from smarthost.queue.signing import Workers, signature_names
from smarthost.queue.waiting import NEVER
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed
from smarthost.spool.store import Accepted, Content, Spool
from smarthost.wire.header import Field, parse_fields, split_header

REJECTED = make_reply(550, "5.7.1", "Mail of this kind is not relayed here")
_AT_ONCE = (Deliver.RELAYHOST, Deliver.MX)


class Intake:
    """The way into the queue: `begin` a draft, `write` content, `commit`; and `make_report` for our own reports."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        spool: Spool,
        rules: Rules,
        ids: MessageIds,
        feed: Feed,
        counters: Counters,
    ) -> None:
        """Join the parts; the caller sets `on_accepted` before the first draft, and `recall` where keys are heeded."""
        self.loop, self.spool, self.rules, self.ids, self.feed, self.counters = loop, spool, rules, ids, feed, counters
        self.threads = Workers(2, "signer")
        self.signers = Signers(loop, self.threads)
        self.files = Workers(1, "content")
        self.recall: Recall | None = None
        self.on_accepted: Callable[[Accepted], None] = lambda accepted: None

    def begin(self, arrival: Arrival, envelope: Envelope) -> Draft:
        """Start a draft for a transaction whose envelope is complete."""
        return Draft(self, arrival, envelope)

    def close(self) -> None:
        """Finish what the worker threads have begun."""
        self.files.close()
        self.signers.close()
        self.threads.close()

    def accepted(self, accepted: Accepted) -> None:
        """Tell of a message that is on disk, and let the queue have it."""
        self.feed.publish(accepted.events[0])
        self.on_accepted(accepted)

    def entries_for(self, message: Message, keeps_return_path: bool = False) -> tuple[Entry, ...] | Reply:
        """Route each recipient and group those that travel together; a Reply when a route rejects the message.

        Recipients of a route that discards get no entry. `keeps_return_path` where the sender has named a return path.
        """
        entries = self._routed(message)
        paths = self.rules.return_paths
        if paths is None or isinstance(entries, Reply):
            return entries
        return paths.apart(message, entries, keeps_return_path)

    def _routed(self, message: Message) -> tuple[Entry, ...] | Reply:
        envelope, at, rules = message.envelope, message.arrival.at, self.rules
        recipients, hold_until = envelope.recipients, envelope.hold_until
        start = hold_until if hold_until > at else at
        retry = rules.retry if envelope.pace is None else at_pace(rules.retry, envelope.pace)
        expires = start + lifetime(retry, message.report)
        first_deadline = deadline(retry, start, expires, 0)
        # Nearly every message: one recipient, at once. Nothing is to be grouped.
        if len(recipients) == 1 and hold_until <= at:
            route = rules.route_for(message, recipients[0])
            if route.deliver in _AT_ONCE:
                queue = rules.queue_for(message, route, recipients[0].domain)
                return (Entry(message, 1, queue, recipients, at, expires, first_deadline),)
        groups: dict[str, tuple[Route, list[int]]] = {}
        for index, recipient in enumerate(recipients):
            route = rules.route_for(message, recipient)
            if route.deliver is Deliver.REJECT:
                return REJECTED
            if route.deliver is Deliver.DISCARD:
                continue
            groups.setdefault(rules.queue_for(message, route, recipient.domain), (route, []))[1].append(index)
        entries = []
        for number, (queue, (route, indices)) in enumerate(groups.items(), 1):
            some = recipients
            if len(indices) < len(recipients):
                some = tuple([recipients[index] for index in indices])
            entry = Entry(message, number, queue, some, at, expires, first_deadline)
            if route.deliver is Deliver.HOLD:
                entry.why, entry.due, entry.deadline = Why.HELD, NEVER, NEVER
            elif hold_until > at:
                entry.why, entry.due = Why.SCHEDULED, hold_until
            entries.append(entry)
        return tuple(entries)

    def make_report(self, number: int, content: bytes, envelope: Envelope, now: float, owner: str) -> Accepted:
        """Sign a report of ours on a message of a user's and give it ready for the spool; may run in any thread."""
        end = split_header(content)
        fields = parse_fields(content[:end])
        keys = self.rules.keyring.for_domain(_domain(fields))
        signature = b""
        if keys:
            body = BodyHash()
            body.update(content[end:])
            signature = sign(keys, fields, body.digest(), int(now))
        whole = signature + content
        arrival = Arrival(at=now, door=REPORTS, protocol="")
        message = Message(
            number,
            arrival,
            envelope,
            len(whole),
            eight_bit=not content[end:].isascii(),
            utf8_header=not content[:end].isascii(),
            report=True,
            signatures=signature_names(keys),
            owner=owner,
        )
        entries = self.entries_for(message)
        return Accepted(message, Content(whole, "", len(whole)), () if isinstance(entries, Reply) else entries)


def _domain(fields: list[Field]) -> str:
    """Give the From domain of a report of ours."""
    for name, raw in fields:
        if name == b"from":
            return raw.decode("utf-8", "replace").strip().rstrip(">").rpartition("@")[2].lower()
    return ""
