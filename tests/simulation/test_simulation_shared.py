"""Sites that differ in what they demand of TLS share the connections of their hosts, in the simulation."""

from dataclasses import replace

import pytest
from scenario import SITE, run, scenario
from sim_plan import Plan
from sim_run import Run
from sim_site import Temper

from smarthost.delivery.places import Claimant, Place
from smarthost.delivery.sharing import Sharing
from smarthost.mail.route import TlsLevel


def shared(most: int) -> Plan:
    """Plan a crowd for a host that is never idle, and some messages among it that need a session with REQUIRETLS."""
    temper = Temper()
    temper.tls, temper.requiretls, temper.think, temper.latency = "trusted", True, 0.5, 0.05
    plan = scenario(temper, [(1.0 + number / 100, ("ann",)) for number in range(200)], max_connections=most)
    plan.tls = TlsLevel.MAY
    plan.mails = [replace(mail, requiretls=mail.number % 20 == 10) for mail in plan.mails]
    return plan


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_limit_holds_for_all_demands_together(most: int) -> None:
    """No more connections are open than the limit says, all that it allows are, and the few have their turn soon."""
    found = run(shared(most))
    site = next(site for site in found.plan.sites if site.name == SITE)
    assert found.world.most_open[SITE] == most == site.limits.max_connections
    ends = {values[0]: at for at, text, values in found.world.trace if text.startswith("%s to %s:")}
    last = max(ends[f"m{mail.number}"] for mail in found.plan.mails if mail.requiretls)
    assert last < 60.0 < max(ends.values()), "they wait for turns, and not until the crowd has gone"


def test_a_limit_for_each_demand_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle blames an engine in which each demand has the limit for itself."""
    take = Sharing.take

    def take_alone(self: Sharing, claimant: Claimant, hosts: str, most: int) -> Place | None:
        return take(self, claimant, f"{hosts} {id(claimant)}", most)

    monkeypatch.setattr(Sharing, "take", take_alone)
    assert any("2 are allowed" in fault for fault in Run(1, shared(2)).go().faults)
