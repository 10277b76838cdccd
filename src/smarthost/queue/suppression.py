"""The suppression list of the running relay: what is on it, in memory and on disk, and what puts an address there."""

import logging
from collections.abc import Callable, Sequence

import msgspec

from smarthost.mail.envelope import Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Message
from smarthost.mail.outcome import Action, Outcome
from smarthost.mail.suppression import REASON_MOST, Key, Origin, Suppression, suppression_address
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules, failures_counted
from smarthost.policy.suppression_marks import BY_FAILURES, BY_PERSON, LASTING, Marks, mark_of
from smarthost.report.feed import Feed
from smarthost.spool.store import Done, Spool

log = logging.getLogger(__name__)

PAGE = 1000  # rows read from disk at a time: a few milliseconds of the event loop
LOAD = 20_000  # rows read at a time at the start; 0.2 s of the event loop where suppression is enabled by a reload
EACH_TOLD = 100  # rows that a person changes at once of which each has a line in the log
COUNTED = "bounces"  # the kind of record that counts what was said later of an address, by owner and address
_RELAYED = Action.RELAYED  # members are looked up each time they are named


class SuppressionList:
    """Asked for each recipient where suppression is enabled, or a person has put an address on the list.

    `active` says that outcomes are of interest, which is what "enabled" means: what a person has put on the list holds
    either way. `refuses` says that suppressed recipients are refused at RCPT, `fails` that they fail when a message is
    to be sent. Marks in memory are the truth; the disk follows with the next settles, so that a crash loses what the
    crash of the settle beside it loses.
    """

    def __init__(self, spool: Spool, feed: Feed, clock: Callable[[], float]) -> None:
        """Begin disabled and empty."""
        self._spool, self._feed, self._clock = spool, feed, clock
        self._rules = SuppressionRules()
        self._marks: Marks | None = None
        self._is_loaded = False
        self.active = self.refuses = self.fails = False

    async def follow(self, rules: SuppressionRules) -> None:
        """Follow rules, new ones or those of the start; reads the list from disk where it has to know more or less."""
        is_known = self._is_loaded and self.active == rules.enabled
        if not rules.enabled and self.active:
            self._marks = None
        self._rules, self.active, self._is_loaded = rules, rules.enabled, True
        if rules.enabled:
            self._open()
        after = ("", "")
        while not is_known and (page := await self._spool.suppressions.marks(after, LOAD)):
            wanted = page if self.active else [row for row in page if row[1] == BY_PERSON]
            if wanted:
                self._open().load(wanted)
            after = page[-1][0]
        self._decide()

    def _open(self) -> Marks:
        """Give the marks; there are none before they are needed, for they take some memory even when empty."""
        if self._marks is None:
            self._marks = Marks()
        return self._marks

    def _decide(self) -> None:
        """Say where recipients are asked about: nowhere as long as nobody can be on the list."""
        is_of_use = self.active or self.count > 0
        self.refuses = is_of_use and self._rules.at is SuppressionPoint.RCPT
        self.fails = is_of_use and self._rules.at is SuppressionPoint.SEND

    @property
    def count(self) -> int:
        """How many addresses are known: suppressed, or, while enabled, with a failure."""
        return self._marks.count if self._marks is not None else 0

    def is_suppressed(self, identity: str, recipient: Recipient) -> bool:
        """Whether mail of a user ("" for none) to a recipient is suppressed, for everybody or for that user."""
        marks = self._marks
        if marks is None or not marks.count:
            return False
        address = suppression_address(recipient)
        return marks.is_suppressed(("", address)) or (bool(identity) and marks.is_suppressed((identity, address)))

    def observe(self, message: Message, outcomes: Sequence[Outcome]) -> None:
        """Take what became of recipients in an attempt; our own reports say nothing about their recipients."""
        marks = self._marks
        if marks is None or not self.active or message.report:
            return
        for outcome in outcomes:
            if outcome.action is _RELAYED:
                if marks.count:
                    self._clear(marks, message, outcome.recipient)
            elif outcome.action is Action.FAILED and (counted := failures_counted(self._rules, outcome, outcomes)):
                self._count(marks, message, outcome, counted)

    @property
    def rules(self) -> SuppressionRules:
        """What a person decided."""
        return self._rules

    def note(self, key: Key, reason: str) -> None:
        """Put an address on the list as its host or provider said later that it is dead, or that it complains.

        Nothing happens while the list is disabled, or where the address is there already. No message that is relayed
        takes it off: the host takes them all, and says afterwards what became of them.
        """
        marks, rules, now = self._marks, self._rules, self._clock()
        if marks is None or not self.active or marks.get(key) in LASTING:
            return
        is_new = marks.get(key) != BY_FAILURES
        row = Suppression(*key, rules.after, now, now + rules.expiry, Origin.REPORTED, reason[:REASON_MOST])
        marks.put(key, mark_of(row))
        self._spool.suppressions.write([row])
        if is_new:
            self._tell_many(Kind.SUPPRESSED, [(key, reason)])

    def put(self, rows: Sequence[Suppression], done: Done) -> None:
        """Put addresses on the list because a person said so."""
        self._spool.suppressions.write(rows, (), done)
        marks = self._open()
        for row in rows:
            marks.put(row.key, mark_of(row))
        self._decide()
        self._tell_many(Kind.SUPPRESSED, [(row.key, row.reason) for row in rows])

    def remove(self, keys: Sequence[Key], done: Done) -> None:
        """Take addresses off the list, and forget their failures, because a person said so."""
        self._spool.records.write((), [(COUNTED, *key) for key in keys])
        self._spool.suppressions.write((), keys, done)
        if self._marks is not None:
            for key in keys:
                self._marks.put(key, 0)
        self._decide()
        self._tell_many(Kind.UNSUPPRESSED, [(key, "removed by a person") for key in keys])

    async def forget_expired(self) -> int:
        """Take off the list what is over; gives how many addresses. An address that changed meanwhile stays."""
        forgotten = 0
        while (marks := self._marks) is not None:
            rows = await self._spool.suppressions.expired(self._clock(), PAGE)
            unmarked = (
                set() if self.active else {0}
            )  # while disabled there are no marks of what failures have put there
            gone = [row for row in rows if marks.get(row.key) in {mark_of(row), *unmarked}]
            if marks is not self._marks or not gone:
                break
            for row in gone:
                marks.put(row.key, 0)
            self._spool.suppressions.write((), [row.key for row in gone])
            self._tell_many(Kind.UNSUPPRESSED, [(row.key, "expired") for row in gone if row.is_suppressed])
            forgotten += len(gone)
            if len(rows) < PAGE:
                break
        self._decide()
        return forgotten

    def _clear(self, marks: Marks, message: Message, recipient: Recipient) -> None:
        """A relayed message ends a row of failures, and a suppression by failures; a person's word stands."""
        address = suppression_address(recipient)
        for owner in {"", message.arrival.identity}:
            mark = marks.get((owner, address))
            if not mark or mark in LASTING:
                continue
            marks.put((owner, address), 0)
            self._spool.suppressions.write((), [(owner, address)])
            if mark == BY_FAILURES:
                self._tell(Kind.UNSUPPRESSED, message, (owner, recipient.address), "a message was relayed to it")

    def _count(self, marks: Marks, message: Message, outcome: Outcome, counted: int) -> None:
        rules, now = self._rules, self._clock()
        key = (rules.owner_of(message.arrival.identity), suppression_address(outcome.recipient))
        mark = marks.get(key)
        if mark in LASTING:
            return
        failures = rules.after if mark == BY_FAILURES else min(mark + counted, rules.after)
        since = now if failures >= rules.after else 0.0
        row = Suppression(*key, failures, since, now + rules.expiry, Origin.AUTOMATIC, outcome.reason)
        marks.put(key, mark_of(row))
        self._spool.suppressions.write([row])
        if row.is_suppressed and mark != BY_FAILURES:
            self._tell(Kind.SUPPRESSED, message, (key[0], outcome.recipient.address), outcome.reason)

    def _tell(self, kind: Kind, message: Message, key: Key, reason: str) -> None:
        owner, address = key
        event = Event(self._clock(), kind, message.id, recipient=address, user=owner, reply=reason)
        self._feed.publish(event)
        # The log says for whose mail it holds; the history is read by tenants, and whose the message is counts there.
        self._spool.record((msgspec.structs.replace(event, user=message.arrival.identity),))

    def _tell_many(self, kind: Kind, rows: Sequence[tuple[Key, str]]) -> None:
        """Tell of each address, or of a large number as one line."""
        if len(rows) > EACH_TOLD:
            log.info("%d addresses: %s", len(rows), kind)
            return
        for (owner, address), reason in rows:
            event = Event(self._clock(), kind, recipient=address, user=owner, reply=reason)
            self._feed.publish(event)
            if owner:  # what holds for everybody is no tenant's to read
                self._spool.record((event,))
