"""How the states of a message's recipients become one word."""

from datetime import UTC, datetime

import pytest

from smarthost.client import DeliveryResult, Message, Problem, Standing, TimedOut, Unreadable
from smarthost.client.faults import refusal
from smarthost.client.messages import WAITING
from smarthost.reception.http.standing import STATUSES


def message(*recipients: Standing) -> Message:
    """Make a message with recipients."""
    return Message(id="A", status="x", created_at=datetime.now(UTC), from_="", recipients=list(recipients))


@pytest.mark.parametrize(
    ("standing", "status", "code"),
    [
        (Standing("a", "relayed", 250, "2.0.0", "queued", 1), "SUCCESS", 0),
        (Standing("a", "queued"), "RETRY", 0),
        (Standing("a", "scheduled"), "RETRY", 0),
        (Standing("a", "held"), "RETRY", 0),
        (Standing("a", "delayed", reply="451 4.3.0 later (mx.example.net)", attempts=1), "RETRY", 451),
        (Standing("a", "suppressed", 550, "5.7.1", "is suppressed"), "REJECTED", 550),
        (Standing("a", "refused", 550, "5.7.1", "no route"), "REJECTED", 550),
        (Standing("a", "cancelled"), "FAILED", 0),
        (Standing("a", "unknown"), "FAILED", 0),
        (Standing("a", "failed", 550, "5.1.1", "nobody"), "INVALID", 550),
        (Standing("a", "failed", 550, "5.1.8", "sender"), "FAILED", 550),
        (Standing("a", "failed", 554, "5.7.1", "spam"), "FAILED", 554),
        (Standing("a", "failed", 0, "5.4.7", "its lifetime; last: 451 x"), "TEMP_FAILED", 0),
        (Standing("a", "failed", reply="451 4.3.0 later"), "TEMP_FAILED", 451),
    ],
)
def test_one_recipient(standing: Standing, status: str, code: int) -> None:
    """Each state of a recipient has its word."""
    result = DeliveryResult.from_message(message(standing))
    assert (result.status, result.smtp_code) == (status, code)
    assert result.is_retryable is (status in ("RETRY", "TEMP_FAILED"))
    assert list(result.recipient_failures) == ([] if status == "SUCCESS" else ["a"])


def test_several_recipients() -> None:
    """It is not over while it is not for one; what failed in one way has that word, in several it has failed."""
    relayed, waiting = Standing("a", "relayed"), Standing("b", "delayed", attempts=3)
    invalid, failed = Standing("c", "failed", 550, "5.1.1"), Standing("d", "failed", 554, "5.7.1")
    assert DeliveryResult.from_message(message(relayed, waiting, failed)).status == "RETRY"
    assert DeliveryResult.from_message(message(relayed, waiting)).retry_count == 2
    assert DeliveryResult.from_message(message(relayed, invalid)).status == "INVALID"
    assert DeliveryResult.from_message(message(relayed, invalid, failed)).status == "FAILED"


@pytest.mark.parametrize(
    ("status", "word"),
    [
        *[(code, "INVALID") for code in (400, 413, 415, 422)],
        *[(code, "REJECTED") for code in (401, 403, 404, 409)],
        *[(code, "TEMP_FAILED") for code in (429, 502, 503, 504)],
        (500, "FAILED"),
    ],
)
def test_refusals(status: int, word: str) -> None:
    """A message that could not be handed in has a word, too."""
    assert DeliveryResult.from_error(refusal(status, b"", None)).status == word


def test_what_was_not_answered() -> None:
    """No answer is a failure for now; another's answer is one for good."""
    assert DeliveryResult.from_error(TimedOut("late", True)).is_retryable
    assert DeliveryResult.from_error(Unreadable("html")).status == "FAILED"


def test_the_states_are_those_of_the_relay() -> None:
    """What the client takes for waiting are states of the relay."""
    assert set(STATUSES) >= WAITING
    assert Problem().type == "about:blank"
