"""Says what an entry waits for at this moment, since when and until when: its own reason, or what holds its site."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from smarthost.delivery.connect import Connector
from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.sharing import Sharing
from smarthost.mail.entry import PARKED, Entry, Why
from smarthost.mail.event import Event
from smarthost.mail.route import Site
from smarthost.policy.limits import SiteLimits
from smarthost.policy.waiting import SENTENCES
from smarthost.queue.gates import Gates
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import NEVER, Key, Waiting

_LIMITED = (Why.RATE_LIMITED, Why.QUOTA_USED)
IN_DELIVERY = "It is in delivery just now."


class Reason(NamedTuple):
    """Why an entry waits, as a word and as a sentence; since when and until when, None where nobody can say.

    `cause` is what holds its whole site, in short: a rule and the reply that led to it, or how the site failed.
    """

    why: Why
    text: str
    since: float | None
    until: float | None
    cause: str = ""


class Reasons:
    """Looks at what is in memory; nothing is read from disk, so that it is cheap enough for a whole queue.

    `limits_of` gives a site's limits, `source_of` names the limit of the configuration that sets one of them,
    `awaits_dns` says whether a queue's look-up waits for its turn, and `looking_up` what is looked up for an entry,
    as a sentence; the assembly sets them.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        connector: Connector,
        dispatcher_of: Callable[[str, Key], Dispatcher | None],
        gates: Gates,
        sharing: Sharing,
        clock: Callable[[], float],
    ) -> None:
        """Join the parts; `dispatcher_of` finds the dispatcher of an entry by the name of its queue and its key."""
        self._scheduler, self._connector = scheduler, connector
        self._dispatcher_of, self._gates, self._sharing, self._clock = dispatcher_of, gates, sharing, clock
        self.limits_of: Callable[[Site], SiteLimits] = lambda site: SiteLimits()
        self.source_of: Callable[[Site, str], str] = lambda site, key: "the configuration"
        self.looking_up: Callable[[Entry], str] = lambda entry: ""
        self.awaits_dns: Callable[[str], bool] = lambda queue: False

    def why(self, entry: Entry) -> Why:
        """Give the word alone."""
        return self.of(entry).why

    def of(self, entry: Entry) -> Reason:
        """Find what holds an entry now. `since` is None when the entry's own history says it, not the site's."""
        if entry.why in PARKED:
            return Reason(entry.why, _with_last(SENTENCES[entry.why], entry), None, None)
        return self._of(entry, self._dispatcher_of(entry.queue, entry.key))

    def limited_until(self, entry: Entry) -> float | None:
        """Give the Unix time at which a limit lets an entry go that it holds now; None where none holds it."""
        reason = self.of(entry)
        return reason.until if reason.why in _LIMITED else None

    def of_new(self, entry: Entry, site: Site, dispatcher: Dispatcher | None) -> Reason:
        """Find what would hold an entry for a site that came in now; `dispatcher` is the site's, if it has one.

        Its queue has to be the one that it would really be in: what restrains it is found, and remembered, by that.
        """
        reason = self._of(entry, dispatcher)
        if reason.why is not entry.why:
            return reason
        now = self._clock()
        # The queues of a site are held together, and this one would be as soon as it were one of them.
        for queue in filter(None, map(self._scheduler.queues.get, dispatcher.queues if dispatcher is not None else ())):
            if queue.blocked_until > now and queue.blocked_why is not Why.RATE_LIMITED:
                return self._blocked(entry, queue, dispatcher)
        if dispatcher is not None and dispatcher.idle_sessions:
            return reason
        may_open = dispatcher is None or dispatcher.ready.window.may_open(now)
        if not may_open or not self._sharing.has_room(site.place, self._most_of(site, dispatcher)):
            return Reason(Why.SITE_BUSY, self._busy(site, dispatcher), now, None)
        if not (dispatcher is not None and dispatcher.transfers) and not self._sharing.total.has_room:
            return Reason(Why.RELAY_BUSY, SENTENCES[Why.RELAY_BUSY], now, None)
        return reason

    def _of(self, entry: Entry, dispatcher: Dispatcher | None) -> Reason:
        now = self._clock()
        if entry.why is Why.SCHEDULED and entry.due > now:
            return Reason(entry.why, SENTENCES[entry.why], entry.message.arrival.at, entry.due)
        queue = self._scheduler.queues.get(entry.queue)
        if queue is not None and queue.blocked_until > now and queue.blocked_why is not Why.RATE_LIMITED:
            return self._blocked(entry, queue, dispatcher)
        if entry.due <= now and (held := self._gates.reason_of(entry)) is not None:
            gate, until = held
            text = f"{SENTENCES[Why.RATE_LIMITED]} Reason: {gate.restraint.label}."
            since = max(entry.message.arrival.at, entry.due)
            return Reason(Why.RATE_LIMITED, text, since, until, gate.restraint.label)
        if entry.due == NEVER:
            return Reason(entry.why, _with_last(SENTENCES[entry.why], entry), None, None)
        if entry.due <= now and self.awaits_dns(entry.queue):
            return Reason(Why.DNS_BUSY, SENTENCES[Why.DNS_BUSY], max(entry.message.arrival.at, entry.due), None)
        if dispatcher is None and entry.due <= now and (text := self.looking_up(entry)):
            return Reason(entry.why, _with_last(f"{SENTENCES[entry.why]} {text}", entry), None, None)
        if entry.due > now or dispatcher is None:
            return Reason(entry.why, _with_last(SENTENCES[entry.why], entry), None, entry.due)
        since = max(entry.message.arrival.at, entry.due)
        if any(transfer.carries(entry.key) for transfer in dispatcher.transfers):
            return Reason(entry.why, _with_last(IN_DELIVERY, entry), since, None)
        wait = dispatcher.ready.wait(now)
        if wait > 0.0 and (quota := dispatcher.ready.quota) is not None and quota.wait(now) >= wait:
            return Reason(Why.QUOTA_USED, _with_rule(SENTENCES[Why.QUOTA_USED], dispatcher), since, now + wait)
        if wait > 0.0:
            return Reason(Why.RATE_LIMITED, self._which_rate(dispatcher, now), since, now + wait)
        if dispatcher.ready.todo and dispatcher.opener.waits_for_hosts:
            return Reason(Why.SITE_BUSY, self._busy(dispatcher.ready.site, dispatcher), since, None)
        if dispatcher.ready.todo and dispatcher.opener.waits_for_place:
            return Reason(Why.RELAY_BUSY, _with_rule(SENTENCES[Why.RELAY_BUSY], dispatcher), since, None)
        wait = dispatcher.ready.opening_cells.wait(now)
        if dispatcher.ready.todo and wait > 0.0 and not dispatcher.transfers and not dispatcher.opening:
            rates = ", ".join(map(str, dispatcher.ready.limits.max_connection_rate))
            source = self.source_of(dispatcher.ready.site, "max_connection_rate")
            text = f"{SENTENCES[Why.RATE_LIMITED]} Reason: max_connection_rate {rates} of {source}."
            return Reason(Why.RATE_LIMITED, text, since, now + wait)
        if dispatcher.ready.todo and entry.why is not Why.NEXT_HOST:
            return Reason(Why.SITE_BUSY, self._busy(dispatcher.ready.site, dispatcher), since, None)
        if not dispatcher.ready.todo and self._scheduler.is_loaded(entry.key, entry.queue):
            return Reason(entry.why, _with_last(IN_DELIVERY, entry), since, None)
        why = Why.NEW if entry.why is Why.SCHEDULED else entry.why
        return Reason(why, _with_last(SENTENCES[why], entry), None, entry.due)

    def _most_of(self, site: Site, dispatcher: Dispatcher | None) -> int:
        limits = self.limits_of(site) if dispatcher is None else dispatcher.ready.configured
        return limits.max_connections

    def _busy(self, site: Site, dispatcher: Dispatcher | None) -> str:
        """Say what bounds the connections: a limit that is used up, by others perhaps, or what the site copes with."""
        sentence, most = SENTENCES[Why.SITE_BUSY], self._most_of(site, dispatcher)
        mine, allowed = (0, most) if dispatcher is None else dispatcher.ready.window.bounds
        if not self._sharing.has_room(site.place, most):
            others = "" if mine >= most else f", which all sites on the hosts of {site.place} have together"
            sentence += f" Reason: max_connections {most} of {self.source_of(site, 'max_connections')}{others}."
        elif mine >= allowed:
            sentence += f" Reason: the site has shown so far that it copes with {allowed}."
        return _with_rule(sentence, dispatcher) if dispatcher is not None else sentence

    def _which_rate(self, dispatcher: Dispatcher, now: float) -> str:
        """Name the rate that holds mail back for the longest time, and the limit that says so."""
        ready, sentence = dispatcher.ready, SENTENCES[Why.RATE_LIMITED]
        slowest = ready.slowest_rate(now)
        if slowest is not None:
            key, rate = slowest
            # What a rule on replies has added is no limit of the configuration.
            is_configured = rate in ready.configured.message_rate or rate in ready.configured.recipient_rate
            source = f" of {self.source_of(ready.site, key)}" if is_configured else ""
            sentence = f"{sentence} Reason: {key} {rate}{source}."
        return _with_rule(sentence, dispatcher)

    def _blocked(self, entry: Entry, queue: Waiting, dispatcher: Dispatcher | None) -> Reason:
        """Nothing of the queue is tried: the login was refused, the site cannot be reached, or a rule suspends it."""
        why, reason = queue.blocked_why, queue.blocked_by
        if why is Why.SITE_THROTTLED and dispatcher is not None:
            paused = self._connector.login_pause(dispatcher.ready.site)
            if paused is not None:
                why, reason = Why.LOGIN_PAUSED, paused[1].reason
        text = f"{SENTENCES[why]} Reason: {reason}."
        since = max(entry.message.arrival.at, queue.blocked_since)
        until = max(queue.blocked_until, entry.due)
        return Reason(why, text, since, None if until == NEVER else until, reason)


def since_when(entry: Entry, events: Sequence[Event]) -> float:
    """Give the time of the last thing that happened to an entry, from its message's history; else its arrival."""
    mine = {recipient.address for recipient in entry.recipients}
    for event in reversed(events):
        if not event.recipient or event.recipient in mine:
            return event.time
    return entry.message.arrival.at


def _with_rule(sentence: str, dispatcher: Dispatcher) -> str:
    slowed, upstream = dispatcher.ready.slowed_by, dispatcher.ready.site.route.upstream
    if upstream:
        sentence = f"{sentence} It waits at upstream {upstream}."
    return f"{sentence} The site is slowed down by {slowed}." if slowed else sentence


def _with_last(sentence: str, entry: Entry) -> str:
    return f"{sentence} Last: {entry.last}." if entry.last else sentence
