"""Remedies: offers refusals to the rules of [[automation]] and does at a site what they say, for their time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from smarthost.delivery.detours import Detours
from smarthost.mail.event import Event, Kind
from smarthost.mail.outcome import Action, Outcome, Stage
from smarthost.mail.reply import Reply
from smarthost.mail.route import Route
from smarthost.policy.automation import Automation, AutomationRule, Measure, Remedy, amend
from smarthost.policy.notes import NoteKind, Notes
from smarthost.queue.ready import ReadyQueue
from smarthost.report.feed import Feed

_BEGUN = MappingProxyType(
    {Remedy.SUSPEND: Kind.SUSPENDED, Remedy.SLOW_DOWN: Kind.SLOWED, Remedy.SWITCH_ROUTE: Kind.SWITCHED}
)


class Restrained(Protocol):
    """A site's dispatcher, as far as rules are concerned with it."""

    ready: ReadyQueue
    queues: set[str]

    @property
    def pool(self) -> "Pooled | None":
        """The pool that its site is an upstream of."""

    def hold(self, now: float, reason: str = "") -> None:
        """Put back what waits, until the site may be used again."""

    def shrink(self) -> None:
        """End the sessions that are more than the site may have now."""

    def work(self) -> None:
        """Go on, as far as the limits allow."""


class Pooled(Protocol):
    """A pool of upstreams, as far as rules are concerned with it."""

    def has_other(self, dispatcher: Any, patience: float = 0.0) -> bool:
        """Whether mail could go to another upstream, at once or within some seconds."""


class Carried(Protocol):
    """A session that carried mail, as far as rules are concerned with it."""

    lost: bool


