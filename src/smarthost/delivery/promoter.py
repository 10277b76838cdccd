"""Takes due entries to the ready queue of the site that answers for them, and finds that site first."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from random import Random

from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.hall import Hall
from smarthost.delivery.pool import ANOTHER_LOOK, Member, Pool
from smarthost.delivery.resolve import Sites, Unresolved
from smarthost.delivery.settle import Settler
from smarthost.mail.entry import Entry, Why
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.route import Deliver, Route, Site
from smarthost.policy.security import as_asked
from smarthost.policy.suppression import SUPPRESSED, SUPPRESSED_ON_SEND
from smarthost.queue.rules import Rules, pool_queue, site_queue
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.suppression import SuppressionList
from smarthost.queue.waiting import NEVER, Key

log = logging.getLogger(__name__)

UNRESOLVED_PAUSE = 60.0  # seconds before a queue whose DNS fails is looked at again, doubling to the next
UNRESOLVED_PAUSE_MOST = 900.0
POOL_PATIENCE = 5.0  # seconds for all upstreams of a pool to be looked up; what is not found then joins later


class Promoter:
    """From the scheduler to the dispatchers. `dispatcher_for` makes or finds the dispatcher of a site.

    `joined` is told of each queue that is found to go to a site, `suppression` knows to whom nothing is sent, and by
    `rng` pools share their mail; the assembly sets them. `known` is where a queue's mail goes, and until when that may
    be believed.
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
        self.rng = Random(0)
        self.suppression: SuppressionList | None = None
        self.known: dict[str, tuple[Dispatcher | Pool, float]] = {}
        # By queue: dispatchers of sites that it went to before, which may still have some of its entries.
        self._former: dict[str, list[Dispatcher]] = {}
        # By queue: those who wait for a look-up, which holds the same list.
        self._waiting: dict[str, list[Entry]] = {}
        self._finding: set[Pool] = set()
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
        if self.suppression is not None and self.suppression.fails and self._fail_suppressed(entry, self.suppression):
            return
        if not (self.gates.active and self.gates.holds(entry)):
            self._admit(entry)

    def _admit(self, entry: Entry) -> None:
        known = self.known.get(entry.queue) or self._join_pool(entry.queue)
        if known is not None and known[1] > self._clock():
            known[0].push(entry)
            return
        route = self._route_of(entry)
        if self.rules.queue_for(entry.message, route, entry.recipients[0].domain) != entry.queue:
            # A detour has ended since it was routed: its queue is not to be taken for one of the route that it has now.
            self._scheduler.contents.drop(entry.message.id)
            self.reoffer(entry)
            return
        place = pool_queue(entry.queue) if route.pool else entry.queue
        waiting = self._waiting.get(place)
        if waiting is not None:
            waiting.append(entry)
            return
        waiting = self._waiting[place] = [entry]
        if route.pool:
            self._keep(self._find_pool(place, route, waiting))
        else:
            self._keep(self._resolve(entry.queue, route, entry.recipients[0].domain, waiting))

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

    def _fail_suppressed(self, entry: Entry, suppression: SuppressionList) -> bool:
        """Give recipients up that are on the suppression list; the others come back from disk at once."""
        message = entry.message
        identity = message.arrival.identity
        doomed = () if message.report else [r for r in entry.recipients if suppression.is_suppressed(identity, r)]
        if not doomed:
            return False
        status = SUPPRESSED.status
        outcomes = [
            Outcome(recipient, Action.FAILED, Scope.RECIPIENT, Stage.QUEUE, status, SUPPRESSED_ON_SEND)
            for recipient in doomed
        ]
        self._settler.attempted(entry, outcomes, tuple(r for r in entry.recipients if r not in doomed))
        return True

    def forget(self, routes: Collection[str] | None = None) -> None:
        """Resolve again before the next use, as after a reload; look-ups that run are for routes of before.

        `routes` are the relayhosts without a pool that are meant, None all routes.
        """
        if routes is None:
            for target in (*(target for target, _ in self.known.values()), *self._finding):
                if isinstance(target, Pool):
                    target.is_retired = True
        for known in (self.known, self._pauses):
            for queue in [queue for queue in known if routes is None or site_queue(queue) in routes]:
                del known[queue]
        for queue in [queue for queue in self._waiting if routes is None or site_queue(queue) in routes]:
            self._scheduler.unload(self._waiting.pop(queue))

    def looking_up(self, entry: Entry) -> str:
        """Say what an entry waits for whose site is being looked up, as a sentence; "" for any other."""
        waiting = self._waiting.get(entry.queue) or self._waiting.get(pool_queue(entry.queue)) or ()
        if not any(each is entry or each.key == entry.key for each in waiting):
            return ""
        return self._sites.looking_up(entry.recipients[0].domain)

    def dispatchers_of(self, queue: str) -> list[Dispatcher]:
        """Give the dispatchers that may have entries of a queue, first those to which its mail goes now."""
        known = self.known.get(queue)
        found = [] if known is None else known[0].dispatchers if isinstance(known[0], Pool) else [known[0]]
        return [*found, *self._former[queue]] if queue in self._former else found

    def looks_up(self, queue: str) -> bool:
        """Whether entries of a queue wait until it is known where they go."""
        return queue in self._waiting or pool_queue(queue) in self._waiting

    def pool_of(self, queue: str) -> Pool | None:
        """Give the pool that serves a queue, if one does."""
        known = self.known.get(queue)
        return known[0] if known is not None and isinstance(known[0], Pool) else None

    def withdraw(self, queue: str, key: Key) -> bool:
        """Take one waiting entry out of wherever it waits; False when it is in delivery, or on disk only."""
        if not self._scheduler.is_unwritten(key) and self.gates.withdraw(key, queue):
            return True
        return any(dispatcher.withdraw(key) for dispatcher in self.dispatchers_of(queue))

    def tidy(self) -> set[Dispatcher]:
        """Forget findings that have expired; gives the dispatchers that the others still name.

        One whose dispatcher has entries stays, for that is how they are found when their deadline comes.
        """
        now = self._clock()
        self._former = {
            queue: left
            for queue, former in self._former.items()
            if (left := [each for each in former if each.ready.todo or each.ready.busy])
        }
        named: set[Dispatcher] = {each for former in self._former.values() for each in former}
        for queue, (target, expires) in tuple(self.known.items()):
            if isinstance(target, Pool):
                named.update(target.dispatchers)
            elif expires > now or target.ready.todo or target.ready.busy:
                named.add(target)
            else:
                del self.known[queue]
        self._pauses = {queue: pause for queue, pause in self._pauses.items() if queue in self._scheduler.queues}
        return named

    def overdue(self, entries: Sequence[Entry]) -> None:
        """Warn about or give up entries whose deadline has come; those in delivery are left for the next look."""
        now = self._clock()
        for entry in entries:
            if not self._scheduler.claim(entry) and not self.withdraw(entry.queue, entry.key):
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
        if not self._settler.detours:
            return route
        return as_asked(self._settler.detours.follow(route, recipient.domain), entry.message.envelope)

    def _route_of(self, entry: Entry) -> Route:
        return self._route(entry, 0)

    async def _resolve(self, queue: str, route: Route, domain: str, entries: list[Entry]) -> None:
        """Find the site of a queue, then hand over all entries that came meanwhile."""
        try:
            found = await self._sites.resolve(route, domain)
        except BaseException as error:
            self._given_up(queue, entries, error)
            raise
        if not self._is_wanted(queue, entries):
            return
        if isinstance(found, Unresolved):
            self._unresolved(queue, entries, found)
            return
        self._pauses.pop(queue, None)
        dispatcher = self._join(queue, found)
        former = self.known.get(queue)
        self.known[queue] = (dispatcher, found.expires)
        if former is not None and isinstance(former[0], Dispatcher) and former[0] is not dispatcher:
            self._leave(queue, former[0])
        for entry in entries:
            self.offer(entry)

    def _join(self, queue: str, site: Site) -> Dispatcher:
        """Give the dispatcher of a site, which serves the queue from now on."""
        dispatcher = self._dispatcher_for(site)
        if queue not in dispatcher.queues:
            dispatcher.queues.add(queue)
            self.joined(dispatcher, queue)
        return dispatcher

    def _leave(self, queue: str, former: Dispatcher) -> None:
        """Have what waits of a queue at its site of before wait where it goes now; what is in delivery may return."""
        former.queues.discard(queue)
        known = self._former.setdefault(queue, [])
        if former not in known:
            known.append(former)
        for entry in former.release(queue):
            self._offer(entry)

    def _is_wanted(self, queue: str, entries: list[Entry]) -> bool:
        """Whether those for whom something was looked up still wait for it; from now on they do not."""
        if self._waiting.get(queue) is not entries:
            return False
        del self._waiting[queue]
        return True

    def _given_up(self, queue: str, entries: list[Entry], error: BaseException) -> None:
        """Put back those who wait for a look-up that has failed by a fault of ours, which may be there for good."""
        if self._is_wanted(queue, entries):
            if isinstance(error, Exception):
                reason = f"the look-up failed by a fault in this program ({type(error).__name__})"
                for name in {entry.queue: None for entry in entries}:
                    self._scheduler.block(name, self._clock() + UNRESOLVED_PAUSE, reason, Why.UNRESOLVED)
            self._scheduler.unload(entries)

    def _join_pool(self, queue: str) -> "tuple[Pool, float] | None":
        """Have the pool of a route serve one more queue, of mail that is restrained; None where there is no pool."""
        known = self.known.get(pool_queue(queue))
        if known is None or not isinstance(known[0], Pool):
            return None
        pool = known[0]
        pool.queues[queue] = None
        for dispatcher in pool.dispatchers:
            self._join(queue, dispatcher.ready.site)
        self.known[queue] = pool, NEVER
        return pool, NEVER

    async def _find_pool(self, queue: str, route: Route, entries: list[Entry]) -> None:
        """Find the upstreams of a pool, then hand over all entries that came meanwhile."""
        pool = Pool(queue, route, self._scheduler, self._clock, self.rng)
        pool.renew, pool.lead = self._renew, self._settler.detours.lead
        self._finding.add(pool)
        try:
            await asyncio.wait(self._renew(pool), timeout=POOL_PATIENCE)
        except BaseException as error:
            self._given_up(queue, entries, error)
            raise
        finally:
            self._finding.discard(pool)
        if self._is_wanted(queue, entries):
            self.known[queue] = (pool, NEVER)
            for entry in entries:
                self.offer(entry)

    def _renew(self, pool: Pool) -> "list[asyncio.Task[None]]":
        """Look up the upstreams of a pool whose finding has expired, each by itself."""
        now = self._clock()
        return [self._keep(self._find_member(pool, member)) for member in pool.members if member.expires <= now]

    async def _find_member(self, pool: Pool, member: Member) -> None:
        """Find the site of one upstream, unless the pool has been replaced meanwhile."""
        member.expires = self._clock() + ANOTHER_LOOK
        found = await self._sites.resolve(member.upstream.route, "")
        if pool.is_retired:
            return
        former, dispatcher = member.dispatcher, None
        if isinstance(found, Unresolved):
            member.fault = found.reason
        else:
            member.expires = found.expires
            for queue in pool.queues:
                dispatcher = self._join(queue, found)
        pool.found(member, dispatcher)
        if former is not None and former is not dispatcher:
            for queue in pool.queues:
                self._leave(queue, former)

    def _unresolved(self, queue: str, entries: list[Entry], found: Unresolved) -> None:
        """A domain that cannot take mail fails its entries; a DNS fault delays the first and lets the others wait."""
        if found.action is Action.FAILED:
            for entry in entries:
                self._settler.attempted(entry, _outcomes(entry, found, Scope.RECIPIENT))
            return
        pause = self._pauses.get(queue, UNRESOLVED_PAUSE)
        self._pauses[queue] = min(pause * 2, UNRESOLVED_PAUSE_MOST)
        first, *others = entries
        self._scheduler.block(queue, self._clock() + pause, found.reason, found.why)
        self._settler.attempted(first, _outcomes(first, found, Scope.SITE), why=found.why)
        self._scheduler.unload(others)

    def _keep(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("resolving failed", exc_info=error)


def _outcomes(entry: Entry, found: Unresolved, scope: Scope) -> list[Outcome]:
    return [
        Outcome(recipient, found.action, scope, Stage.RESOLVE, found.status, found.reason)
        for recipient in entry.recipients
    ]
