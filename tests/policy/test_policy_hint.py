"""Hints in replies: which texts name a time, and when the next attempt is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.policy.backoff import Retry
from smarthost.policy.hint import find_hint, hinted_attempt

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again in 5 minutes", 300),
        ("retry after 300 seconds", 300),
        ("<a@example.net>: Recipient address rejected: Greylisted for 10 minutes", 600),
        ("Greylisting in action, please come back in 00:05:00", 300),
        ("Graylisted (wait 299 seconds)", 299),
        ("Please retry in 1800 secs.", 1800),
        ("try again later, in 1 hour and 30 minutes", 5400),
        ("wait 4m30s", 270),
        ("Try again in an hour", 3600),
        ("try again in one minute", 60),
        ("TRY AGAIN AFTER 2 HOURS", 7200),
        ("try again in 1.5 hours", 5400),
        ("delayed for 5 mins", 300),
        ("resubmit in 2 days", 172800),
        ("Retry-After: 300 sec", 300),
        ("", None),
        ("Greylisted, see http://postgrey.example/help/300.html", None),
        ("Please try again in a few hours and reduce the sending rate", None),
        ("too many messages in 5 minutes", None),
        ("you have sent 100 messages in 60 seconds, try again later", None),
        ("try again within 24 hours", None),
        ("try again in 5 months", None),
        ("try again in 0 seconds", None),
        ("try again in 14:05", None),
        ("retry 5", None),
        ("x" * 5000 + " try again in 5 minutes", None),
    ],
)
def test_texts_and_their_times(text: str, seconds: float | None) -> None:
    """Only a time that says when to come back is a hint."""
    assert find_hint(text) == seconds


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """No text is an error, and a hint is a time ahead."""
    hint = find_hint(text)
    assert hint is None or hint > 0


@pytest.mark.parametrize(
    ("hint", "jitter", "seconds"),
    [
        (600.0, 0.0, 600.0),
        (600.0, 1.0, 690.0),
        (600.0, -1.0, 690.0),
        (20.0, 0.0, 300.0),
        (86400.0, 0.0, 14400.0),
        (14000.0, 1.0, 14400.0),
    ],
)
def test_the_time_of_the_next_attempt(hint: float, jitter: float, seconds: float) -> None:
    """Not before the hint nor the schedule's first step, up to 15 % later, and four hours at most."""
    assert hinted_attempt(Retry(), hint, NOW, jitter) == pytest.approx(NOW + seconds)


@given(st.floats(0.1, 1e6), st.floats(-1, 1), st.floats(1, 1e5))
def test_never_too_early(hint: float, jitter: float, step: float) -> None:
    """Whatever the schedule, a hint is kept to four hours, and the first step always."""
    delay = hinted_attempt(Retry(schedule=(step,)), hint, 0.0, jitter)
    assert delay >= min(max(hint, step), 14400.0) and delay >= step
    assert delay <= max(14400.0, step)
