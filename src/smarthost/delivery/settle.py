"""Settles attempts: what is done, what is tried again and when, who is told; each in one transaction."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from random import Random

import msgspec

from smarthost.delivery.dead_letters import DeadLetters
from smarthost.delivery.detours import Detours
from smarthost.delivery.reporting import Reporter
from smarthost.delivery.telling import Passage, Teller
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import format_id
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus
from smarthost.mail.route import Deliver, Route
from smarthost.policy.backoff import Retry, at_pace, deadline, next_attempt
from smarthost.policy.hint import find_hint, hinted_attempt
from smarthost.policy.notification import DueReport, due_reports
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import NEVER, Key
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed
from smarthost.spool.store import Change, Done, Fault, Settlement, Spool

log = logging.getLogger(__name__)

_EXPIRED = EnhancedStatus(5, 4, 7)
_RELAYED = Action.RELAYED  # members are looked up each time they are named; this one for every message


class Parts(msgspec.Struct, frozen=True):
    """What settling works with."""

    spool: Spool
    scheduler: Scheduler
    reporter: Reporter
    feed: Feed
    counters: Counters
    clock: Callable[[], float]
    rng: Random
    detours: Detours


class Settler:
    """The only place, beside an operator's hand, where an entry changes after it was accepted.

    `retry` is replaced at a reload; `pending` counts settles that are not on disk yet; `detours` say which queues'
    mail shall leave them at once; `teller` tells of what became of attempts. `dead_letters` give what is kept of a
    message that came by HTTP when recipients fail.
    """

    def __init__(self, parts: Parts, retry: Retry) -> None:
        """Join the parts."""
        self._spool, self._scheduler, self._reporter = parts.spool, parts.scheduler, parts.reporter
        self._counters, self._clock, self._rng = parts.counters, parts.clock, parts.rng
        self.teller = Teller(parts.feed, parts.counters, parts.clock)
        self.retry, self.detours = retry, parts.detours
        self.dead_letters = DeadLetters(0.0)
        self.pending = 0
        self._last_number = 0
        # By entry, while a part of its attempt is on its way to disk: what comes behind that part.
        self._parts: dict[Key, deque[Callable[[], None]]] = {}

    @property
    def is_stuck(self) -> bool:
        """Whether settles wait for space on disk: delivery pauses until they are written."""
        return self._spool.settles_stuck

    def attempted(
        self,
        entry: Entry,
        outcomes: Sequence[Outcome],
        rest: tuple[Recipient, ...] = (),
        *,
        passage: Passage | None = None,
        why: Why | None = None,
        failed_as: Kind = Kind.FAILED,
    ) -> None:
        """Settle an attempt. `rest` are recipients that were not reached; they wait with the delayed ones."""
        now = self._clock()
        queue = entry.queue
        events = self.teller.tell(entry, outcomes, passage, now, failed_as)
        reports: Sequence[DueReport] = ()
        dead: tuple[Entry, ...] = ()
        if not rest and _are_plainly_relayed(outcomes):
            entry.recipients = ()
        else:
            dead = self.dead_letters.of(entry, outcomes, now, self._mint)
            if rest or passage is None or not passage.may_go_on or not self._goes_on(entry, outcomes, now):
                self._keep(entry, outcomes, rest, why, now)
            reports = self._reports_due(entry, outcomes, passage)
        self._commit(entry, queue, events, reports, dead)

    def _goes_on(self, entry: Entry, outcomes: Sequence[Outcome], now: float) -> bool:
        """Have an attempt go on at another host for the recipients that one has put off.

        Once an attempt, as Postfix does it by default (smtp_mx_session_limit = 2), for what refuses the whole
        transaction and for single recipients, but not where a time was named at which to come again, nor where the
        status is about mailboxes only (4.2.x: full; greylisting says so, too): they are the same behind another host.
        """
        delayed = [outcome for outcome in outcomes if outcome.action is Action.DELAYED]
        if entry.why is Why.NEXT_HOST or not delayed or _hint_of(delayed) is not None:
            return False
        if not all(map(_is_put_off, delayed)) or all(map(_is_about_mailbox, delayed)):
            return False
        last = delayed[-1]
        keep = {outcome.recipient for outcome in delayed}
        entry.recipients = tuple(recipient for recipient in entry.recipients if recipient in keep)
        entry.due, entry.why, entry.hosts_tried = now, Why.NEXT_HOST, (last.host,)
        entry.last = f"{last.reason} ({last.host})"
        return True

    def concluded(
        self,
        entry: Entry,
        earlier: Sequence[Outcome],
        outcomes: Sequence[Outcome],
        rest: tuple[Recipient, ...] = (),
        passage: Passage | None = None,
    ) -> None:
        """Settle an attempt with its last transaction. `earlier` are delays of those before, which have been told."""
        now, queue = self._clock(), entry.queue
        events = self.teller.tell(entry, outcomes, passage, now)
        dead = self.dead_letters.of(entry, outcomes, now, self._mint)
        self._keep(entry, [*earlier, *outcomes], rest, None, now)
        self._commit(entry, queue, events, self._reports_due(entry, outcomes, passage), dead)

    def _keep(
        self, entry: Entry, outcomes: Sequence[Outcome], rest: tuple[Recipient, ...], why: Why | None, now: float
    ) -> None:
        """Leave in an entry the recipients that are tried again, or held, and say when and why."""
        delayed = [outcome for outcome in outcomes if outcome.action is Action.DELAYED]
        failed = any(outcome.action is Action.FAILED for outcome in outcomes)
        if delayed or rest:
            keep = {outcome.recipient for outcome in delayed}
            entry.recipients = tuple(r for r in entry.recipients if r in keep or r in rest)
            self._delay(entry, delayed, why, now)
        elif failed and entry.message.report:
            self._hold_report(entry, outcomes)
        else:
            entry.recipients = ()

    def partly(self, entry: Entry, outcomes: Sequence[Outcome], passage: Passage) -> None:
        """Settle one of several transactions of an entry; its delayed recipients stay with the entry.

        The entry stays in memory and goes on; on disk it keeps its due time, so that a crash tries the rest again.
        """
        now = self._clock()
        events = self.teller.tell(entry, outcomes, passage, now)
        dead = self.dead_letters.of(entry, outcomes, now, self._mint)
        finished = {outcome.recipient for outcome in outcomes if outcome.action is not Action.DELAYED}
        entry.recipients = tuple(r for r in entry.recipients if r not in finished)
        reports = self._reports_due(entry, outcomes, passage)

        row = copy(entry)

        def write() -> None:
            self._submit(Settlement(row, events, dead=dead), reports, done)

        def done(fault: Fault | None) -> None:
            self.pending -= 1
            if fault is None:
                self._scheduler.partly_written(entry)
                self._go_on(entry.key)

        self.pending += 1
        self._scheduler.partly_settled(entry)
        if entry.key in self._parts:
            self._parts[entry.key].append(write)
        else:
            self._parts[entry.key] = deque()
            write()

    def expire(self, entry: Entry) -> None:
        """Give an entry up whose lifetime has passed."""
        reason = f"the message could not be relayed within its lifetime; last: {entry.last or 'no attempt was made'}"
        outcomes = [
            Outcome(recipient, Action.FAILED, Scope.RECIPIENT, Stage.QUEUE, _EXPIRED, reason)
            for recipient in entry.recipients
        ]
        self.attempted(entry, outcomes, (), failed_as=Kind.EXPIRED)

    def fail(self, entry: Entry, reason: str) -> None:
        """Give an entry up because a person said so."""
        status = EnhancedStatus(5, 7, 0)
        outcomes = [
            Outcome(recipient, Action.FAILED, Scope.RECIPIENT, Stage.QUEUE, status, reason)
            for recipient in entry.recipients
        ]
        self.attempted(entry, outcomes, ())

    def warn(self, entry: Entry) -> None:
        """Tell the sender that an entry is still waiting, and set its next deadline."""
        queue = entry.queue
        entry.warned += 1
        entry.deadline = deadline(self.retry, entry.message.released_at, entry.expires, entry.warned)
        reason = entry.last or "the message waits for its next attempt"
        outcomes = [
            Outcome(r, Action.DELAYED, Scope.RECIPIENT, Stage.QUEUE, EnhancedStatus(4, 4, 7), reason)
            for r in entry.recipients
        ]
        reports = due_reports(entry.message, outcomes, warning=True)
        self._commit(entry, queue, (), reports)

    def put_off(self, entry: Entry, why: Why, until: float, reason: str) -> None:
        """Have an entry wait until a Unix time, with no attempt spent; it still expires, and its sender is warned."""
        queue = entry.queue
        entry.why, entry.due, entry.last = why, until, reason
        self._commit(entry, queue, (), ())

    def park(self, entry: Entry, why: Why, reason: str) -> None:
        """Take an entry out of delivery until a person looks at it."""
        queue = entry.queue
        entry.why, entry.due, entry.deadline, entry.last = why, NEVER, NEVER, reason
        log.error("message %s is parked: %s", format_id(entry.message.id), reason)
        self._commit(entry, queue, (self.teller.tell_event(entry, Kind.HELD, reason),), ())

    def reroute(self, entry: Entry, routes: Sequence[tuple[str, Route]]) -> None:
        """Move an entry to the queue that each recipient has now, with its route; the parts keep attempts and times."""
        groups: dict[str, tuple[Route, list[Recipient]]] = {}
        for recipient, (queue, route) in zip(entry.recipients, routes, strict=True):
            groups.setdefault(queue, (route, []))[1].append(recipient)
        old_queue, parts = entry.queue, []
        for index, (queue, (route, recipients)) in enumerate(groups.items()):
            number = entry.number if index == 0 else self._mint()
            part = msgspec.structs.replace(entry, number=number, queue=queue, recipients=tuple(recipients))
            if route.deliver in (Deliver.HOLD, Deliver.DISCARD, Deliver.REJECT):
                part.why, part.due, part.deadline = Why.HELD, NEVER, NEVER
                part.last = f"route {route.name} says {route.deliver}"
            parts.append(part)
        change = Change(updated=(parts[0],), added=tuple(parts[1:]))
        self._spool.change(change, lambda fault: self._rerouted(entry, old_queue, parts))

    def _mint(self) -> int:
        """Give a number that no entry has had: a message may be split again while parts of it are still there."""
        self._last_number = max(self._last_number + 1, int(self._clock() * 1_000_000))
        return self._last_number

    def _rerouted(self, entry: Entry, old_queue: str, parts: list[Entry]) -> None:
        self._scheduler.forget(entry.key, old_queue)
        for part in parts:
            if part.due < NEVER:
                self._scheduler.note_due(part)

    def _delay(self, entry: Entry, delayed: Sequence[Outcome], why: Why | None, now: float) -> None:
        """Set when an entry is tried again, and why it waits."""
        if not delayed:
            entry.due = now
            return
        last = delayed[-1]
        entry.attempts += 1
        jitter, hint = self._rng.uniform(-1.0, 1.0), _hint_of(delayed)
        retry = at_pace(self.retry, entry.message.envelope.pace)
        if hint is None:
            entry.due = min(next_attempt(retry, entry.attempts, now, jitter), entry.expires)
        else:
            entry.due = min(hinted_attempt(retry, hint, now, jitter), entry.expires)
        entry.last = f"{last.reason} ({last.host})" if last.host else last.reason
        ambiguous = any(outcome.ambiguous for outcome in delayed)
        entry.hosts_tried = entry.avoids
        entry.why = why or (Why.AMBIGUOUS if ambiguous else Why.RETRY)
        if self.detours and not ambiguous and self.detours.leads_away(entry.queue, entry.recipients[0].domain):
            # It is routed again when it is read from disk, and finds other hosts there.
            entry.due, entry.hosts_tried = now, ()
            return
        if ambiguous:
            entry.hosts_tried = tuple(dict.fromkeys(outcome.host for outcome in delayed if outcome.ambiguous))
        elif last.scope is Scope.TRANSACTION and last.host:
            entry.hosts_tried = (*entry.hosts_tried, last.host)[-4:]

    def _hold_report(self, entry: Entry, outcomes: Sequence[Outcome]) -> None:
        """A report that fails is never reported on: it is held for a person, logged and counted."""
        reason = next(outcome.reason for outcome in outcomes if outcome.action is Action.FAILED)
        failed = {outcome.recipient for outcome in outcomes if outcome.action is Action.FAILED}
        entry.recipients = tuple(r for r in entry.recipients if r in failed)
        entry.why, entry.due, entry.deadline, entry.last = Why.REPORT_FAILED, NEVER, NEVER, reason
        self._counters.reports_failed += 1
        log.error("a report to %s failed and is held: %s", entry.recipients[0].address, reason)

    def _reports_due(self, entry: Entry, outcomes: Sequence[Outcome], passage: Passage | None) -> Sequence[DueReport]:
        if _are_plainly_relayed(outcomes):
            return ()
        return due_reports(entry.message, outcomes, dsn_offered=passage is not None and passage.transfer.offers_dsn)

    def _commit(
        self,
        entry: Entry,
        queue: str,
        events: tuple[Event, ...],
        reports: Sequence[DueReport],
        dead: tuple[Entry, ...] = (),
    ) -> None:
        def done(fault: Fault | None) -> None:
            self.pending -= 1
            if fault is None:
                self._scheduler.settled(entry, queue)
                if is_behind:
                    self._go_on(entry.key)

        self.pending += 1
        is_behind = entry.key in self._parts
        if is_behind:
            self._parts[entry.key].append(lambda: self._submit(Settlement(entry, events, (), dead), reports, done))
        else:
            self._submit(Settlement(entry, events, (), dead), reports, done)

    def _submit(self, settlement: Settlement, reports: Sequence[DueReport], done: Done) -> None:
        if reports:
            self._reporter.submit(settlement, reports, done)
        else:
            self._spool.settle(settlement, done)

    def _go_on(self, key: Key) -> None:
        """Write what has been settled of an entry behind the part that is on disk now.

        In their order: a report takes a while to be made, and a later part that takes the last recipient off the disk
        would take the content from the report, and after a crash the report from its reader.
        """
        parts = self._parts[key]
        if parts:
            parts.popleft()()
        else:
            del self._parts[key]


def _is_put_off(outcome: Outcome) -> bool:
    """Whether a host has put a transaction or a recipient off, or what it says is only about itself."""
    reply = outcome.reply
    if reply is None or outcome.ambiguous:
        return False
    return outcome.scope is Scope.HOST or (outcome.scope <= Scope.TRANSACTION and 400 <= reply.code < 500)


def _is_about_mailbox(outcome: Outcome) -> bool:
    """Whether a refusal is about the state of one mailbox (RFC 3463 3.3: full, disabled)."""
    return outcome.scope is Scope.RECIPIENT and outcome.status.subject == 2


def _hint_of(delayed: Sequence[Outcome]) -> float | None:
    """Give the longest time that a refusal asked to wait, in seconds; None when no 4yz reply names one."""
    replies = {id(outcome.reply): outcome.reply for outcome in delayed if outcome.reply is not None}
    hints = [find_hint(reply.text) for reply in replies.values() if 400 <= reply.code < 500]
    return max((hint for hint in hints if hint is not None), default=None)


def _are_plainly_relayed(outcomes: Sequence[Outcome]) -> bool:
    """Whether every recipient was relayed and asked for no report, as nearly always: there is nothing left to do."""
    for outcome in outcomes:  # noqa: SIM110 - a generator would cost more than what it asks
        if outcome.action is not _RELAYED or outcome.recipient.notify:
            return False
    return True