class Remedies:
    """What rules do to sites. Mutable; `active` is false where no rule can match, so that nothing is asked.

    `dispatcher_at` finds the dispatcher of a site by its name; `routes` are all routes by their names. Both are set
    by the assembly; `follow` takes new rules at the start and at each reload. `notes` keep what is in force.
    """

    def __init__(self, detours: Detours, feed: Feed, clock: Callable[[], float]) -> None:
        """Begin without rules."""
        self.notes = Notes()
        self._automation, self._detours, self._feed, self._clock = Automation(), detours, feed, clock
        self.active = False
        self.dispatcher_at: Callable[[str], Restrained | None] = lambda site: None
        self.routes: Mapping[str, Route] = MappingProxyType({})
        self._last: tuple[Carried | None, Reply | None, AutomationRule | None] = (None, None, None)

    def follow(self, rules: Iterable[AutomationRule], routes: Mapping[str, Route]) -> None:
        """Follow new rules; what a rule that is gone has put in force ends."""
        self.routes = routes
        self._detours.clear()
        for measure in self._automation.replace(rules):
            self._end(measure, "the rule is gone")
        self.active = self._automation.has_rules

    def recall(self) -> None:
        """Go on with what a life before had put in force, under rules that are still the same; nothing is told of it.

        Sites come back with their first mail, and are then as they were: `apply_to` and `joined`.
        """
        kept = self.notes.all_of(NoteKind.MEASURE, Measure)
        for measure in self._automation.restore(kept.values(), self._clock()):
            self.notes.drop(NoteKind.MEASURE, _place(measure))

    def review(
        self, dispatcher: Restrained, outcomes: Sequence[Outcome], session: Carried | None = None
    ) -> Sequence[Outcome]:
        """Offer the refusals among a transaction's outcomes to the rules; gives the outcomes as the rules want them.

        What was said to many recipients alike counts once.
        """
        reviewed = list(outcomes)
        rules: dict[Reply, AutomationRule | None] = {}
        for index, outcome in enumerate(outcomes):
            reply = outcome.reply
            if outcome.action is Action.RELAYED or reply is None:
                continue
            if reply not in rules:
                rules[reply] = self.hear(dispatcher, outcome.stage, reply, session)
            rule = rules[reply]
            if rule is not None and (rule.action is not Remedy.SWITCH_ROUTE or self._has_way(dispatcher, outcome)):
                reviewed[index] = amend(outcome, rule)
        return reviewed

    def hear(
        self, dispatcher: Restrained, stage: Stage, reply: Reply | None, session: Carried | None = None
    ) -> AutomationRule | None:
        """Offer one refusal to the rules; gives the rule that acts on it.

        The reply that ends a session is told of by each transaction that was under way and by the session itself, and
        counts once.
        """
        if reply is None or reply.code < 400:
            return None
        if session is not None and session.lost and self._last[0] is session and self._last[1] == reply:
            return self._last[2]
        now, site = self._clock(), dispatcher.ready.site
        found = self._automation.observe(site, stage, reply, now)
        rule = found.rule if found is not None else None
        self._last = session, reply, rule
        if found is not None and found.begun is not None:
            current = self.dispatcher_at(site.name) or dispatcher
            self.notes.put(NoteKind.MEASURE, _place(found.begun), found.begun)
            self._begin(current, found.begun, now)
            self._tell(found.begun, _BEGUN[found.rule.action], route=site.route.name, stage=stage, reply=reply)
        return rule

    def apply_to(self, dispatcher: Restrained) -> None:
        """Put in force at a new dispatcher what holds for its site."""
        now = self._clock()
        for measure in self._automation.in_force(dispatcher.ready.site.name, now):
            self._begin(dispatcher, measure, now)

    def joined(self, dispatcher: Restrained, queue: str) -> None:
        """Take note of a further queue whose mail goes to a site: its mail is led where the site's is."""
        if dispatcher.ready.site.route.upstream:
            return
        for measure in self._automation.in_force(dispatcher.ready.site.name, self._clock()):
            if measure.rule.action is Remedy.SWITCH_ROUTE:
                self._detours.lead(queue, self.routes[measure.rule.route], measure.until)

    def lift(self, dispatcher: Restrained) -> None:
        """End what keeps mail from a site because a person wants it to go."""
        site = dispatcher.ready.site
        for remedy in (Remedy.SUSPEND, Remedy.SWITCH_ROUTE) if site.route.upstream else (Remedy.SUSPEND,):
            measure = self._automation.lift(site.name, remedy)
            if measure is not None:
                self._end(measure, "asked for by a person")

    def tick(self, now: float) -> None:
        """Once a second: let go what is over."""
        for measure in self._automation.ended(now):
            self._end(measure, "its time is over")
        if self._detours:
            self._detours.tidy(now)

    def _has_way(self, dispatcher: Restrained, outcome: Outcome) -> bool:
        domain, pool = outcome.recipient.domain, dispatcher.pool
        if pool is not None and pool.has_other(dispatcher):
            return True
        return self._detours.leads_away(dispatcher.ready.site.route.queue_for(domain), domain)

    def _begin(self, dispatcher: Restrained, measure: Measure, now: float) -> None:
        ready, rule = dispatcher.ready, measure.rule
        if rule.action is Remedy.SUSPEND or (rule.action is Remedy.SWITCH_ROUTE and ready.site.route.upstream):
            # One upstream of a pool is left out; its pool leads the mail away when there is no other upstream for it.
            ready.switched_to = self.routes.get(rule.route) or ready.switched_to
            if measure.until > ready.ruled_until:
                ready.ruled_until, ready.ruled_by = measure.until, _describe(measure)
            ready.set_suspension()
            dispatcher.hold(now)
        elif rule.action is Remedy.SLOW_DOWN:
            ready.slow_down(rule.message_rate, rule.max_connections, _describe(measure), now)
            dispatcher.shrink()
        else:
            for queue in dispatcher.queues:
                self._detours.lead(queue, self.routes[rule.route], measure.until)

    def _end(self, measure: Measure, reason: str) -> None:
        self.notes.drop(NoteKind.MEASURE, _place(measure))
        dispatcher = self.dispatcher_at(measure.site)
        if dispatcher is not None:
            ready = dispatcher.ready
            if measure.rule.action in (Remedy.SUSPEND, Remedy.SWITCH_ROUTE):
                ready.ruled_until, ready.ruled_by, ready.switched_to = 0.0, "", None
                ready.set_suspension()
                for other in self._automation.in_force(measure.site, self._clock()):
                    if other.rule.action is not Remedy.SLOW_DOWN:
                        self._begin(dispatcher, other, self._clock())
            elif measure.rule.action is Remedy.SLOW_DOWN:
                ready.resume_speed()
            dispatcher.work()
        route = measure.site.partition("/")[0]
        self._feed.publish(
            Event(self._clock(), Kind.RESUMED, route=route, site=measure.site, reply=f"{_name(measure)}: {reason}")
        )

    def _tell(self, measure: Measure, kind: Kind, *, route: str, stage: Stage, reply: Reply) -> None:
        self._feed.publish(
            Event(
                measure.since,
                kind,
                route=route,
                site=measure.site,
                code=reply.code,
                status=str(reply.status),
                reply=f"{_name(measure)} for {measure.until - measure.since:.0f} s: {reply.text}",
                stage=stage,
            )
        )


def _place(measure: Measure) -> str:
    return f"{measure.site} {measure.rule.action}"


def _name(measure: Measure) -> str:
    return f"rule {measure.rule.name}, {measure.rule.action}"


def _describe(measure: Measure) -> str:
    return f"{_name(measure)}, after: {measure.reply}"
