"""Turns: who is served next by priority, as literal orders."""

from smarthost.mail.envelope import RANKS, Priority
from smarthost.policy.fairness import PATIENCE, Turns


def serve(waiting: list[int], times: int, turns: Turns | None = None) -> str:
    """Serve some times and spell the ranks: i, h, m, l."""
    turns = turns or Turns()
    served = ""
    for _ in range(times):
        rank = turns.choose(waiting)
        if rank < 0:
            break
        waiting[rank] -= 1
        turns.took(rank, waiting)
        served += "ihml"[rank]
    return served


def test_ranks_follow_the_priorities() -> None:
    """Immediate mail is rank 0 and low mail the last one, and each rank has its patience."""
    assert [RANKS[each] for each in (Priority.IMMEDIATE, Priority.HIGH, Priority.MEDIUM, Priority.LOW)] == [0, 1, 2, 3]
    assert len(PATIENCE) == len(RANKS)


def test_a_higher_rank_goes_first() -> None:
    """Few urgent ones go before all others, and the rest by its ranks."""
    assert serve([2, 2, 2, 2], 99) == "iihhmmll"


def test_no_rank_is_passed_over_for_ever() -> None:
    """While urgent mail never ends, each lower rank is served after it was passed over as often as its patience is."""
    assert serve([0, 99, 0, 9], 36) == "h" * 16 + "l" + "h" * 16 + "l" + "hh"
    served = serve([9999, 9999, 9999, 9999], 1000)
    assert min(served.count(each) for each in "ihml") >= 1000 // 18 - 1
    assert served.count("i") > 600


def test_mail_that_becomes_urgent_does_not_wait() -> None:
    """However much low mail has been served, or has been passed over: a newcomer of a higher rank is next, or next but
    one."""
    turns = Turns()
    serve([0, 0, 0, 500], 500, turns)
    assert serve([1, 0, 0, 500], 3, turns) == "ill"
    serve([0, 16, 0, 500], 16, turns)
    assert serve([1, 0, 0, 500], 3, turns) == "lil"


def test_nobody_waits() -> None:
    """Where nobody waits there is no rank to serve."""
    assert Turns().choose([0, 0, 0, 0]) == -1
