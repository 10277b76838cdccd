"""Holds what a person has suspended: sites and routes wait as they are, mail of users and batches is put off."""

import logging
from collections.abc import Callable, Iterable

from smarthost.delivery.dispatcher import Dispatcher
from smarthost.mail.entry import Entry, Why
from smarthost.mail.event import Event, Kind
from smarthost.policy.suspension import Suspension, SuspensionKind, Suspensions
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import Key
from smarthost.report.feed import Feed

log = logging.getLogger(__name__)


class Suspender:
    """What is suspended, and its effect. Nothing is asked of mail while nothing is suspended.

    `dispatchers` gives those of all sites; `put_off` writes that an entry waits until a time; `withdraw` takes one out
    of wherever it waits in memory; the assembly sets them, and `changed`, which is called when another set of users is
    suspended.
    """

    def __init__(self, scheduler: Scheduler, feed: Feed, clock: Callable[[], float]) -> None:
        """Begin with nothing suspended."""
        self.suspensions = Suspensions()
        self._scheduler, self._feed, self._clock = scheduler, feed, clock
        self.dispatchers: Callable[[], Iterable[Dispatcher]] = lambda: ()
        self.put_off: Callable[[Entry, Why, float, str], None] = lambda entry, why, until, reason: None
        self.changed: Callable[[], None] = lambda: None
        self.withdraw: Callable[[str, Key], bool] = lambda queue, key: False

    def restore(self, known: Iterable[Suspension]) -> None:
        """Take what a life before has kept; to be called before anything is sent."""
        self.suspensions = Suspensions(known)
        self._follow()

    def suspend(self, suspension: Suspension) -> None:
        """Let nothing go any more; what is in delivery ends."""
        self.suspensions.put(suspension)
        self._follow()
        if suspension.kind in (SuspensionKind.USER, SuspensionKind.BATCH):
            self._take_out(suspension)
        self._tell(suspension, Kind.SUSPENDED, suspension.text)

    def resume(self, kind: SuspensionKind, name: str) -> Suspension | None:
        """Let it go again; gives what was suspended, None where nothing was."""
        suspension = self.suspensions.remove(kind, name)
        if suspension is not None:
            self._follow()
            self._tell(suspension, Kind.RESUMED, "a person has resumed it")
        return suspension

    def tick(self, now: float) -> list[Suspension]:
        """Once a second: let go what is over; gives it."""
        over = self.suspensions.ended(now) if self.suspensions.all else []
        for suspension in over:
            self._tell(suspension, Kind.RESUMED, "its time is over")
        if over:
            self._follow()
        return over

    def apply_to(self, dispatcher: Dispatcher) -> None:
        """Put in force, or end, what is said of a site and its route."""
        ready = dispatcher.ready
        found = self.suspensions.of_site(ready.site)
        until, text = (0.0, "") if found is None else (found.ends, found.text)
        if (until, text) == (ready.stopped_until, ready.stopped_by):
            return
        ready.stopped_until, ready.stopped_by = until, text
        ready.set_suspension()
        if until:
            dispatcher.hold(self._clock())
        else:
            self._wake(dispatcher)

    def holds(self, entry: Entry) -> bool:
        """Put off an entry of a user who is suspended; False for the others."""
        found = self._of(entry)
        if found is None:
            return False
        self.put_off(entry, Why.SUSPENDED, found.ends, found.text)
        return True

    def _of(self, entry: Entry) -> Suspension | None:
        return self.suspensions.of_mail(entry.message.arrival.identity, entry.message.tag)

    def _take_out(self, suspension: Suspension) -> None:
        """Put off what of a user waits in memory already; what is in delivery goes."""
        for queue in self._scheduler.queues.values():
            for entry in tuple(queue.loaded.values()):
                if suspension is self._of(entry) and self.withdraw(entry.queue, entry.key):
                    self.put_off(entry, Why.SUSPENDED, suspension.ends, suspension.text)

    def _wake(self, dispatcher: Dispatcher) -> None:
        """Have what waits read at once; what else may hold it holds it again."""
        for queue in dispatcher.queues:
            self._scheduler.unblock(queue)
        if dispatcher.pool is not None:
            dispatcher.pool.recovered()
        dispatcher.work()

    def _follow(self) -> None:
        for dispatcher in self.dispatchers():
            self.apply_to(dispatcher)
        self.changed()

    def _tell(self, suspension: Suspension, kind: Kind, reason: str) -> None:
        what = {str(suspension.kind): suspension.name}
        if suspension.kind is SuspensionKind.BATCH:
            what = {"user": suspension.name.partition("/")[0]}
        log.warning("%s: %s %s: %s", kind, suspension.kind, suspension.name, reason)
        self._feed.publish(
            Event(
                self._clock(),
                kind,
                route=what.get("route", ""),
                site=what.get("site", ""),
                user=what.get("user", ""),
                reply=reason,
            )
        )
