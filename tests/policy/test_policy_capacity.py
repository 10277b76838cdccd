"""Capacity: how many recipients a site takes at once is learned from its refusals, and tried again with care."""

from smarthost.policy.capacity import FIRST_TRIAL, REMEMBERED, Capacity

NOW = 1_800_000_000.0


def test_what_was_refused_is_not_asked_again() -> None:
    """The number that was taken holds for a day from the last refusal on; our own limit stays where it is lower."""
    capacity = Capacity()
    assert capacity.within(100, NOW) == 100
    capacity.refused(20, NOW)
    assert (capacity.within(100, NOW + 10), capacity.within(5, NOW + 10)) == (20, 5)
    assert capacity.within(100, NOW + REMEMBERED - 1) == 20
    assert capacity.within(100, NOW + REMEMBERED) == 100 and capacity.most == 0


def test_it_is_raised_by_a_quarter_after_a_while() -> None:
    """Only a transaction that used all of it raises it, once an hour at the most."""
    capacity = Capacity()
    capacity.refused(20, NOW)
    capacity.took(20, NOW + FIRST_TRIAL - 1)
    capacity.took(19, NOW + FIRST_TRIAL)
    assert capacity.most == 20
    capacity.took(20, NOW + FIRST_TRIAL)
    capacity.took(25, NOW + FIRST_TRIAL + 1)
    assert capacity.within(100, NOW + FIRST_TRIAL + 1) == 25
    capacity.refused(2, NOW)
    capacity.took(2, NOW + 2 * FIRST_TRIAL)
    assert capacity.most == 3


def test_trials_that_are_refused_become_rare() -> None:
    """After each trial that fails the next one comes twice as late, at most eight hours later."""
    capacity, now, waits = Capacity(), NOW, []
    capacity.refused(20, now)
    for _ in range(6):
        waits.append(next(hour for hour in range(1, 24) if _is_raised(capacity, now + hour * FIRST_TRIAL)))
        now += waits[-1] * FIRST_TRIAL
        capacity.refused(20, now)
    assert waits == [1, 2, 4, 8, 8, 8]


def _is_raised(capacity: Capacity, now: float) -> bool:
    capacity.took(20, now)
    return capacity.most > 20
