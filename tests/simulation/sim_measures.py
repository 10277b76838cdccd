"""What must be true of rules on replies, hints and the suppression list, by the oracle's own book-keeping."""

import re
from collections.abc import Callable

from sim_loop import Clock
from sim_plan import Plan
from sim_site import Site

from smarthost.mail.event import Event, Kind
from smarthost.policy.automation import AutomationRule, Remedy
from smarthost.policy.suppression import SUPPRESSED_ON_SEND

LATE = 5.0  # seconds after which a measure that is over must have ended
UNDER_WAY = 1000.0  # seconds that a reply may take to the relay, tarpits included
_HINT = re.compile(r"(?:in|for) (\d+) (seconds|minutes|hours)")
_UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}


class Measures:
    """Keeps what rules have put in force, who was told when to come back, and who is suppressed."""

    def __init__(self, clock: Clock, plan: Plan, blame: Callable[[str], None]) -> None:
        """Begin with nothing in force."""
        self._clock, self._plan, self._blame = clock, plan, blame
        self._rules = {rule.name: rule for rule in plan.rules}
        self.in_force: dict[tuple[str, Remedy], tuple[AutomationRule, float]] = {}
        self.hints: dict[tuple[int, str], float] = {}
        self.refused: set[str] = set()  # who has been refused for good, ever
        self.suppressed: dict[str, float] = {}
        self.sites: dict[str, tuple[Site, ...]] = {}
        self.begun = self.hinted = 0
        self.withheld: dict[str, None] = {}  # whose mail failed because they are suppressed

    def heard(self, event: Event) -> None:
        """Take an event of the feed: a measure begins or ends."""
        if event.event is Kind.FAILED and event.reply != SUPPRESSED_ON_SEND:
            self.refused.add(event.recipient)
        found = re.match(r"rule (.+?), (\w+)", event.reply)
        if event.event not in (Kind.SUSPENDED, Kind.SLOWED, Kind.SWITCHED, Kind.RESUMED) or not found:
            return
        rule = self._rules[found[1]]
        if event.event is Kind.RESUMED:
            self.in_force.pop((event.site, rule.action), None)
            return
        self.begun += 1
        self.in_force[event.site, rule.action] = rule, self._clock()
        pattern, many = re.compile(rule.match.reply, re.IGNORECASE), rule.threshold.count if rule.threshold else 1
        period = rule.threshold.period if rule.threshold else 0.0
        given = [refusal for site in self.sites.get(event.site, ()) for refusal in site.refusals]
        since = self._clock() - period - UNDER_WAY
        if sum(at > since and bool(pattern.search(text.decode())) for at, text in given) < many:
            self._blame(f"rule {rule.name} acts at {event.site}, which has not said so {many} times")

    def ended(self) -> None:
        """Forget what is not kept over a crash or a reload: measures; where it was a crash, hints may be forgotten."""
        self.in_force.clear()

    def look(self) -> None:
        """See whether each measure ends in its time."""
        for (site, action), (rule, since) in self.in_force.items():
            if self._clock() > since + rule.duration + LATE:
                self._blame(
                    f"{site} is still {action} by rule {rule.name}, {self._clock() - since:.0f} s after it began"
                )

    def tried(self, message: int, arrived: float, recipient: str, site: str) -> None:
        """Take a recipient of a transaction that begins."""
        now = self._clock()
        rule, since = self.in_force.get((site, Remedy.SUSPEND), (None, 0.0))
        if rule is not None and now < since + rule.duration:
            self._blame(f"{site} is given mail, though rule {rule.name} suspends it")
        if now < self.hints.get((message, recipient), 0.0):
            self._blame(
                f"{recipient} is tried {self.hints[message, recipient] - now:.1f} s before the time that was named"
            )
        if arrived > self.suppressed.get(recipient, float("inf")):
            self._blame(f"{recipient} is on the suppression list, and is tried")

    def told(self, event: Event) -> None:
        """Take an event that is on disk, about a recipient of somebody's message."""
        kind, person = event.event, event.recipient
        if kind is Kind.DELAYED and (found := _HINT.search(event.reply)) and not (self._plan.acts or self._plan.aside):
            self.hinted += 1
            self.hints[event.message, person] = event.time + float(found[1]) * _UNITS[found[2]]
        if kind is Kind.RELAYED:
            self.suppressed.pop(person, None)
        if kind is not Kind.FAILED:
            return
        if event.reply == SUPPRESSED_ON_SEND:
            self.withheld[person] = None
            return
        self._look_at_verdict(event)
        if self._plan.suppression.enabled and event.status in ("5.1.1", "5.1.2"):
            self.suppressed[person] = self._clock()

    def finish(self) -> None:
        """See, at the end, whether the suppressed had deserved it: a refusal is on disk a moment after it counts."""
        for person in self.withheld:
            if person not in self.refused or not self._plan.suppression.enabled:
                self._blame(f"{person} is suppressed, and has never been refused")

    def _look_at_verdict(self, event: Event) -> None:
        """A 4yz fails nobody and a 5yz is not put off, unless a rule says so."""
        text = f"{event.code} {event.status} {event.reply}"
        rules = [rule for rule in self._plan.rules if re.search(rule.match.reply, text, re.IGNORECASE)]
        if 400 <= event.code < 500 and not any(rule.action is Remedy.FAIL for rule in self._plan.rules):
            self._blame(f"{event.recipient} failed by {event.reply}, and no rule says so")
        first = rules[0] if rules else None
        is_put_off = first is not None and first.action is Remedy.DEFER and not (first.threshold or first.match.site)
        if event.code >= 500 and is_put_off:
            self._blame(f"{event.recipient} failed by {event.reply}, which a rule puts off")
