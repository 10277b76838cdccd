"""Retries, warnings and expiry, as literal lists of seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.mail.envelope import Pace
from smarthost.policy.backoff import Retry, at_pace, deadline, lifetime, next_attempt


def test_the_schedule_is_the_contracts() -> None:
    """Delays are those of the contract, and the last repeats."""
    delays = [next_attempt(Retry(), attempts, 1000.0, 0.0) - 1000.0 for attempts in range(1, 10)]
    assert delays == [300, 600, 1200, 2400, 3600, 7200, 14400, 14400, 14400]


def test_the_whole_life_of_a_message() -> None:
    """In five days a message is tried 35 times: at once, then on the schedule."""
    now, attempts, times = 0.0, 0, []
    while now < lifetime(Retry(), report=False):
        times.append(now)
        attempts += 1
        now = next_attempt(Retry(), attempts, now, 0.0)
    assert times[:8] == [0, 300, 900, 2100, 4500, 8100, 15300, 29700]
    assert len(times) == 35


@pytest.mark.parametrize(("jitter", "delay"), [(-1.0, 255.0), (0.0, 300.0), (1.0, 345.0)])
def test_jitter_is_fifteen_per_cent(jitter: float, delay: float) -> None:
    """Chance moves a delay by 15 % at most."""
    assert next_attempt(Retry(), 1, 0.0, jitter) == pytest.approx(delay)


@given(st.integers(0, 10_000), st.floats(-1, 1), st.floats(0, 2e9))
def test_the_next_attempt_is_always_later(attempts: int, jitter: float, now: float) -> None:
    """No count of attempts and no chance makes a retry at once."""
    assert next_attempt(Retry(), attempts, now, jitter) >= now + 254


def test_deadlines_are_warnings_then_expiry() -> None:
    """An entry needs a look at each warning's age, then when it expires."""
    retry = Retry(delay_warning=(14400.0, 86400.0))
    assert [deadline(retry, 100.0, 432100.0, warned) for warned in range(4)] == [14500, 86500, 432100, 432100]


def test_a_warning_after_the_expiry_does_not_put_it_off() -> None:
    """Expiry comes first when a warning would be later."""
    assert deadline(Retry(delay_warning=(7200.0,)), 0.0, 3600.0, 0) == 3600.0


def test_reports_live_shorter() -> None:
    """Reports are given up after two days, other mail after five."""
    assert (lifetime(Retry(), report=True), lifetime(Retry(), report=False)) == (172800.0, 432000.0)


def test_a_message_may_have_a_pace_of_its_own() -> None:
    """What its sender said takes the place of the relay's; what was not said stays, and so do the warnings."""
    retry = Retry(schedule=(300.0,), lifetime=500.0)
    assert at_pace(retry, None) is retry
    assert at_pace(retry, Pace((1.0, 2.0))) == Retry(schedule=(1.0, 2.0), lifetime=500.0)
    assert at_pace(retry, Pace(lifetime=60.0)) == Retry(schedule=(300.0,), lifetime=60.0)
