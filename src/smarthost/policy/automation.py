"""Decides what a peer's words lead to: rules on replies, of which the first that matches wins."""

import re
from collections import deque
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.mail.route import Site
from smarthost.policy.limits import is_about, site_pattern
from smarthost.policy.rate import Rate

DURATION = 3600.0  # seconds for which a measure is in force unless the rule says otherwise
MOST_TEXT = 2000  # characters of a reply that are looked at; providers say what matters in the first line or two

MOST_SITES = 1000  # for which it is remembered which rules are about them


class Remedy(StrEnum):
    """What a rule does; the first three are measures for a site, in force for a time."""

    SUSPEND = "suspend"
    SLOW_DOWN = "slow_down"
    SWITCH_ROUTE = "switch_route"
    FAIL = "fail"
    DEFER = "defer"


MEASURES = frozenset({Remedy.SUSPEND, Remedy.SLOW_DOWN, Remedy.SWITCH_ROUTE})


class ReplyMatch(msgspec.Struct, frozen=True):
    """Which replies a rule is about; "" and None do not restrict.

    `reply` is a regular expression that is searched, in any case, in code, enhanced status and text joined by spaces;
    `site` is a glob, or a suffix, of an MX host's name; `route` is a route's name.
    """

    reply: str
    site: str = ""
    route: str = ""
    stage: Stage | None = None


class AutomationRule(msgspec.Struct, frozen=True):
    """One rule as configured; `name` is for people.

    `threshold` is how many such replies of a site, in its period, it takes (None: one is enough); `duration` is in
    seconds. `message_rate` and `max_connections` are for SLOW_DOWN, `route` is the name of SWITCH_ROUTE's route.
    """

    name: str
    match: ReplyMatch
    action: Remedy
    duration: float = DURATION
    threshold: Rate | None = None
    message_rate: tuple[Rate, ...] = ()
    max_connections: int | None = None
    route: str = ""


class Measure(msgspec.Struct, frozen=True):
    """What is in force at a site: the rule that says so, the reply that led to it, and its Unix times."""

    rule: AutomationRule
    site: str
    reply: str
    since: float
    until: float


class Finding(msgspec.Struct, frozen=True):
    """What a reply led to: the rule that acts, and the measure that it puts in force now, if it does."""

    rule: AutomationRule
    begun: Measure | None = None


