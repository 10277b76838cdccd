"""Draws what else a world has beside its plan: TLS, tokens, rules on replies, hints, suppression, 8-bit mail."""

from dataclasses import replace
from random import Random

from sim_plan import ARRIVING, HOME, WELL, Mail, Plan, _add_site, _spans, draw
from sim_site import Temper

from smarthost.mail.envelope import Priority
from smarthost.mail.outcome import Stage
from smarthost.mail.route import TlsLevel
from smarthost.policy.automation import AutomationRule, Remedy, ReplyMatch
from smarthost.policy.conversion import Conversion, Conversions
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.rate import Rate
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules

ASIDE = "aside.example"


def draw_world(seed: int) -> Plan:
    """Draw a run. What each part draws does not depend on the others, so that a new one leaves the old ones alone."""
    rng = Random(f"binding {seed}")
    if rng.random() < 0.1:
        return _draw_binding(rng)
    plan = draw(seed)
    for chance, part in (
        (0.35, _draw_tls),
        (0.6, _draw_tokens),
        (0.35, _draw_rules),
        (0.3, _draw_hints),
        (0.25, _draw_suppression),
        (0.3, _draw_script),
        (0.2, _draw_users_limits),
    ):
        rng = Random(f"{part.__name__} {seed}")
        if rng.random() < chance:
            part(rng, plan)
    return plan


def _draw_binding(rng: Random) -> Plan:
    """Draw a calm world in which there is more mail for healthy sites than their limits let go (`sim_use.py`)."""
    plan = Plan()
    _add_site(plan, HOME, [HOME], [1], Temper())
    domains = []
    for number in range(rng.randint(1, 2)):
        temper = Temper()
        temper.latency, temper.think = rng.choice((0.0005, 0.01, 0.05)), rng.choice((0.0001, 0.01))
        temper.pipelining, temper.chunking = rng.random() < 0.7, rng.choice(("", "reads", "keeps"))
        name = f"s{number}.example"
        hosted = [name, *(f"also{n}.{name}" for n in range(rng.choice((0, 1, 2))))]
        _add_site(plan, name, hosted, [rng.randint(1, 2)], temper)
        domains += hosted
        rate = rng.choice((None, ("30/min",), ("2/s,max_burst=3",), ("1/s", "120/h"), ("40/h",)))
        people = rng.choice((None, None, ("90/min",), ("1/s,max_burst=4",)))
        if rate or people:
            match = LimitMatch(site=f"mx0.{name}")
            most = rng.choice((None, 2, 5))
            plan.limits.append(Limit(match, message_rate=rate, recipient_rate=people, max_connections=most))
        if rng.random() < 0.5:
            match = LimitMatch(destination=rng.choice((hosted[-1], f"*{name}")))
            plan.limits.append(
                Limit(match, message_rate=rng.choice((("20/min",), ("1/s,max_burst=3", "60/h"), ("90/h",))), number=9)
            )
    for number in range(rng.choice((100, 200, 300))):
        at = rng.uniform(0.0, rng.choice((1.0, 60.0, 300.0)))
        people = rng.sample(("ann", "bob", "cat", "dan"), rng.choice((1, 1, 1, 2)))
        domain = rng.choice(domains)
        recipients = tuple(f"{person}@{domain}" for person in people)
        priority = rng.choice((Priority.MEDIUM, Priority.MEDIUM, Priority.LOW, Priority.HIGH))
        plan.mails.append(Mail(number, at, f"ann@{HOME}", recipients, 0, 100, rng.choice(("app1", "app2")), priority))
    plan.mails = [replace(each, number=number) for number, each in enumerate(sorted(plan.mails, key=lambda m: m.at))]
    if rng.random() < 0.3:
        plan.bounds = {"QUEUE_BOUND": 6, "CROWDED_BOUND": 2, "TOTAL_BOUND": 60}
    return plan


def _draw_tls(rng: Random, plan: Plan) -> None:
    """Levels of TLS, hosts that cope with it more or less, and domains with an MTA-STS policy."""
    plan.tls = rng.choice((TlsLevel.MAY, TlsLevel.MAY, TlsLevel.MAY, TlsLevel.ENCRYPT, TlsLevel.VERIFY))
    for site in plan.sites:
        temper = site.temper
        if site.name in (HOME, WELL):
            temper.tls = "trusted"
        elif not temper.old:
            temper.tls = rng.choice(("", "trusted", "trusted", "strange", "broken", "hangs", "refused"))
        temper.requiretls = site.name in (HOME, WELL) or rng.random() < 0.5
    if rng.random() < 0.4:
        plan.mails = [
            replace(mail, requiretls=True) if rng.random() < 0.2 and mail.reverse_path else mail for mail in plan.mails
        ]
    if plan.dns_outages or plan.moves or plan.relayhosts or rng.random() < 0.4:
        return
    for site in plan.sites[2:]:
        if rng.random() < 0.6:
            host = f"mx0.{site.name}"
            pattern = rng.choice((host, f"*.{site.name}", "mx9.other.example"))
            policy = rng.choice(("enforce", "enforce", "testing")), pattern
            hosted = [domain for domain, hosts in plan.exchangers.items() if hosts[0][1] == host]
            # Those without it go to the same hosts by a site of their own, which shares the limits.
            plan.sts |= dict.fromkeys(rng.sample(hosted, rng.randint(1, len(hosted))), policy)


