"""Limits of senders and destinations in the simulation: used to the full, never exceeded, and in nobody's way."""

import pytest
from scenario import SITE, run, scenario
from sim_plan import HOME, Plan
from sim_run import Run
from sim_site import Temper

from smarthost.policy.limits import Limit, LimitMatch

RATES = {"30/min": (30, 60.0), "2/s,max_burst=5": (2, 1.0), "300/h": (300, 3600.0)}


def times(found: Run, what: str) -> list[float]:
    """Give when the sender's or destination's cells were taken, in seconds since the beginning."""
    return [at - found.clock.began for at in found.oracle.taken.get(what, [])]


def restrained(match: LimitMatch, mails: int, names: tuple[str, ...] = ("ann",), **limits: object) -> Plan:
    """Plan mail that comes at once, for a quick site, with one limit for a part of the mail."""
    temper = Temper()
    temper.latency, temper.think = 0.05, 0.05
    plan = scenario(temper, [(1.0, names)] * mails)
    plan.limits.append(Limit(match, number=1, **limits))  # type: ignore[arg-type]
    return plan


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("match", [LimitMatch(sender_domain=HOME), LimitMatch(destination="site.*")])
@pytest.mark.parametrize("bound", [None, 6])
def test_a_restraint_that_binds_is_used(rate: str, match: LimitMatch, bound: int | None) -> None:
    """With more mail than a limit lets go, 95 % of that does, and the oracle sees no more; in little memory, too."""
    count, period = RATES[rate]
    plan = restrained(match, 700, message_rate=(rate,))
    if bound is not None:
        plan.bounds = {"QUEUE_BOUND": bound, "CROWDED_BOUND": 2, "TOTAL_BOUND": 60}
    found = run(plan)
    name = f"messages sender_domain={HOME}" if match.sender_domain else f"messages destination={SITE}"
    taken = times(found, name)
    if period >= 3600.0:
        assert len([at for at in taken if at < 1800.0]) >= 0.95 * count
    else:
        whole = min(taken[-1], 1800.0) - taken[0]
        assert len(taken) >= 0.95 * whole * count / period


def test_recipients_are_counted_too() -> None:
    """Three recipients count as three, in one transaction if they may go together."""
    found = run(
        restrained(LimitMatch(destination=SITE), 60, ("ann", "bob", "cat"), recipient_rate=("2/s,max_burst=3",))
    )
    taken = times(found, f"recipients destination={SITE}")
    assert len(taken) >= 180 and taken[179] - taken[0] <= 180 / 2 / 0.95


@pytest.mark.parametrize("seed", range(4))
def test_restraints_hold_over_crashes(seed: int) -> None:
    """Whenever the relay crashes, no window has more in it than the quota; most of it is used all the same."""
    plan = restrained(LimitMatch(sender_domain=HOME), 500, message_rate=("300/h", "5/s"))
    plan.crashes = [(20.0 + seed, 0.0), (40.0 + 3 * seed, 2.0), (300.0, 0.0)]
    found = run(plan, seed)
    taken = [at for at in times(found, f"messages sender_domain={HOME}") if at < 3000.0]
    assert 300 * (1 - 3 / 32) * 0.95 <= len(taken) <= 300
