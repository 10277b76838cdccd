"""Signals: SIGTERM drains, a second one ends at once, SIGHUP reads the configuration again."""

import contextlib
import os
import signal
import smtplib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from relay_process import Relay, is_listening, wait_until
from sending import compose, submit, transact
from sink_process import Sink


def test_sigterm_lets_a_transaction_end(relay: Relay, sink: Sink) -> None:
    """A message that is on its way upstream at SIGTERM is settled before the relay exits 0: nothing is left behind."""
    submit(relay.port, "on its way", "slow-300@example.com")
    time.sleep(0.2)
    assert relay.stop() == 0
    assert sink.subjects() == ["on its way"]
    assert relay.queue() == []


def test_sigterm_answers_421_and_closes(relay: Relay) -> None:
    """A session that waits for its client hears 421 4.3.2 at its next command or at once; then the port is closed."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=10) as client:
        client.ehlo()
        relay.signal(signal.SIGTERM)
        time.sleep(0.3)
        try:
            code, text = client.noop()
            assert (code, text[:5]) == (421, b"4.3.2")
        except smtplib.SMTPServerDisconnected:
            pass
        client.close()
    assert relay.wait() == 0
    assert not is_listening(relay.port)


def test_sigterm_does_not_wait_for_a_silent_upstream(relay: Relay, sink: Sink) -> None:
    """An upstream that never answers holds the exit up for shutdown_timeout at most; the message waits on disk."""
    submit(relay.port, "stuck", "hang@example.com")
    time.sleep(0.3)
    started = time.monotonic()
    assert relay.stop() == 0
    assert time.monotonic() - started < 6
    assert len(relay.queue()) == 1


def test_sigterm_ends_in_time_whatever_hangs(make_relay: Callable[..., Relay]) -> None:
    """Two seconds beyond shutdown_timeout are enough, with everybody silent whom the relay could wait for.

    Those are the upstream, a client in the middle of its content, one that greets nobody, one in its TLS handshake,
    a scraper, a command, and the reader of the log, whose pipe is full.
    """
    relay = make_relay(shutdown_timeout="1s")
    reader = stop_reading(relay.log_file)
    relay.start()
    submit(relay.port, "stuck", "hang@example.com")
    control = socket.socket(socket.AF_UNIX)
    control.connect(str(Path(relay.config["data_directory"]) / "control.sock"))
    ports = [relay.http_port, *[relay.port] * 3]
    scraper, mute, handshake, client = [socket.create_connection(("127.0.0.1", port), 5) for port in ports]
    control.sendall(b'{"verb": ')
    scraper.sendall(b"GET /metrics")
    handshake.sendall(b"EHLO x\r\nSTARTTLS\r\n")
    client.sendall(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<250@example.com>\r\nDATA\r\n")
    time.sleep(0.3)
    client.sendall(b"Subject: cut off\r\n\r\nno end")
    time.sleep(0.2)
    started = time.monotonic()
    assert relay.stop() == 0
    assert time.monotonic() - started < 3
    for each in (control, scraper, mute, handshake, client):
        each.close()
    os.close(reader)
    assert len(relay.queue()) == 1


def stop_reading(log_file: Path) -> int:
    """Put a full pipe where a log is going to be; gives its reading end, which nobody reads."""
    os.mkfifo(log_file)
    reader = os.open(log_file, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(log_file, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.close(writer)
    return reader


def test_a_second_signal_exits_at_once(make_relay: Callable[..., Relay], sink: Sink) -> None:
    """The second SIGTERM does not wait for anything, and the message is still there afterwards."""
    relay = make_relay(shutdown_timeout="30s")
    relay.start()
    submit(relay.port, "stuck", "hang@example.com")
    time.sleep(0.3)
    relay.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert relay.running is not None and relay.running.poll() is None
    started = time.monotonic()
    relay.signal(signal.SIGTERM)
    relay.wait(5)
    assert time.monotonic() - started < 2
    assert len(relay.queue()) == 1


def test_sighup_gives_waiting_mail_its_new_route(make_relay: Callable[..., Relay], sink: Sink, dead_port: int) -> None:
    """A relayhost that was wrong is corrected and reloaded: the message that waited goes to the right one."""
    relay = make_relay(relayhost=f"[127.0.0.1]:{dead_port}")
    relay.start()
    submit(relay.port, "waited for a route", "250@example.com")
    wait_until(relay.queue, "the message waits")
    relay.config["relayhost"] = f"[127.0.0.1]:{sink.port}"
    relay.write_config()
    relay.signal(signal.SIGHUP)
    sink.wait_for("waited for a route", 20)
    wait_until(lambda: not relay.queue(), "the queue is empty")


def test_sighup_with_a_wrong_config_keeps_the_old_one(relay: Relay, sink: Sink) -> None:
    """A mistake in the file is logged at a reload, and mail flows on."""
    good = relay.config_file.read_text()
    relay.config_file.write_text("nonsense = [\n" + good)
    relay.signal(signal.SIGHUP)
    time.sleep(0.5)
    submit(relay.port, "still works", "250@example.com")
    sink.wait_for("still works")
    said = relay.errors() + relay.log_file.read_text()
    assert "smarthost.toml:" in said


def test_sighup_does_not_drop_sessions(relay: Relay, sink: Sink) -> None:
    """A session that is in the middle of a transaction goes on over a reload."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=10) as client:
        client.ehlo()
        assert client.mail("root@example.org")[0] == 250
        relay.signal(signal.SIGHUP)
        time.sleep(0.5)
        assert client.rcpt("250@example.com")[0] == 250
        assert client.data(compose("over a reload", ["250@example.com"]))[0] == 250
    sink.wait_for("over a reload")


def test_restart_on_the_same_port(relay: Relay, sink: Sink) -> None:
    """A relay can be stopped and started again at once; connections that were open do not keep the port."""
    client = socket.create_connection(("127.0.0.1", relay.port), 5)
    client.recv(100)
    assert relay.stop() == 0
    relay.start()
    client.close()
    submit(relay.port, "after a restart", "250@example.com")
    sink.wait_for("after a restart")


def test_two_relays_do_not_share_a_spool(relay: Relay, make_relay: Callable[..., Relay]) -> None:
    """A second relay on the same data directory refuses to start, and the first goes on."""
    other = make_relay(data_directory=relay.config["data_directory"])
    other.start(wait=False)
    assert other.wait(15) not in (0, None)
    submit(relay.port, "undisturbed", "250@example.com")


@pytest.mark.parametrize("size", [200, 600_000])
def test_waiting_mail_survives_a_restart(relay: Relay, sink: Sink, size: int) -> None:
    """Small and large messages that wait are relayed, octet for octet, after a restart."""
    sink.close()
    content = compose("survives", ["250@example.com"], size)
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        transact(client, content, ("250@example.com",), sender="root@example.org")
    assert relay.stop() == 0
    sink.start()
    sink.wait_until_up()
    relay.start()
    sink.wait_for("survives", 20)
    [octets] = sink.octets()
    body = content.partition(b"\r\n\r\n")[2]
    assert octets.replace(b"\r\n", b"\n").endswith(body.replace(b"\r\n", b"\n"))
