"""Pool: shares the mail of one queue among several upstreams, and leads it past those that cannot be used now."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

from smarthost.delivery.connect import Unreached
from smarthost.delivery.dispatcher import Dispatcher
from smarthost.mail.entry import Entry, Why
from smarthost.mail.outcome import Action
from smarthost.mail.route import Route, Upstream
from smarthost.policy.window import State
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import NEVER

SHORT = 5.0  # seconds that mail waits in memory for a quota where no upstream has room
ANOTHER_LOOK = 60.0  # seconds until an upstream that was not found in DNS is looked up again
PATIENCE = 10.0  # seconds that mail may wait in memory at one upstream before others get it
LACKS = 3600.0  # seconds for which an upstream is remembered not to have what REQUIRETLS needs
LEAST = 1.0  # seconds until mail that no upstream could take is looked at again
_GRACE = 0.05  # seconds of waiting for a quota that lead nobody elsewhere


class Member:
    """One upstream, with the dispatcher of its site. Mutable.

    Without a dispatcher it was not found, or is being looked up, and `fault` says so; `expires` is when to look again.
    `behind` says since when all that waits there has waited. Until `lacks_until` it is known to lack what the pool's
    mail needs.
    """

    __slots__ = (
        "_mark",
        "_marked_at",
        "_pushed",
        "dispatcher",
        "expires",
        "fault",
        "lacks_until",
        "reason",
        "upstream",
    )

    def __init__(self, upstream: Upstream) -> None:
        """Begin with nothing found."""
        self.upstream = upstream
        self.dispatcher: Dispatcher | None = None
        self.expires = self.lacks_until = 0.0
        self.fault = "it is being looked up in DNS"
        self.reason = ""
        self._pushed = self._mark = 0
        self._marked_at = NEVER

    def push(self, entry: Entry) -> None:
        """Hand an entry to the dispatcher, which must be there."""
        assert self.dispatcher is not None
        self._pushed += 1
        self.dispatcher.push(entry)

    def watch(self, now: float) -> None:
        """Look, about once a second, whether what waited at the last mark has gone."""
        assert self.dispatcher is not None
        waiting = len(self.dispatcher.ready.todo)
        if not waiting:
            self._marked_at = NEVER
        elif self._marked_at == NEVER or self._pushed - waiting >= self._mark:
            self._mark, self._marked_at = self._pushed, now

    def is_late(self, now: float) -> bool:
        """Whether mail has waited here for too long."""
        return now - self._marked_at > PATIENCE

    def is_well(self, now: float) -> bool:
        """Whether nothing but a quota may keep mail from going there."""
        dispatcher = self.dispatcher
        if dispatcher is None or dispatcher.stopping or self.lacks_until > now:
            return False
        return dispatcher.ready.window.state is State.READY and dispatcher.ready.suspended_until <= now

    def is_suspended(self, now: float) -> bool:
        """Whether a person or a rule has suspended it."""
        return self.dispatcher is not None and self.dispatcher.ready.suspended_until > now

    def is_tried(self, now: float) -> bool:
        """Whether a session is being opened that may show it to be well again."""
        return self.dispatcher is not None and self.dispatcher.opening > 0 and not self.is_suspended(now)

    def may_probe(self, now: float) -> bool:
        """Whether its pause is over, so that one session may show whether it is well again."""
        dispatcher = self.dispatcher
        if dispatcher is None or dispatcher.stopping or dispatcher.ready.suspended_until > now:
            return False
        window = dispatcher.ready.window
        return window.state is not State.READY and window.until <= now

    def quota_wait(self, now: float) -> float:
        """Give the seconds until its quota has room."""
        quota = self.dispatcher.ready.quota if self.dispatcher is not None else None
        wait = quota.wait(now) if quota is not None else 0.0
        return wait if wait > _GRACE else 0.0

    def has_any(self, hosts: Sequence[str]) -> bool:
        """Whether one of some hosts is its own."""
        return self.dispatcher is not None and any(host.name in hosts for host in self.dispatcher.ready.site.hosts)

    def obstacle(self, now: float) -> tuple[float, str]:
        """Say until when it cannot be used, and why; "" where it can."""
        if self.dispatcher is None:
            return self.expires, self.fault
        ready = self.dispatcher.ready
        if ready.suspended_until > now:
            return ready.suspended_until, ready.suspended_by
        if ready.window.state is not State.READY:
            return max(ready.window.until, now + 1.0), self.reason or "it could not be reached"
        if self.lacks_until > now:
            return self.lacks_until, self.reason
        wait = self.quota_wait(now)
        return now + wait, f"its quota of {', '.join(self.upstream.quota)} is used up" if wait else ""


class Pool:
    """The upstreams of one route and their mail. Mutable.

    Each is a site of its own, with its sessions, its window as circuit breaker, its login and its limits, so that one
    which is ill touches no other. Here is decided only where an entry waits: of the upstreams that can be used those of
    the lowest order share by weight. What waits at one that cannot be used any more goes to the others at once; where
    there is no other, to the disk, until one may be used.

    `renew` is called when upstreams have to be looked up again, `lead` to have a queue take another route until a
    time; `is_retired` says that another configuration rules.
    """

    def __init__(self, queue: str, route: Route, scheduler: Scheduler, clock: Callable[[], float], rng: Random) -> None:
        """Begin with no upstream found."""
        self.queues: dict[str, None] = {queue: None}  # a set that keeps its order
        self.route = route
        self.members = tuple(map(Member, route.pool))
        self.renew: Callable[[Pool], object] = lambda pool: None
        self.lead: Callable[[str, Route, float], None] = lambda queue, route, until: None
        self.is_retired = False
        self._scheduler, self._clock, self._rng = scheduler, clock, rng
        self._expires = 0.0
        self._blocked_until = 0.0

    @property
    def dispatchers(self) -> list[Dispatcher]:
        """Those of the upstreams that were found."""
        return [member.dispatcher for member in self.members if member.dispatcher is not None]

    def found(self, member: Member, dispatcher: Dispatcher | None) -> None:
        """Take the dispatcher of an upstream's site, None where it was not found; what waits elsewhere stays there."""
        former, member.dispatcher = member.dispatcher, dispatcher
        self._expires = min(each.expires for each in self.members)
        if former is dispatcher:
            return
        if former is not None:
            former.pool = None
        if dispatcher is not None:
            dispatcher.pool = self
        self.recovered()

    def push(self, entry: Entry) -> None:
        """Have an entry wait at one of the upstreams, or on disk where none can be used."""
        now = self._clock()
        if now >= self._expires:
            self._expires = now + ANOTHER_LOOK
            self.renew(self)
        member = self._choose(entry, now)
        if member is None:
            self._put_off((entry,), now)
        else:
            member.push(entry)

    def spread(self, dispatcher: Dispatcher, reason: str = "") -> None:
        """Have what waits at an upstream wait elsewhere, where there is a better place."""
        now, left = self._clock(), []
        if reason:
            self._member_of(dispatcher).reason = reason
        for entry in dispatcher.release():
            member = self._choose(entry, now)
            if member is None:
                left.append(entry)
            else:
                member.push(entry)
        if left or self._is_closed(now):
            self._put_off(left, now)

    def quota_used(self, dispatcher: Dispatcher) -> None:
        """Take note that an upstream has mail that its quota does not let go now: others have it if they can."""
        wait = self._member_of(dispatcher).quota_wait(self._clock())
        if dispatcher.ready.todo and wait and (wait > SHORT or self.has_other(dispatcher)):
            self.spread(dispatcher)

    def has_other(self, dispatcher: Dispatcher, patience: float = 0.0) -> bool:
        """Whether mail could go to another upstream, at once or within some seconds."""
        now = self._clock()
        return any(
            each.dispatcher is not dispatcher and each.is_well(now) and each.quota_wait(now) <= patience
            for each in self.members
        )

    def spares(self, dispatcher: Dispatcher, unreached: Unreached) -> bool:
        """Whether what an upstream could not be reached for need not be an attempt: another one has the mail soon.

        Or may have it: one that is being tried at this moment is waited for, as it may be well again. One whose TLS
        proves nothing has been of no use to mail with REQUIRETLS, which another one may take.
        """
        if unreached.verdict.action is Action.FAILED:
            return self.passes_on(dispatcher, unreached.reason)
        now = self._clock()
        return self.has_other(dispatcher, SHORT) or any(
            each.dispatcher is not dispatcher and each.is_tried(now) and each.quota_wait(now) <= SHORT
            for each in self.members
        )

    def passes_on(self, dispatcher: Dispatcher, reason: str) -> bool:
        """Have what waits at an upstream that cannot take mail with REQUIRETLS wait for the others.

        False where no other upstream may take it, either: then each message shows that anew, and fails.
        """
        now, member = self._clock(), self._member_of(dispatcher)
        member.lacks_until, member.reason = now + LACKS, reason
        if all(each.lacks_until > now for each in self.members):
            for each in self.members:
                if each.dispatcher is not None and each.dispatcher.ready.window.state is State.READY:
                    each.lacks_until = 0.0  # so that the next message goes where this is shown again
            return False
        self.spread(dispatcher)
        return True

    def first_usable(self) -> Upstream | None:
        """Give the first upstream to which mail may go at once; None where there is none."""
        now = self._clock()
        return next((each.upstream for each in self.members if each.is_well(now) and not each.quota_wait(now)), None)

    def recovered(self) -> None:
        """An upstream can be used again: it gets what waits on disk, and for others that are being tried, at once."""
        if self._blocked_until:
            self._blocked_until = 0.0
            for queue in self.queues:
                self._scheduler.unblock(queue)
        now = self._clock()
        for member in self.members:
            if member.may_probe(now) and member.dispatcher is not None and member.dispatcher.ready.todo:
                self.spread(member.dispatcher)

    def watch(self, dispatcher: Dispatcher, now: float) -> None:
        """Once a second: give what has waited for too long at one upstream to those that keep up."""
        member = self._member_of(dispatcher)
        member.watch(now)
        if member.is_late(now) and any(
            each is not member and self._is_ready(each, now) and self._may_help(each, member) for each in self.members
        ):
            self.spread(dispatcher)

    def _member_of(self, dispatcher: Dispatcher) -> Member:
        return next(member for member in self.members if member.dispatcher is dispatcher)

    def _is_ready(self, member: Member, now: float) -> bool:
        return member.is_well(now) and not member.is_late(now) and not member.quota_wait(now)

    def _may_help(self, member: Member, late: Member) -> bool:
        """Whether one may take another's mail: as its equal, or as a substitute for one that has no session at all."""
        is_equal = member.upstream.order == late.upstream.order
        return is_equal or (late.dispatcher is not None and not late.dispatcher.transfers)

    def _choose(self, entry: Entry, now: float) -> Member | None:
        """Choose where an entry waits; None where no upstream can be used.

        One that may have the message already has it again, so that it can recognise it; one that has refused it comes
        after those that have not. An upstream whose pause is over is tried without mail while others can be used.
        """
        usable = [each for each in self.members if each.is_well(now) and not each.quota_wait(now)]
        if sticks_to := entry.sticks_to:
            for member in usable:
                if member.has_any(sticks_to):
                    return member
        if avoids := entry.avoids:
            usable = [each for each in usable if not each.has_any(avoids)] or usable
        if not usable:
            probed = self._probe(now, self.members[-1].upstream.order)
            return self._soonest(now) or probed
        best = self._best_of(usable, now)
        self._probe(now, best[0].upstream.order)
        if len(best) == 1:
            return best[0]
        return self._rng.choices(best, [member.upstream.weight for member in best])[0]

    def _probe(self, now: float, order: int) -> Member | None:
        """Have a session tried with each upstream up to an order whose pause is over; gives the first of them."""
        first: Member | None = None
        for member in self.members:
            if member.upstream.order <= order and member.may_probe(now) and member.dispatcher is not None:
                first = first or member
                member.dispatcher.probe()
        return first

    def _best_of(self, usable: Sequence[Member], now: float) -> list[Member]:
        """Give the members that share: those of the first order of which one keeps up, or has at least a session."""
        chosen: list[Member] = []
        order = -1
        for member in usable:  # in their order
            if chosen and member.upstream.order != order:
                break
            late = member.is_late(now)
            if not late or (member.dispatcher is not None and member.dispatcher.transfers):
                order = member.upstream.order
                chosen.append(member)
        prompt = [member for member in chosen if not member.is_late(now)]
        return prompt or chosen or [usable[0]]

    def _soonest(self, now: float) -> Member | None:
        """Give the upstream that is well and whose quota has room in a moment."""
        waits = [(each.quota_wait(now), index) for index, each in enumerate(self.members) if each.is_well(now)]
        if not waits:
            return None
        wait, index = min(waits)
        return self.members[index] if wait <= SHORT else None

    def _is_closed(self, now: float) -> bool:
        return not any(
            each.may_probe(now) or (each.is_well(now) and each.quota_wait(now) <= SHORT) for each in self.members
        )

    def _put_off(self, entries: Iterable[Entry], now: float) -> None:
        """Put entries back to disk, and let nothing of the queue be read before an upstream may be used.

        Where a rule on replies names another route for what one of them had, the mail takes that one meanwhile.
        """
        obstacles = [(member.upstream.name, *member.obstacle(now)) for member in self.members]
        # Not at once, whatever the upstreams say: at a shutdown nothing may be read again and again.
        self._blocked_until = max(min(until for _, until, _ in obstacles), now + LEAST)
        # By the name of the queue all mail of the route would be led away, with REQUIRETLS or without.
        if not self.route.demand and (route := self._way_round(now)) is not None:
            for queue in self.queues:
                self.lead(queue, route, self._blocked_until)
                self._scheduler.unblock(queue)
            self._scheduler.unload(entries)
            return
        why = Why.QUOTA_USED if any(member.is_well(now) for member in self.members) else Why.NO_UPSTREAM
        suspended = {each.ready.suspended_why for each in self.dispatchers if each.ready.suspended_until > now}
        if len(suspended) == 1 and all(each.is_suspended(now) for each in self.members):
            (why,) = suspended
        reason = "; ".join(f"{name}: {reason}" for name, _, reason in obstacles)
        for queue in self.queues:
            self._scheduler.block(queue, self._blocked_until, reason, why)
        self._scheduler.unload(entries)

    def _way_round(self, now: float) -> Route | None:
        """Give the route that a rule on replies names for the mail of an upstream that it has suspended."""
        for member in self.members:
            if member.dispatcher is not None and member.dispatcher.ready.ruled_until > now:
                route = member.dispatcher.ready.switched_to
                if route is not None and route.name != self.route.name:
                    return route
        return None
