"""`kill -9` while a quota is being used up: whatever the relay forgets, the upstream never sees more than the quota."""

import smtplib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from relay_process import Relay, wait_until
from sending import compose, transact
from sink_process import Sink

QUOTA = 96
KILLS = 4
LOST = QUOTA // 32  # what a crash may cost: the block that was reserved ahead
LIMITS: dict[str, dict[str, Any]] = {
    "site": {"match": {}, "message_rate": f"{QUOTA}/h"},
    "sender": {"match": {"sender_domain": "example.org"}, "message_rate": f"{QUOTA}/h"},
}


def send(port: int, number: int, stopping: threading.Event) -> None:
    """Send messages, some 50 a second, until the relay is gone."""
    sent = 0
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            while not stopping.wait(0.02):
                content = compose(f"round{number}-{sent}", ["250@example.com"])
                transact(client, content, ("250@example.com",), sender="root@example.org")
                sent += 1
    except (smtplib.SMTPException, OSError):
        return  # the relay was killed


@pytest.mark.parametrize("limit", LIMITS)
def test_killed_within_a_quota(limit: str, make_relay: Callable[..., Relay], sink: Sink) -> None:
    """However often the relay is killed, no more than the quota arrives within its hour, and most of it does."""
    relay = make_relay(limit=[LIMITS[limit]])
    for number in range(KILLS):
        relay.start()
        stopping, before = threading.Event(), len(sink.subjects())
        client = threading.Thread(target=send, args=(relay.port, number, stopping))
        client.start()
        wait_until(lambda before=before: len(sink.subjects()) >= before + 12, "mail arrives", 30)  # type: ignore[misc]
        relay.kill()
        stopping.set()
        client.join(30)
        assert len(sink.subjects()) <= QUOTA
    relay.start()
    least = QUOTA - (KILLS + 1) * LOST
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client_now:
        for number in range(QUOTA):
            content = compose(f"last-{number}", ["250@example.com"])
            transact(client_now, content, ("250@example.com",), sender="root@example.org")
    wait_until(lambda: len(sink.subjects()) >= least, f"{least} of {QUOTA} have arrived", 30)
    relay.stop()
    assert len(sink.subjects()) <= QUOTA
