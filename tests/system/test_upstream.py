"""An upstream that misbehaves: each recipient ends in the right state, and accepted = relayed + failed + waiting."""

import smtplib
import time
from collections import Counter
from collections.abc import Callable

import pytest
from relay_process import Relay, wait_until
from sending import compose, submit
from sink_process import Sink

RELAYED, FAILED, WAITING = "relayed", "failed", "waiting"

# What the sink does for a recipient, and where the recipient shall end.
BEHAVIOURS = {
    "250": RELAYED,
    "slow-30": RELAYED,
    "451.once": RELAYED,
    "data-451.once": RELAYED,
    "drop-mail.once": RELAYED,
    "drop-data.once": RELAYED,
    "drop-dot.once": RELAYED,
    "garbage.once": RELAYED,
    "450": WAITING,
    "452.4.2.2": WAITING,
    "421": WAITING,
    "data-452": WAITING,
    "drop-mail": WAITING,
    "drop-data": WAITING,
    "drop-dot": WAITING,
    "garbage": WAITING,
    "huge": WAITING,
    "hang": WAITING,
    "550": FAILED,
    "553": FAILED,
    "552.5.2.2": FAILED,
    "data-554": FAILED,
}


def state_of(relay: Relay) -> dict[str, str]:
    """Give where each recipient's local part stands now: what the log says of the last word, else it waits.

    The log is read first: what it tells of has left the queue before.
    """
    state = {}
    for event in relay.events():
        if event["event"] in (RELAYED, FAILED):
            state[event["recipient"]] = event["event"]
    waiting = {recipient for entry in relay.queue() for recipient in entry["recipients"]}
    overlap = waiting & set(state)
    assert not overlap, f"settled and still queued: {overlap}"
    state |= dict.fromkeys(waiting, WAITING)
    return {recipient.partition("@")[0]: where for recipient, where in state.items()}


def test_each_behaviour_alone(relay: Relay, sink: Sink) -> None:
    """One message a behaviour, all at once: each ends where it should, whatever its neighbours do to their sessions."""
    for local in BEHAVIOURS:
        submit(relay.port, f"to {local}", f"{local}@example.com", sender="")
    expected = BEHAVIOURS
    wait_until(lambda: state_of(relay) == expected, f"the states are as expected: {expected}", 40, 0.3)
    # Once more, a little later: what waits stays, what is settled has not moved.
    time.sleep(1.5)
    assert state_of(relay) == expected
    check_snapshot(relay, sink, expected)


def check_snapshot(relay: Relay, sink: Sink, expected: dict[str, str]) -> None:
    """Compare the numbers of both sides: accepted = relayed + failed + waiting, and the sink took what was relayed."""
    ends = list(expected.values())
    relayed = relay.metric("smarthost_recipients_total", action="relayed")
    failed = relay.metric("smarthost_recipients_total", action="failed")
    waiting = sum(len(entry["recipients"]) for entry in relay.queue())
    assert (relayed, failed, waiting) == (ends.count(RELAYED), ends.count(FAILED), ends.count(WAITING))
    assert relayed + failed + waiting == relay.metric("smarthost_messages_accepted_total")
    arrived = Counter(sink.subjects())
    # Content that was sent together with its envelope has arrived where RCPT was answered by garbage: once.
    for subject in ("to garbage", "to huge"):
        assert arrived.pop(subject, 0) <= 1
    assert set(arrived) == {f"to {local}" for local, end in expected.items() if end == RELAYED}
    assert {subject for subject, count in arrived.items() if count > 1} <= lost_behind_the_end(relay)


def lost_behind_the_end(relay: Relay) -> set[str]:
    """Give the subjects of messages whose session was once lost behind the end of data: these may arrive twice.

    A neighbour in the pipeline can cause that: when the sink closes a connection on which more has come, the reply
    that is still on its way is lost with it.
    """
    lost = [event for event in relay.events("delayed") if event.get("stage") == "content" and "code" not in event]
    return {f"to {event['recipient'].partition('@')[0]}" for event in lost}


def test_one_transaction_three_ends(relay: Relay, sink: Sink) -> None:
    """Recipients of one message end apart: one relayed, one refused, one waiting, which alone is tried again."""
    recipients = ("250@example.com", "550@example.com", "450@example.com")
    submit(relay.port, "three ends", *recipients, sender="")
    expected = {"250": RELAYED, "550": FAILED, "450": WAITING}
    wait_until(lambda: state_of(relay) == expected, "each recipient has its end")
    wait_until(lambda: len(relay.events("delayed")) >= 2, "the third is tried again")
    assert sink.subjects() == ["three ends"]
    assert len(relay.events(RELAYED)) == len(relay.events(FAILED)) == 1


