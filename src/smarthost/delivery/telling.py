"""Tells of attempts: one event a recipient, for the mail log, the metrics and the history."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from smarthost.delivery.connect import Unreached
from smarthost.mail.entry import Entry
from smarthost.mail.event import Event, Kind, Seconds
from smarthost.mail.message import REPORTS
from smarthost.mail.outcome import Action, Outcome
from smarthost.mail.route import Site
from smarthost.queue.suppression import SuppressionList
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed

_RELAYED = Action.RELAYED  # members are looked up each time they are named; this one for every message
_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")  # of replies, by the first digit of their code
_KIND = {Action.RELAYED: Kind.RELAYED, Action.DELAYED: Kind.DELAYED, Action.FAILED: Kind.FAILED}


class Carrier(Protocol):
    """What an attempt's event tells of the session that carried it."""

    site: str
    tls: str
    offers_dsn: bool
    connecting: float


class Passage(msgspec.Struct, frozen=True, gc=False):
    """How an attempt travelled: the session that carried it, and the Unix times of its start and of its taking.

    `may_go_on` says that the site has another host that may be asked for what this one has put off.
    """

    transfer: Carrier
    started: float
    taken: float
    may_go_on: bool = False


class Teller:
    """Makes the events of attempts, publishes them, and counts what they tell.

    `suppression` learns from them, where the assembly has set it.
    """

    def __init__(self, feed: Feed, counters: Counters, clock: Callable[[], float]) -> None:
        """Join the parts."""
        self._feed, self._counters, self._clock = feed, counters, clock
        self.suppression: SuppressionList | None = None

    def paced(self, route: str) -> None:
        """Count that mail of a route waits for a rate."""
        self._counters.rate_limited[route] += 1

    def tell(
        self,
        entry: Entry,
        outcomes: Sequence[Outcome],
        passage: Passage | None,
        now: float,
        failed_as: Kind = Kind.FAILED,
    ) -> tuple[Event, ...]:
        """Publish one event a recipient; the same go to the history."""
        message, counters = entry.message, self._counters
        envelope, arrival = message.envelope, message.arrival
        route = entry.queue.partition("/")[0]
        seconds, site, tls = None, "", ""
        if passage is not None:
            transfer = passage.transfer
            site, tls = transfer.site, transfer.tls
            seconds = Seconds(passage.taken - arrival.at, transfer.connecting, now - passage.started)
        events = []
        for outcome in outcomes:
            action, reply = outcome.action, outcome.reply
            counters.attempts[route, outcome.stage, _CLASSES[reply.code // 100 if reply is not None else 0]] += 1
            if action is _RELAYED:
                counters.relay_seconds[envelope.priority].observe(now - message.released_at)
            elif outcome.ambiguous:
                counters.ambiguous += 1
            event = Event(
                now,
                failed_as if action is Action.FAILED else _KIND[action],
                message.id,
                envelope.envid,
                envelope.reverse_path,
                outcome.recipient.address,
                route,
                site,
                outcome.host,
                outcome.address,
                reply.code if reply is not None else 0,
                str(outcome.status),
                reply.text if reply is not None else outcome.reason,
                outcome.stage,
                entry.attempts + 1,
                tls,
                message.size,
                message.user,
                listener=REPORTS if message.report else "",
                seconds=seconds,
            )
            self._feed.publish(event)
            events.append(event)
        if self.suppression is not None and self.suppression.active:
            self.suppression.observe(message, outcomes)
        return tuple(events)

    def tell_unreached(self, site: Site, unreached: Unreached) -> None:
        """Tell of a session that could not be opened while others carry on: no message has spent an attempt on it."""
        reply = unreached.fault.reply
        route, stage = site.route.name, unreached.fault.stage
        klass = f"{reply.code // 100}xx" if reply is not None else "none"
        self._counters.attempts[route, stage, klass] += 1
        self._feed.publish(
            Event(
                time=self._clock(),
                event=Kind.ATTEMPTED,
                route=route,
                site=site.name,
                host=unreached.host,
                address=unreached.address,
                code=reply.code if reply is not None else 0,
                status=str(unreached.verdict.status),
                reply=unreached.reason,
                stage=stage,
            )
        )

    def tell_event(self, entry: Entry, kind: Kind, reason: str) -> Event:
        """Publish what became of an entry as a whole; the same goes to the history."""
        message, recipients = entry.message, entry.recipients
        event = Event(
            time=self._clock(),
            event=kind,
            message=message.id,
            envid=message.envelope.envid,
            sender=message.envelope.reverse_path,
            recipient=recipients[0].address if len(recipients) == 1 else "",
            user=message.user,
            reply=reason,
        )
        self._feed.publish(event)
        return event
