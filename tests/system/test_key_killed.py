"""A key in the header outlives a kill: what was answered 250 is known when the relay is there again."""

import smtplib
from collections.abc import Callable

from relay_process import Relay

CONTENT = b"From: root@example.org\r\nX-Smarthost-Idempotency-Key: order-%d\r\n\r\nhello\r\n"


def test_a_key_outlives_a_kill(make_relay: Callable[..., Relay]) -> None:
    """Right after 250 the relay is killed; the same key is then answered with the same message, each time."""
    relay = make_relay(route=[{"name": "kept", "match": {"sender": ["*"]}, "deliver": "hold"}])
    relay.start()
    for number in range(3):
        first = hand_in(relay, number)
        relay.kill()
        relay.start()
        assert hand_in(relay, number).startswith(f"{first} (before")
    assert len(relay.queue()) == 3


def hand_in(relay: Relay, number: int) -> str:
    """Hand a message in; gives the text of the reply."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        client.ehlo()
        client.mail("root@example.org")
        client.rcpt("250@example.com")
        code, text = client.data(CONTENT % number)
        assert code == 250, text
        return text.decode()
