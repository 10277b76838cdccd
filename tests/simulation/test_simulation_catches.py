"""The simulation can fail: an engine that is broken on purpose is caught within a few seeds."""

from collections.abc import Callable, Sequence

import pytest
from sim_run import Run

from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.settle import Settler
from smarthost.delivery.sharing import Sharing
from smarthost.delivery.transaction import Transaction
from smarthost.mail.entry import Entry
from smarthost.mail.event import Event, Kind
from smarthost.mail.outcome import Action, Outcome
from smarthost.mail.reply import Reply
from smarthost.policy import backoff
from smarthost.policy.rate import Cell, Quota
from smarthost.queue.scheduler import Scheduler
from smarthost.report.counters import Counters
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import Accepted, Done

SEEDS = 12  # within which a broken engine is caught

Break = Callable[[pytest.MonkeyPatch], None]


def forget_a_recipient(patch: pytest.MonkeyPatch) -> None:
    """Settling drops one of several delayed recipients."""
    settle = Settler._keep

    def keep(self: Settler, entry: Entry, outcomes: Sequence[Outcome], *rest: object) -> None:
        settle(self, entry, outcomes, *rest)  # type: ignore[arg-type]
        if len(entry.recipients) > 1:
            entry.recipients = entry.recipients[1:]

    patch.setattr(Settler, "_keep", keep)


def send_again(patch: pytest.MonkeyPatch) -> None:
    """A 250 to the content is taken for a delay, now and then."""
    replied, count = Transaction.content_replied, [0]

    def content_replied(self: Transaction, reply: Reply) -> None:
        count[0] += 1
        if reply.code == 250 and count[0] % 20 == 0:
            self.again += self.accepted
        else:
            replied(self, reply)

    patch.setattr(Transaction, "content_replied", content_replied)


def ignore_rates(patch: pytest.MonkeyPatch) -> None:
    """No rate ever waits."""
    patch.setattr(Cell, "wait", lambda self, now: 0.0)
    patch.setattr(Quota, "wait", lambda self, now: 0.0)


def ignore_connections(patch: pytest.MonkeyPatch) -> None:
    """Sessions are opened as long as there is work."""
    patch.setattr(Dispatcher, "_wants_session", lambda self: bool(self.ready.todo) and self.opening < 30)
    patch.setattr("smarthost.policy.window.Window.may_open", lambda self, now: True)
    take = Sharing.take
    patch.setattr(Sharing, "take", lambda self, claimant, hosts, most: take(self, claimant, hosts, 1000))


def forget_to_come_back(patch: pytest.MonkeyPatch) -> None:
    """Entries that are settled with a new due time are not looked at again, and do not expire."""
    patch.setattr(Scheduler, "_note", lambda self, queue, lane, due: None)
    patch.setattr("smarthost.delivery.promoter.Promoter.overdue", lambda self, entries: None)


def answer_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Messages are answered before they are on disk."""
    accept = MemorySpool.accept

    def early(self: MemorySpool, accepted: Accepted, done: Done) -> None:
        self._loop.call_soon(done, None)
        self._later(lambda: accept(self, accepted, lambda fault: None))  # type: ignore[attr-defined]

    patch.setattr("sim_spool.SimSpool.accept", early)


def fail_without_report(patch: pytest.MonkeyPatch) -> None:
    """Nobody is told of failures."""
    patch.setattr("smarthost.delivery.settle.due_reports", lambda *_, **__: ())


def try_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    """What is delayed is due at once, for its first attempts."""
    due = backoff.next_attempt
    patch.setattr(
        "smarthost.delivery.settle.next_attempt",
        lambda retry, attempts, now, jitter: now if attempts < 25 else due(retry, attempts, now, jitter),
    )


def lose_outcomes_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """An ambiguous end is taken for success."""
    lose = Transaction.lose

    def hope(self: Transaction, *given: object, ambiguous: bool = False) -> None:
        lose(self, *given, ambiguous=ambiguous)  # type: ignore[arg-type]
        if ambiguous:
            self.outcomes = [
                Outcome(o.recipient, Action.RELAYED, o.scope, o.stage, o.status, o.reason) for o in self.outcomes
            ]

    patch.setattr(Transaction, "lose", hope)


def count_twice(patch: pytest.MonkeyPatch) -> None:
    """A failure is counted when it is decided, and once more when it is on disk."""
    count = Counters.__call__

    def call(self: Counters, event: Event) -> None:
        for _ in range(1 + (event.event is Kind.FAILED)):
            count(self, event)

    patch.setattr(Counters, "__call__", call)


BREAKS: dict[Break, str] = {
    forget_a_recipient: "neither ended nor in the queue once",
    send_again: "sent again to",
    ignore_rates: "go too fast",
    ignore_connections: "are allowed",
    forget_to_come_back: "has not ended",
    answer_before_commit: "is not on disk",
    try_without_a_pause: "is tried 20 times",
    fail_without_report: "0 reports of failure",
    lose_outcomes_at_the_end: "no 250 was read",
    count_twice: "the metrics have",
}


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: change.__name__)
def test_a_broken_engine_is_caught(change: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to break a promise shows as what it is, within a bounded number of seeds."""
    change(monkeypatch)
    for seed in range(SEEDS):
        if any(BREAKS[change] in fault for fault in Run(seed).go().faults):
            return
    pytest.fail(f"{change.__name__} was not noticed in {SEEDS} seeds")
