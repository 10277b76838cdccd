"""What a person does and sees: metrics, health, the queue's commands, reports to senders, the demo."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from relay_process import Relay, environment, wait_until
from sending import submit
from sink_process import Sink


def test_demo_once(tmp_path: Path) -> None:
    """`smarthost demo --once` shows one message accepted, signed and relayed, and exits 0."""
    command = [sys.executable, "-m", "smarthost", "demo", "--once"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("accepted", "signed", "relayed", "verified"):
        assert word in done.stdout.lower()


def test_metrics_and_health(relay: Relay, sink: Sink) -> None:
    """/healthz and /readyz answer 200, and /metrics counts what was accepted and relayed."""
    submit(relay.port, "to be counted", "250@example.com", "250+b@example.com")
    sink.wait_for("to be counted")
    assert relay.get("/healthz")[0] == 200
    assert relay.get("/readyz")[0] == 200
    assert relay.metric("smarthost_messages_accepted_total") == 1
    wait_until(lambda: relay.metric("smarthost_recipients_total", action="relayed") == 2, "two recipients counted")
    status, text = relay.get("/metrics")
    assert status == 200
    for name in ("smarthost_queue_messages", "smarthost_accept_seconds", "smarthost_disk_free_ratio"):
        assert f"# HELP {name} " in text


def test_hold_release_and_trace(relay: Relay, sink: Sink) -> None:
    """A held message stays whatever happens; a released one goes; its trace tells all of it."""
    number = submit(relay.port, "held", "450@example.com")
    wait_until(lambda: relay.events("delayed"), "the first attempt was delayed")
    relay.run("queue", "hold", number)
    [entry] = relay.queue("--why", "held")
    assert entry["id"] == number
    attempts = sink.counts()
    relay.run("queue", "release", number)
    wait_until(lambda: sink.counts() != attempts, "the released message was tried again")
    story = relay.run("trace", number).stdout
    for word in ("accepted", "delayed", "held", "released"):
        assert word in story.lower()


def test_why_names_the_reason(relay: Relay) -> None:
    """`smarthost why ID` says what the upstream said last."""
    number = submit(relay.port, "waits", "450@example.com")
    wait_until(lambda: relay.events("delayed"), "the first attempt was delayed")
    assert "450" in relay.run("why", number).stdout


def test_delete(relay: Relay, sink: Sink) -> None:
    """A deleted message leaves the queue without a report; --dry-run only says that it would."""
    number = submit(relay.port, "deleted", "450@example.com")
    wait_until(lambda: relay.events("delayed"), "the first attempt was delayed")
    relay.run("queue", "delete", "--dry-run", number)
    assert [entry["id"] for entry in relay.queue()] == [number]
    relay.run("queue", "delete", number)
    wait_until(lambda: not relay.queue(), "the queue is empty")
    assert sink.reports() == []


def test_fail_reports_to_the_sender(relay: Relay, sink: Sink) -> None:
    """A message that a person fails is reported to its sender."""
    number = submit(relay.port, "failed by hand", "450@example.com", sender="250@example.org")
    wait_until(lambda: relay.events("delayed"), "the first attempt was delayed")
    relay.run("queue", "fail", number)
    [report] = wait_until(sink.reports, "the report arrived")
    assert "450@example.com" in report.as_string()


def test_queue_is_readable_while_the_relay_is_down(relay: Relay) -> None:
    """`queue list` and `queue show` read the spool themselves when no relay runs."""
    number = submit(relay.port, "left behind", "450@example.com")
    wait_until(lambda: relay.events("delayed"), "the first attempt was delayed")
    assert relay.stop() == 0
    assert [entry["id"] for entry in relay.queue()] == [number]
    assert "450@example.com" in relay.run("queue", "show", number).stdout


def test_a_report_names_the_refused_recipient_only(relay: Relay, sink: Sink) -> None:
    """Of two recipients one is refused by 550: the other gets the message, the sender gets one RFC 3464 report."""
    submit(relay.port, "half refused", "250@example.com", "550@example.com", sender="250@example.org")
    sink.wait_for("half refused")
    [report] = wait_until(sink.reports, "the report arrived")
    assert report["To"] is not None and "250@example.org" in report["To"]
    parts = [part.get_content_type() for part in report.walk()]
    assert parts[1] == "text/plain" and "message/delivery-status" in parts
    status = next(part for part in report.walk() if part.get_content_type() == "message/delivery-status").as_string()
    assert "Action: failed" in status and "550@example.com" in status
    assert "250@example.com" not in status
    wait_until(lambda: not relay.queue(), "the queue is empty")


def test_the_null_reverse_path_is_never_reported_to(relay: Relay, sink: Sink) -> None:
    """A refused message from the null reverse-path fails without a report."""
    submit(relay.port, "from nobody", "550@example.com", sender="")
    wait_until(lambda: relay.events("failed"), "the recipient failed")
    wait_until(lambda: not relay.queue(), "the queue is empty")
    assert sink.reports() == []


def test_notify_and_orcpt_are_passed_on(relay: Relay, sink: Sink) -> None:
    """An upstream that offers DSN is told NOTIFY and ORCPT, and then the report is its affair, not ours."""
    options = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bhand@example.net"
    submit(relay.port, "tell me", "250@example.com", sender="250+s@example.org", options=options)
    sink.wait_for("tell me")
    [transaction] = sink.transactions()
    [said] = transaction["rcpts"]
    assert "NOTIFY=SUCCESS,FAILURE" in said and "ORCPT=rfc822;first+2Bhand@example.net" in said
    wait_until(lambda: not relay.queue(), "the queue is empty")
    assert sink.reports() == []


def test_wrong_config_is_named_with_its_line(make_relay: Callable[..., Relay]) -> None:
    """check and serve name file, line, key and what is wrong, and exit 78; serve does not start."""
    relay = make_relay()
    relay.config["submission"]["max_recipients"] = "many"
    relay.write_config()
    lines = relay.config_file.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith("max_recipients"))
    for command in ("check", "serve"):
        done = relay.run(command, "--config", str(relay.config_file), check=False)
        assert done.returncode == 78, (command, done)
        complaint = done.stdout + done.stderr
        assert f"{relay.config_file}:{line}: " in complaint and "submission.max_recipients" in complaint


def test_unknown_key_is_named(make_relay: Callable[..., Relay]) -> None:
    """A key with a slip of the pen is refused by name."""
    relay = make_relay(relayhots="[127.0.0.1]:25")
    relay.write_config()
    done = relay.run("check", check=False)
    assert done.returncode == 78
    assert "relayhots" in done.stdout + done.stderr


def test_check_accepts_a_good_config(make_relay: Callable[..., Relay]) -> None:
    """`smarthost check` exits 0 on the configuration of these tests."""
    relay = make_relay()
    relay.write_config()
    relay.run("check")
