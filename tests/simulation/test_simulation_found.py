"""What the simulation found, each as the smallest run that shows it."""

from scenario import run, scenario
from sim_plan import LIFETIME
from sim_site import Temper


def test_what_a_rate_holds_back_expires_in_time() -> None:
    """Mail that waits in memory for a rate is found when its lifetime ends, though its site was not resolved since."""
    found = run(scenario(Temper(), [(1.0, ("ann",))] * 12, message_rate=("2/h",)))
    ends = [at for at, text, values in found.world.trace if text.startswith("%s to %s:") and values[2] == "expired"]
    assert len(ends) == 10
    assert max(ends) < LIFETIME + 20.0
