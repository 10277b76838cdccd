"""What a webhook may be, which events it wants, how they are told, and when again."""

import pytest

from smarthost.mail.event import Event, Kind
from smarthost.policy.webhook import (
    MOST_ATTEMPTS,
    Webhook,
    WebhookWish,
    event_type,
    pause_after,
    read_retry_after,
    wish_faults,
)

NOW = 1_800_000_000.25


def test_the_schedule_doubles_from_a_minute_to_sixteen_hours() -> None:
    """Pauses are 1 min, doubling to 16 h, within a tenth; then it is over, after more than a day."""
    pauses = [pause_after(attempts, 0.5) for attempts in range(1, MOST_ATTEMPTS + 1)]
    minutes = [round(each / 60) for each in pauses if each is not None]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 960]
    assert pauses[-1] is None
    assert pause_after(1, 0.0) == pytest.approx(54) and pause_after(1, 1.0) == pytest.approx(66)


def test_events_are_chosen_by_type_and_group() -> None:
    """A type, a group and everything match what they name and nothing else."""

    def wants(*events: str) -> bool:
        return Webhook("w", "app", "https://h/", "s", events).wants(event_type(Event(NOW, Kind.RELAYED)))

    assert wants("message.relayed") and wants("*") and wants("message.*") and wants("message.failed", "message.relayed")
    assert not wants("message.failed") and not wants("message.relay") and not wants("other.*")


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://hooks.example.org/a?b=c", True),
        ("http://192.0.2.1:8080", True),
        ("https://[2001:db8::1]/x", True),
        ("ftp://example.org/", False),
        ("https://", False),
        ("https:///x", False),
        ("https://user:pass@example.org/", False),
        ("https://example.org:99999/", False),
        ("https://example.org:0/", False),
        ("https://exa mple.org/", False),
        ("https://example.org/\r\nX: y", False),
        ("https://example.org/" + "x" * 2000, False),
        ("https://[::1/", False),
        ("", False),
    ],
)
def test_urls(url: str, is_good: bool) -> None:
    """Only plain HTTP URLs with a host are good, and what is said of others has nothing of them."""
    faults = wish_faults(WebhookWish(url=url))
    assert (faults == ()) is is_good
    assert is_good or faults[0][0] == "url"


def test_each_fault_names_its_field() -> None:
    """Events of no type and long texts are faults of their fields."""
    wish = WebhookWish("https://h/", ("message.relayed", "message.nothing", "Nonsense!"), "x" * 501)
    assert [field for field, _ in wish_faults(wish)] == ["events[1]", "events[2]", "description"]
    assert [field for field, _ in wish_faults(WebhookWish(events=()))] == ["events"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("999999999999", 86_400.0),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 119.75),
        ("Fri, 15 Jan 2020 08:02:00 GMT", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    """Seconds and dates are read, a day at most, and nonsense is nothing."""
    assert read_retry_after(text, NOW) == pytest.approx(seconds)


def test_secrets_are_not_shown() -> None:
    """Neither a webhook nor a wish has its URL or secret in its representation."""
    hook = Webhook("w", "app", "https://h/token", "whsec_verysecret", former="whsec_old", former_until=NOW)
    for shown in (repr(hook), repr(WebhookWish(url="https://h/token", secret="whsec_verysecret"))):
        assert "token" not in shown and "whsec" not in shown
    assert hook.secrets(NOW - 1) == ("whsec_verysecret", "whsec_old") and hook.secrets(NOW) == ("whsec_verysecret",)
