"""How long is waited between attempts, and which requests are made: arithmetic, without a relay."""

from random import Random

import pytest

from smarthost.client import Retries, Unreachable
from smarthost.client.messages import cancel, send
from smarthost.client.settings import Settings
from smarthost.client.trial import Answer, Trial, backoff, retry_after


def test_waits_double_up_to_a_bound() -> None:
    """Each wait is between a half and the whole of what doubles, and none is beyond the longest."""
    retries, chance = Retries(first_wait=1.0, longest_wait=10.0), Random(7)
    for made, whole in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (50, 10.0)):
        waits = {backoff(retries, made, chance) for _ in range(100)}
        assert whole / 2 <= min(waits) < max(waits) <= whole


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", None),
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("9" * 30, None),
    ],
)
def test_retry_after(said: str, seconds: float | None) -> None:
    """Seconds and dates are read; what is neither says nothing."""
    assert retry_after({"retry-after": said}, 60.0) == seconds


def test_an_attempt_after_another() -> None:
    """A trial gives its waits, the first error when attempts are used up, and one request throughout."""
    settings = Settings("http://relay.example.net/mail/", "sh_key", retries=Retries(attempts=3))
    trial = Trial(send({"from": "a@example.org"}), settings, Random(7))
    first = trial.request
    assert trial.broke(Unreachable("gone", True)) <= 0.5
    assert 5.0 <= (trial.heard(Answer(503, {"retry-after": "5"}, b""), 0.0) or 0.0) <= 5.5
    with pytest.raises(Unreachable):
        trial.broke(Unreachable("gone", True))
    assert trial.request is first and first.target == "/mail/api/v1/messages"
    assert "sh_key" not in repr(first) and first.headers["Authorization"] == "Bearer sh_key"
    with pytest.raises(Unreachable):
        Trial(cancel("A"), settings, Random(7)).broke(Unreachable("gone", True))


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_ids_that_lead_elsewhere(name: str) -> None:
    """An id that would make another path is refused, and one with a slash stays one part."""
    with pytest.raises(ValueError, match="id"):
        cancel(name)
    assert cancel("a/../b?c").path == "/messages/a%2F..%2Fb%3Fc/cancel"
