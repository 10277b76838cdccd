"""Runs that are written by hand: one site with a temper and a limit, and mail for it."""

from collections.abc import Sequence

from sim_plan import HOME, Mail, Plan, _add_site
from sim_run import Run
from sim_site import Temper

from smarthost.mail.envelope import Priority
from smarthost.policy.limits import Limit, LimitMatch

SITE = "site.example"


def scenario(
    temper: Temper,
    mails: Sequence[tuple[float, tuple[str, ...]] | tuple[float, tuple[str, ...], str, Priority]],
    refusals: dict[str, tuple[float, bytes]] | None = None,
    **limits: object,
) -> Plan:
    """Plan mail, each with its time of arrival and local-parts at the site, and who sends it, how urgently."""
    plan = Plan()
    _add_site(plan, HOME, [HOME], [1], Temper())
    _add_site(plan, SITE, [SITE], [1], temper)
    for number, (at, names, *more) in enumerate(mails):
        recipients = tuple(f"{name}@{SITE}" for name in names)
        plan.mails.append(Mail(number, at, f"ann@{HOME}", recipients, 0, 100, *more))
    plan.refusals = {f"{name}@{SITE}": refusal for name, refusal in (refusals or {}).items()}
    if limits:
        plan.limits.append(Limit(LimitMatch(site=f"mx0.{SITE}"), **limits))  # type: ignore[arg-type]
    return plan


def run(plan: Plan, seed: int = 1) -> Run:
    """Run a plan and expect nothing wrong."""
    found = Run(seed, plan).go()
    assert not found.faults, "\n".join([*found.faults, found.world.story(60)])
    return found


def taken(found: Run, what: str) -> list[float]:
    """Give when the site was given "messages" or "connections", in seconds since the beginning."""
    return [at - found.clock.began for at in found.oracle.taken.get(f"{what} mx/mx0.{SITE}", [])]