def test_all_recipients_refused(relay: Relay, sink: Sink) -> None:
    """When every RCPT is refused, a pipelined DATA does no harm: nothing arrives, and the session goes on."""
    submit(relay.port, "nobody", "550-1@example.com", "550-2@example.com", sender="")
    wait_until(lambda: len(relay.events(FAILED)) == 2, "both failed")
    submit(relay.port, "somebody", "250@example.com", sender="")
    sink.wait_for("somebody")
    assert sink.subjects() == ["somebody"]


def test_login_refused_delays_and_never_fails(relay: Relay) -> None:
    """530 and 535 say something about us, not about the recipient: it waits, also for mail that comes later."""
    submit(relay.port, "refused login", "535@example.com", sender="")
    wait_until(lambda: relay.events("delayed"), "it was delayed")
    assert relay.events(FAILED) == []
    assert len(relay.queue()) == 1


def test_hanging_sessions_do_not_stop_others(make_relay: Callable[..., Relay], sink: Sink) -> None:
    """Sessions on which the upstream never answers use up their share only: others' mail passes meanwhile."""
    relay = make_relay(limit=[{"match": {}, "max_connections": 6}])
    relay.start()
    for number in range(4):
        submit(relay.port, f"hang {number}", f"hang-{number}@example.com", sender="")
    for number in range(10):
        submit(relay.port, f"passes {number}", f"250+{number}@example.com", sender="")
    wait_until(lambda: len(sink.subjects()) == 10, "ten messages passed")
    assert len(relay.queue()) == 4


def test_an_upstream_that_is_down_costs_no_attempt(make_relay: Callable[..., Relay], dead_port: int) -> None:
    """Nobody answers at the relayhost: mail waits with a reason that says so, and 20 more do not mean 20 more dials."""
    relay = make_relay(relayhost=f"[127.0.0.1]:{dead_port}")
    relay.start()
    for number in range(20):
        submit(relay.port, f"waits {number}", "250@example.com", sender="")
    relay.wait_for_why("site_throttled", 20)
    assert sum(entry["attempts"] for entry in relay.queue()) <= 1
    assert relay.events(FAILED) == []


def test_the_reason_that_is_shown_can_be_asked_for(make_relay: Callable[..., Relay], dead_port: int) -> None:
    """`queue list --why` picks by the reason that `queue list` shows."""
    relay = make_relay(relayhost=f"[127.0.0.1]:{dead_port}")
    relay.start()
    submit(relay.port, "waits", "250@example.com", sender="")
    relay.wait_for_why("site_throttled", 1)
    assert len(relay.queue("--why", "site_throttled")) == 1


def test_fail_over_to_the_next_relayhost(make_relay: Callable[..., Relay], sink: Sink, dead_port: int) -> None:
    """The first relayhost refuses connections, the second takes the mail, without a retry in between."""
    relay = make_relay(relayhost=[f"[127.0.0.1]:{dead_port}", f"[127.0.0.1]:{sink.port}"])
    relay.start()
    submit(relay.port, "second choice", "250@example.com")
    sink.wait_for("second choice")


def test_route_rules(make_relay: Callable[..., Relay], sink: Sink) -> None:
    """Rules decide by recipient: reject refuses at RCPT, discard takes and forgets, hold keeps, no rule relays."""
    relay = make_relay(
        route=[
            {"name": "no", "match": {"recipient": ["*@no.example"]}, "deliver": "reject"},
            {"name": "gone", "match": {"recipient": ["*@gone.example"]}, "deliver": "discard"},
            {"name": "later", "match": {"recipient": ["*@later.example"]}, "deliver": "hold"},
        ]
    )
    relay.start()
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        submit(relay.port, "no", "a@no.example")
    submit(relay.port, "gone", "a@gone.example")
    submit(relay.port, "later", "a@later.example")
    submit(relay.port, "through", "250@example.com")
    sink.wait_for("through")
    relay.wait_for_why("held", 1)
    assert sink.subjects() == ["through"]


def test_many_recipients_are_split(make_relay: Callable[..., Relay], sink: Sink) -> None:
    """Ninety recipients under a limit of forty a transaction arrive in three transactions, each once."""
    relay = make_relay(limit=[{"match": {}, "max_recipients_per_transaction": 40}])
    relay.start()
    recipients = [f"250+{number}@example.com" for number in range(90)]
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        assert client.sendmail("root@example.org", recipients, compose("many", ["many@example.com"])) == {}
    wait_until(lambda: len(relay.events(RELAYED)) == 90, "all were relayed")
    assert sink.subjects() == ["many"] * 3
    assert sink.counts()["recipients_accepted"] == 90
