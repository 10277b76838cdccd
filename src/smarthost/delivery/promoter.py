"""Takes due entries to the ready queue of the site that answers for them, and finds that site first."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.hall import Hall
from smarthost.delivery.resolve import Sites, Unresolved
from smarthost.delivery.settle import Settler
from smarthost.mail.entry import Entry, Why
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.route import Deliver, Route, Site
from smarthost.queue.rules import Rules
from smarthost.queue.scheduler import Scheduler

log = logging.getLogger(__name__)

UNRESOLVED_PAUSE = 60.0  # seconds before a queue whose DNS fails is looked at again, doubling to the next
UNRESOLVED_PAUSE_MOST = 900.0


class Promoter:
    """From the scheduler to the dispatchers. `dispatcher_for` makes or finds the dispatcher of a site.

    `joined` is told of each queue that is found to go to a site; the assembly sets it.
    """

    def __init__(
        self,
        sites: Sites,
        scheduler: Scheduler,
        settler: Settler,
        rules: Rules,
        dispatcher_for: Callable[[Site], Dispatcher],
        hall: Hall,
    ) -> None:
        """Join the parts."""
        self._sites, self._scheduler, self._settler = sites, scheduler, settler
        self.rules = rules
        self._dispatcher_for, self._clock, self.gates = dispatcher_for, hall.clock, hall.gates
        self.gates.admit = self._admit
        self.joined: Callable[[Dispatcher, str], None] = lambda dispatcher, queue: None
        self.known: dict[str, tuple[Dispatcher, float]] = {}
        self._waiting: dict[str, list[Entry]] = {}
        self._pauses: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, entry: Entry) -> None:
        """Take an entry that was routed just now."""
        if self._settler.detours and self._settler.detours.leads_away(entry.queue, entry.recipients[0].domain):
            self._scheduler.contents.drop(entry.message.id)
            self.reoffer(entry)
        else:
            self._offer(entry)

    def _offer(self, entry: Entry) -> None:
        if not (self.gates.active and self.gates.holds(entry)):
            self._admit(entry)

    def _admit(self, entry: Entry) -> None:
        known = self.known.get(entry.queue)
        if known is not None and known[1] > self._clock():
            known[0].push(entry)
            return
        waiting = self._waiting.get(entry.queue)
        if waiting is not None:
            waiting.append(entry)
            return
        self._waiting[entry.queue] = [entry]
        task = asyncio.ensure_future(self._resolve(entry.queue, self._route_of(entry), entry.recipients[0].domain))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def reoffer(self, entry: Entry) -> None:
        """Take an entry from disk: it may have been routed by an older configuration, so route it again."""
        if entry.expires <= self._clock():
            self._settler.expire(entry)
            return
        routes = [self._route(entry, index) for index in range(len(entry.recipients))]
        named = [
            self.rules.queue_for(entry.message, route, recipient.domain)
            for route, recipient in zip(routes, entry.recipients, strict=True)
        ]
        if set(named) == {entry.queue} and routes[0].deliver in (Deliver.RELAYHOST, Deliver.MX):
            self._offer(entry)
        else:
            self._settler.reroute(entry, list(zip(named, routes, strict=True)))

    def forget(self) -> None:
        """Resolve again before the next use, as after a reload."""
        self.known.clear()
        self._pauses.clear()

    def tidy(self) -> set[Dispatcher]:
        """Forget findings that have expired; gives the dispatchers that the others still name.

        One whose dispatcher has entries stays, for that is how they are found when their deadline comes.
        """
        now = self._clock()
        self.known = {
            queue: known
            for queue, known in self.known.items()
            if known[1] > now or known[0].ready.todo or known[0].ready.busy
        }
        self._pauses = {queue: pause for queue, pause in self._pauses.items() if queue in self._scheduler.queues}
        return {known[0] for known in self.known.values()}

    def overdue(self, entries: Sequence[Entry]) -> None:
        """Warn about or give up entries whose deadline has come; those in delivery are left for the next look."""
        now = self._clock()
        for entry in entries:
            if not self._scheduler.claim(entry):
                known = self.known.get(entry.queue)
                held = not self._scheduler.is_unwritten(entry.key) and self.gates.withdraw(entry.key, entry.queue)
                if not held and (known is None or not known[0].withdraw(entry.key)):
                    continue
            if entry.expires <= now:
                self._settler.expire(entry)
            else:
                self._settler.warn(entry)

    async def stop(self) -> None:
        """End the look-ups that run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _route(self, entry: Entry, index: int) -> Route:
        recipient = entry.recipients[index]
        route = self.rules.route_for(entry.message, recipient)
        return self._settler.detours.follow(route, recipient.domain) if self._settler.detours else route

    def _route_of(self, entry: Entry) -> Route:
        return self._route(entry, 0)

    async def _resolve(self, queue: str, route: Route, domain: str) -> None:
        """Find the site of a queue, then hand over all entries that came meanwhile."""
        try:
            found = await self._sites.resolve(route, domain)
        except BaseException:
            self._scheduler.unload(self._waiting.pop(queue, []))
            raise
        entries = self._waiting.pop(queue)
        if isinstance(found, Unresolved):
            self._unresolved(queue, entries, found)
            return
        self._pauses.pop(queue, None)
        dispatcher = self._dispatcher_for(found)
        self.known[queue] = (dispatcher, found.expires)
        if queue not in dispatcher.queues:
            dispatcher.queues.add(queue)
            self.joined(dispatcher, queue)
        for entry in entries:
            self.offer(entry)

    def _unresolved(self, queue: str, entries: list[Entry], found: Unresolved) -> None:
        """A domain that cannot take mail fails its entries; a DNS fault delays the first and lets the others wait."""
        if found.action is Action.FAILED:
            for entry in entries:
                self._settler.attempted(entry, _outcomes(entry, found, Scope.RECIPIENT))
            return
        pause = self._pauses.get(queue, UNRESOLVED_PAUSE)
        self._pauses[queue] = min(pause * 2, UNRESOLVED_PAUSE_MOST)
        first, *others = entries
        self._scheduler.block(queue, self._clock() + pause, found.reason)
        self._settler.attempted(first, _outcomes(first, found, Scope.SITE), why=Why.UNRESOLVED)
        self._scheduler.unload(others)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("resolving failed", exc_info=error)


def _outcomes(entry: Entry, found: Unresolved, scope: Scope) -> list[Outcome]:
    return [
        Outcome(recipient, found.action, scope, Stage.RESOLVE, found.status, found.reason)
        for recipient in entry.recipients
    ]