def _draw_tokens(rng: Random, plan: Plan) -> None:
    """Logins by tokens that expire, are revoked, and cannot be had for a while."""
    wanting = [site.temper for site in plan.sites if site.temper.wants_login]
    if not wanting:
        return
    for temper in wanting:
        temper.by_token = True
    plan.token_lifetime = rng.choice((60.0, 300.0, 3600.0))
    if rng.random() < 0.4:
        plan.token_outages = _spans(rng, rng.randint(1, 3), 300.0)
    if rng.random() < 0.5:
        plan.revocations = sorted(rng.uniform(0.0, ARRIVING) for _ in range(rng.randint(1, 4)))


def _draw_rules(rng: Random, plan: Plan) -> None:
    """Rules on what sites say, with thresholds and durations, some about one stage or one site."""
    site = rng.choice(plan.sites[2:]).name
    made = {
        "busy": (r"4\.3\.2", Remedy.SUSPEND),
        "full": (r"\b452\b.*full", Remedy.SUSPEND),
        "slow": (r"4\.7\.1", Remedy.SLOW_DOWN),
        "later": (r"4\.3\.0 later", Remedy.SLOW_DOWN),
        "enough": (r"4\.5\.3 enough", Remedy.SUSPEND),
        "give up": (r"451 4\.3\.0", Remedy.FAIL),
        "no": (r"5\.7\.1 no", Remedy.DEFER),
        "aside": (r"4\.7\.1|4\.3\.2", Remedy.SWITCH_ROUTE),
    }
    for name in rng.sample(list(made), rng.randint(1, 4)):
        reply, action = made[name]
        is_measure = action in (Remedy.SUSPEND, Remedy.SLOW_DOWN, Remedy.SWITCH_ROUTE)
        match = ReplyMatch(
            reply,
            rng.choice(("", "", "", f"*.{site}")),
            stage=rng.choice((None, None, None, Stage.RCPT, Stage.MAIL)) if is_measure else None,
        )
        slow = (Rate(20, 60.0), *((Rate(2, 60.0, 3),) if rng.random() < 0.3 else ()))
        plan.rules.append(
            AutomationRule(
                name,
                match,
                action,
                duration=rng.choice((30.0, 120.0, 400.0)),
                threshold=rng.choice((None, None, Rate(3, 60.0), Rate(5, 600.0))),
                message_rate=slow if action is Remedy.SLOW_DOWN else (),
                max_connections=rng.choice((None, 1)) if action is Remedy.SLOW_DOWN else None,
                route="aside" if action is Remedy.SWITCH_ROUTE else "",
            )
        )
    if any(rule.route for rule in plan.rules):
        plan.aside = ASIDE
        temper = Temper()
        temper.tls = "trusted" if plan.tls is not TlsLevel.NONE else ""
        temper.refusals = rng.choice((0.0, 0.0, 0.2))
        _add_site(plan, ASIDE, [], [1], temper)


def _draw_hints(rng: Random, plan: Plan) -> None:
    """Greylisting that says when to come back."""
    for site in plan.sites[2:]:
        if site.temper.greylist:
            site.temper.hint = rng.choice((", try again in 90 seconds", ", please retry in 5 minutes", " for 2 hours"))


def _draw_suppression(rng: Random, plan: Plan) -> None:
    """The suppression list, and more recipients that there are not."""
    plan.suppression = SuppressionRules(
        enabled=True, at=SuppressionPoint.SEND, after=rng.choice((1, 2, 3)), ignore=rng.choice((("5.7",), ()))
    )
    people = sorted({recipient for mail in plan.mails for recipient in mail.recipients})
    for person in people:
        if not person.endswith((f"@{HOME}", f"@{WELL}")) and rng.random() < 0.1:
            refusal = rng.choice((b"550 5.1.1 no such user", b"550 5.2.1 mailbox disabled", b"550 no"))
            plan.refusals[person] = rng.choice((100.0, 300.0, 1e9)), refusal


def _draw_script(rng: Random, plan: Plan) -> None:
    """Mail with octets above 127, and hosts that do not take it."""
    plan.conversion = Conversions(
        rng.choice((Conversion.CONVERT, Conversion.CONVERT, Conversion.FAIL)),
        rng.choice((Conversion.CONVERT, Conversion.CONVERT, Conversion.FAIL)),
    )
    for site in plan.sites[2:]:
        site.temper.eight_bit_mime, site.temper.smtputf8 = rng.random() < 0.5, rng.random() < 0.6
    plan.mails = [
        replace(mail, script=rng.choice(("body", "header"))) if rng.random() < 0.4 else mail for mail in plan.mails
    ]


def _draw_users_limits(rng: Random, plan: Plan) -> None:
    """Limit one of the users, or each of them, or the senders' domain."""
    match = rng.choice((LimitMatch(user="app1"), LimitMatch(user="app*"), LimitMatch(sender_domain=HOME)))
    plan.limits.append(
        Limit(
            match,
            message_rate=rng.choice((None, ("30/min",), ("1/s,max_burst=3", "60/h"), ("90/h",))),
            recipient_rate=rng.choice((None, ("1/s,max_burst=4",), ("120/h",))),
            max_connections=rng.choice((None, 1, 2)),
            number=len(plan.limits) + 1,
        )
    )