class Automation:
    """All rules, and what is in force until when. Mutable, pure; times are Unix seconds.

    The first rule that matches a reply wins, even while its threshold is not reached, when nothing happens. A site has
    one measure of a kind at most: it runs to its end, and replies do not make it longer.
    """

    def __init__(self, rules: Iterable[AutomationRule] = ()) -> None:
        """Compile the rules; raises re.error when a regular expression is none."""
        self._measures: dict[tuple[str, Remedy], Measure] = {}
        self._hits: dict[tuple[str, str], deque[float]] = {}  # by site and rule, as many as the threshold counts
        self._rows: tuple[_Row, ...] = ()
        self._rows_of: dict[str, tuple[Site, tuple[_Row, ...]]] = {}  # by site: what is about others is not asked again
        self.replace(rules)

    def replace(self, rules: Iterable[AutomationRule]) -> list[Measure]:
        """Follow new rules; measures of rules that are not among them any more end, and are given."""
        kept = tuple(rules)
        self._rows = tuple(_Row(rule) for rule in kept)
        self._rows_of = {}
        self._periods = {rule.name: rule.threshold.period for rule in kept if rule.threshold is not None}
        self._hits = {key: hits for key, hits in self._hits.items() if key[1] in self._periods}
        return self._end(measure for measure in self._measures.values() if measure.rule not in kept)

    def restore(self, measures: Iterable[Measure], now: float) -> list[Measure]:
        """Go on with measures of a life before; gives those that are not in force: over, or of no rule any more."""
        left = []
        rules = [row.rule for row in self._rows]
        for measure in measures:
            # A clock that was ahead does not make it longer than its rule says.
            until = min(measure.until, now + measure.rule.duration)
            if measure.rule in rules and until > now:
                key = measure.site, measure.rule.action
                self._measures[key] = msgspec.structs.replace(measure, until=until)
            else:
                left.append(measure)
        return left

    @property
    def has_rules(self) -> bool:
        """Whether any reply can lead to anything."""
        return bool(self._rows)

    def observe(self, site: Site, stage: Stage, reply: Reply, now: float) -> Finding | None:
        """Take a refusal that a site gave just now; None when it leads to nothing."""
        if rows := self._rows_for(site):
            text = str(reply)[:MOST_TEXT]
            for row in rows:
                if row.is_about(stage, text):
                    return self._act(row.rule, site.name, text, now)
        return None

    def in_force(self, site: str, now: float) -> list[Measure]:
        """Give the measures that hold for a site now."""
        found = [
            self._measures.get((site, remedy)) for remedy in (Remedy.SUSPEND, Remedy.SLOW_DOWN, Remedy.SWITCH_ROUTE)
        ]
        return [measure for measure in found if measure is not None and measure.until > now]

    def lift(self, site: str, remedy: Remedy) -> Measure | None:
        """End a measure before its time; gives it, None when there is none."""
        return self._measures.pop((site, remedy), None)

    def ended(self, now: float) -> list[Measure]:
        """Give each measure whose time is over, once; forget replies that are too old to count."""
        for key in [key for key, hits in self._hits.items() if hits[-1] + self._periods[key[1]] <= now]:
            del self._hits[key]
        return self._end(measure for measure in self._measures.values() if measure.until <= now)

    def _rows_for(self, site: Site) -> "tuple[_Row, ...]":
        known = self._rows_of.get(site.name)
        if known is not None and known[0] is site:
            return known[1]
        if len(self._rows_of) >= MOST_SITES:
            self._rows_of.clear()
        rows = tuple(row for row in self._rows if row.is_of(site))
        self._rows_of[site.name] = site, rows
        return rows

    def _act(self, rule: AutomationRule, site: str, text: str, now: float) -> Finding | None:
        if (site, rule.action) in self._measures and self._measures[site, rule.action].until > now:
            return Finding(rule)
        if rule.threshold is not None and not self._is_reached(rule.threshold, (site, rule.name), now):
            return None
        if rule.action not in MEASURES:
            return Finding(rule)
        self._hits.pop((site, rule.name), None)
        measure = self._measures[site, rule.action] = Measure(rule, site, text, now, now + rule.duration)
        return Finding(rule, measure)

    def _is_reached(self, threshold: Rate, key: tuple[str, str], now: float) -> bool:
        hits = self._hits.get(key)
        if hits is None:
            hits = self._hits[key] = deque(maxlen=threshold.count)
        hits.append(now)
        return len(hits) == threshold.count and hits[0] > now - threshold.period

    def _end(self, measures: Iterable[Measure]) -> list[Measure]:
        over = list(measures)
        for measure in over:
            del self._measures[measure.site, measure.rule.action]
        return over


class _Row:
    """A rule whose patterns are compiled; None stands for a site that does not restrict."""

    def __init__(self, rule: AutomationRule) -> None:
        self.rule = rule
        self._reply = re.compile(rule.match.reply, re.IGNORECASE)
        self._site = site_pattern(rule.match.site)

    def is_of(self, site: Site) -> bool:
        route = self.rule.match.route
        if self.rule.action is Remedy.SWITCH_ROUTE and self.rule.route == site.route.name:
            return False  # its mail is there already, and a way to itself would end all ways that lead there
        return (not route or route == site.route.name) and (self._site is None or is_about(self._site, site))

    def is_about(self, stage: Stage, text: str) -> bool:
        wanted = self.rule.match.stage
        return (wanted is None or wanted is stage) and self._reply.search(text) is not None


def amend(outcome: Outcome, rule: AutomationRule) -> Outcome:
    """Give the outcome of a refusal as a rule wants it: FAIL fails it; DEFER and SWITCH_ROUTE delay what has failed.

    What SWITCH_ROUTE delays is said to be about the host: it is to be tried elsewhere, and at once.
    """
    if rule.action is Remedy.FAIL:
        action, klass = Action.FAILED, 5
    elif rule.action in (Remedy.DEFER, Remedy.SWITCH_ROUTE):
        action, klass = Action.DELAYED, 4
    else:
        return outcome
    if outcome.action is action:
        return outcome
    status = EnhancedStatus(klass, outcome.status.subject, outcome.status.detail)
    reason = f"{outcome.reason} (rule {rule.name}: {rule.action})"
    scope = max(outcome.scope, Scope.HOST) if rule.action is Remedy.SWITCH_ROUTE else outcome.scope
    return msgspec.structs.replace(outcome, action=action, scope=scope, status=status, reason=reason)
