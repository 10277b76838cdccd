"""Nobody starves: low priorities, small users and old mail get their share of a site that is never idle."""

import pytest
from scenario import run, scenario
from sim_run import Run
from sim_site import Temper

from smarthost.mail.envelope import Priority

LITTLE = {"QUEUE_BOUND": 6, "CROWDED_BOUND": 2, "TOTAL_BOUND": 60}


def ends_of(found: Run) -> dict[str, float]:
    """Give when each recipient was relayed, in seconds since the beginning."""
    return {
        values[1].partition("@")[0]: at
        for at, text, values in found.world.trace
        if text.startswith("%s to %s:") and values[2] == "relayed"
    }


@pytest.mark.parametrize("bounds", [{}, LITTLE], ids=["", "little memory"])
def test_low_mail_has_its_share(bounds: dict[str, int]) -> None:
    """While more high mail comes than a site takes, a low message is passed over 16 times, and then goes."""
    high = [(float(n), (f"h{n}",), "app1", Priority.HIGH) for n in range(1, 900)]
    low = [(10.0, (f"l{n}",), "app1", Priority.LOW) for n in range(10)]
    plan = scenario(Temper(), sorted(high + low), message_rate=("30/min",))
    plan.bounds = bounds
    ends = ends_of(run(plan))
    for number in range(10):
        # 17 places of 2 s each; what is read from disk may have to wait for those before it in memory.
        assert ends[f"l{number}"] < 10.0 + (number + 2) * 17 * 2.0


@pytest.mark.parametrize("bounds", [{}, LITTLE], ids=["", "little memory"])
def test_urgent_mail_does_not_wait_for_a_crowd(bounds: dict[str, int]) -> None:
    """A message of the highest priority goes out at once, though hundreds wait for the same site."""
    crowd = [(1.0, (f"m{n}",), "app1", Priority.MEDIUM) for n in range(600)]
    urgent = [(float(at), (f"u{at}",), "app1", Priority.IMMEDIATE) for at in (60, 120, 300)]
    plan = scenario(Temper(), sorted(crowd + urgent), message_rate=("30/min",))
    plan.bounds = bounds
    ends = ends_of(run(plan))
    for at in (60, 120, 300):
        assert ends[f"u{at}"] < at + 10.0


@pytest.mark.parametrize("bounds", [{}, LITTLE], ids=["", "little memory"])
def test_one_message_does_not_wait_for_another_users_crowd(bounds: dict[str, int]) -> None:
    """A user with one message has the next turn, though another one has hundreds for the same site."""
    crowd = [(1.0, (f"m{n}",), "app1", Priority.MEDIUM) for n in range(600)]
    single = [(float(at), (f"s{at}",), "app2", Priority.MEDIUM) for at in (60, 120, 300)]
    plan = scenario(Temper(), sorted(crowd + single), message_rate=("30/min",))
    plan.bounds = bounds
    ends = ends_of(run(plan))
    for at in (60, 120, 300):
        assert ends[f"s{at}"] < at + 10.0


@pytest.mark.parametrize("bounds", [{}, LITTLE], ids=["", "little memory"])
def test_old_mail_goes_before_new(bounds: dict[str, int]) -> None:
    """Within one user and one priority, what came first goes first, to a site that is never idle."""
    plan = scenario(Temper(), [(float(n), (f"m{n}",)) for n in range(1, 300)], message_rate=("30/min",))
    plan.bounds = bounds
    ends = ends_of(run(plan))
    # The queue grows by half of what comes, so each waits a second longer than the one before it.
    assert all(ends[f"m{n}"] - n < n + 5.0 for n in range(1, 300))
