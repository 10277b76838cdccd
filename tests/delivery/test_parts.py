"""An entry whose recipients travel in several transactions: each part is on disk before the entry is let go."""

import asyncio
from collections.abc import Callable
from random import Random

from carried import make_job

from smarthost.delivery.detours import Detours
from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.settle import Parts, Settler
from smarthost.delivery.telling import Passage
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus
from smarthost.mail.route import Deliver, Route, Site
from smarthost.policy.backoff import Retry
from smarthost.policy.limits import SiteLimits
from smarthost.policy.notification import DueReport
from smarthost.queue.contents import Contents
from smarthost.queue.ready import ReadyQueue
from smarthost.queue.scheduler import Scheduler
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import Settlement

T0 = 1_790_000_000.0


class SlowReporter:
    """Makes a report only when the test says so."""

    def __init__(self) -> None:
        """Begin with none."""
        self.waiting: list[Callable[[None], None]] = []

    def submit(self, settlement: Settlement, due: tuple[DueReport, ...], done: Callable[[None], None]) -> None:
        """Keep what would be called when the report is on disk."""
        self.waiting.append(done)


class Opened:
    """What a settler asks of a transfer."""

    site, tls, offers_dsn, connecting = "site", "", False, 0.0


async def test_a_part_is_on_disk_before_its_entry_is_let_go() -> None:
    """While the report on a refused recipient is being made, a person cannot take the entry, and it is not unloaded."""
    spool = MemorySpool(asyncio.get_running_loop(), lambda: T0)
    scheduler, reporter = Scheduler(spool, Contents(), lambda: T0), SlowReporter()
    detours = Detours(lambda: T0)
    parts = Parts(spool, scheduler, reporter, Feed(()), Counters(), lambda: T0, Random(1), detours)  # type: ignore[arg-type]
    settler = Settler(parts, Retry())
    entry = make_job("r1", "r2").entry
    scheduler.claim(entry)
    ready = ReadyQueue(Site("site", (), Route("default", Deliver.RELAYHOST), 9e9), SiteLimits())
    ready.push(entry)
    ready.take()
    hall = type("Hall", (), {"scheduler": scheduler, "settler": settler, "loop": asyncio.get_running_loop()})()
    dispatcher = Dispatcher(ready, hall)
    refused = Outcome(
        entry.recipients[1], Action.FAILED, Scope.RECIPIENT, Stage.RCPT, EnhancedStatus(5, 1, 1), "no such user"
    )
    settler.partly(entry, [refused], Passage(Opened(), T0, T0))  # type: ignore[arg-type]
    dispatcher._partial[entry.key] = []
    ready.push_back(entry)
    assert not dispatcher.withdraw(entry.key)
    dispatcher.retire()
    assert scheduler.is_loaded(entry.key, entry.queue)
    (written,) = reporter.waiting
    written(None)
    assert not scheduler.is_loaded(entry.key, entry.queue)
    assert settler.pending == 0
