"""What must not happen: relaying for strangers, loops without end, mail lost for its octets, secrets in the log."""

import asyncio
import base64
import email
import email.policy
import logging
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from relay_house import House

from smarthost.config_types import Login
from smarthost.crypto.password import hash_password
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.admission import Auth, Listener, Submission, Tls, User
from smarthost.policy.conversion import Conversion, Conversions
from smarthost.sink.desk import EVERYTHING, SinkSettings
from smarthost.sink.server import Sink

PASSWORD = "correct horse battery"
SECRET = "the upstream's password"


async def ask(house: House, source: str, *commands: str) -> list[str]:
    """Say commands from an address of ours, and give the last line of each reply."""
    reader, writer = await asyncio.open_connection(*house.address, local_addr=(source, 0))
    replies = []
    for command in ("", *commands):
        if command:
            writer.write(command.encode() + b"\r\n")
        while (line := (await reader.readline()).decode())[3:4] == "-":
            pass
        replies.append(line.rstrip())
    writer.close()
    return replies[1:]


@pytest.mark.parametrize("auth", list(Auth))
async def test_a_stranger_never_relays(house: House, auth: Auth) -> None:
    """Whoever is in no trusted network and did not log in gets nothing through, whatever is tried, on any listener."""
    submission = Submission(trusted_networks=("127.0.0.1/32",), min_free_space=0)
    listener = Listener(address="0.0.0.0:0", tls=Tls.NONE, auth=auth, allow_plaintext_auth=True)
    users = (User("app1", hash_password(PASSWORD)),)
    await house.open(submission=submission, listeners=(listener,), users=users)
    house.address = ("127.0.0.1", house.address[1])
    as_other = base64.b64encode(f"boss\0app1\0{PASSWORD}".encode()).decode()
    for greeting in ("EHLO stranger", "HELO 127.0.0.1", "EHLO localhost"):
        replies = await ask(
            house,
            "127.0.0.2",
            greeting,
            f"AUTH PLAIN {as_other}",
            "MAIL FROM:<postmaster@relay.example.org>",
            "MAIL FROM:<>",
            "MAIL FROM:<a@example.org> AUTH=<app1>",
            "XCLIENT ADDR=127.0.0.1",
            "RCPT TO:<postmaster>",
            "RCPT TO:<@relay.example.org:250@example.net>",
            "RCPT TO:<250%example.net@relay.example.org>",
            "DATA",
        )
        assert [reply for reply in replies[1:] if reply[0] != "5"] == [], replies
    assert house.events and {event.event for event in house.events} == {Kind.REJECTED}
    if auth is not Auth.REQUIRED:
        [trusted] = (await ask(house, "127.0.0.1", "EHLO app", "MAIL FROM:<a@example.org>"))[1:]
        assert trusted.startswith("250 ")


async def test_five_failed_logins_shut_the_door(house: House) -> None:
    """The fifth failed login within ten minutes is answered 421, and so is each new connection from that address."""
    listener = Listener(address="0.0.0.0:0", tls=Tls.NONE, auth=Auth.OPTIONAL, allow_plaintext_auth=True)
    submission = Submission(trusted_networks=("127.0.0.1/32",), min_free_space=0)
    await house.open(listeners=(listener,), submission=submission, users=(User("app1", hash_password(PASSWORD)),))
    house.address = ("127.0.0.1", house.address[1])
    wrong = "AUTH PLAIN " + base64.b64encode(b"\0app1\0wrong").decode()
    codes = [reply[:3] for reply in await ask(house, "127.0.0.2", "EHLO x", *[wrong] * 5)]
    assert codes == ["250", "535", "535", "535", "535", "421"]
    reader, writer = await asyncio.open_connection(*house.address, local_addr=("127.0.0.2", 0))
    assert (await reader.readline()).startswith(b"421 4.7.0")
    writer.close()
    right = "AUTH PLAIN " + base64.b64encode(f"\0app1\0{PASSWORD}".encode()).decode()
    assert (await ask(house, "127.0.0.3", "EHLO x", right))[1].startswith("235 ")


async def test_a_loop_ends(house: House) -> None:
    """A relay that is its own next hop: the message ends by its hops, and so does its report, which causes none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listener = Listener(address=f"127.0.0.1:{port}", tls=Tls.NONE, auth=Auth.NONE)
    itself = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", port),), TlsLevel.NONE)
    submission = Submission(min_free_space=0, max_hops=8)
    await house.open(fallback=itself, listeners=(listener,), submission=submission)
    await house.send("nobody@example.net", sender="app@example.org")
    await house.until(lambda: sum(event.event is Kind.FAILED for event in house.events) == 2)
    await house.empty()
    kinds = [event.event for event in house.events]
    assert kinds.count(Kind.REPORTED) == 1 and kinds.count(Kind.ACCEPTED) == 18
    assert {event.status for event in house.events if event.event is Kind.FAILED} == {"5.4.6"}


@pytest.mark.parametrize(
    ("missing", "content", "options", "status"),
    [
        ("eight_bit_mime", "Subject: x\r\n\r\ncaf\u00e9\r\n", ("BODY=8BITMIME",), "5.6.3"),
        ("eight_bit_mime", "Subject: x\r\n\r\ncaf\u00e9\r\n", (), "5.6.3"),
        ("smtputf8", "Subject: caf\u00e9\r\n\r\nx\r\n", ("SMTPUTF8",), "5.6.7"),
        ("smtputf8", "Subject: caf\u00e9\r\n\r\nx\r\n", (), "5.6.7"),
        ("eight_bit_mime smtputf8", "Subject: caf\u00e9\r\n\r\ncaf\u00e9\r\n", (), "5.6.3"),
    ],
)
async def test_what_the_upstream_cannot_take_is_reported(
    house: House, missing: str, content: str, options: tuple[str, ...], status: str
) -> None:
    """8-bit content and UTF-8 headers are measured; unconverted they fail without the extension, with a report."""
    offers = msgspec.structs.replace(EVERYTHING, **dict.fromkeys(missing.split(), False))
    house.sink = Sink(SinkSettings(offers=offers))
    await house.open(conversion=Conversions(Conversion.FAIL, Conversion.FAIL))
    number = await house.send("250@example.net", sender="250@example.org", content=content, options=options)
    await house.until(lambda: house.sink.counts.messages == 1)
    assert house.kinds(number) == [Kind.ACCEPTED, Kind.FAILED]
    report = email.message_from_bytes(house.sink.messages[-1].content, policy=email.policy.default)
    assert f"Status: {status}" in report.get_payload()[1].as_string()
    assert house.sink.messages[-1].content.isascii()
    await house.empty()


async def test_measured_plain_content_goes_anywhere(house: House) -> None:
    """What only claims to be 8-bit or SMTPUTF8 leaves by an upstream that has neither."""
    offers = msgspec.structs.replace(EVERYTHING, eight_bit_mime=False, smtputf8=False)
    house.sink = Sink(SinkSettings(offers=offers))
    await house.open()
    number = await house.send("250@example.net", options=("BODY=8BITMIME", "SMTPUTF8"))
    await house.until(lambda: house.kinds(number) == [Kind.ACCEPTED, Kind.RELAYED])


async def test_nobody_hears_of_forged_senders_twice(house: House) -> None:
    """A report to a sender that does not exist is held, and a null reverse-path is never reported to."""
    await house.open()
    await house.send("550@example.net", sender="550-7@example.com")
    null = await house.send("550@example.net", sender="")
    await house.until(lambda: house.server.counters.reports_failed == 1)
    await house.until(lambda: house.server.relay.settler.pending == 0)
    assert house.kinds(null) == [Kind.ACCEPTED, Kind.FAILED]
    assert house.server.counters.reports == 1 and house.sink.counts.messages == 0


def test_no_secret_is_told(tmp_path: Path) -> None:
    """Neither check nor a wrong configuration, nor the debug log of a login, shows a password or a hash."""
    hashed = hash_password(PASSWORD)
    (tmp_path / "secret").write_text(SECRET + "\n")
    lines = [
        f'data_directory = "{tmp_path / "data"}"',
        'relayhost = "[127.0.0.1]:1"',
        f'relayhost_auth = {{ username = "u", password_file = "{tmp_path / "secret"}", bogus = "{SECRET}" }}',
        "[[user]]",
        'name = "app1"',
        f'password = "{hashed[:-6]}"',
        "[[user]]",
        'name = "app1"',
        f'password = "{PASSWORD}"',
    ]
    config = tmp_path / "smarthost.toml"
    config.write_text("\n".join(lines))
    for command in ("check", "serve"):
        done = subprocess.run(
            [sys.executable, "-m", "smarthost", command, "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 78
        for secret in (SECRET, PASSWORD, hashed[-30:-6], hashed[20:40]):
            assert secret not in done.stdout + done.stderr


async def test_no_secret_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """At level debug, a login here and a login upstream leave no trace of a password in any log record or event."""
    caplog.set_level(logging.DEBUG)
    house.sink = Sink(SinkSettings(username="relay", password=SECRET, mechanisms=("LOGIN",)))
    await house.sink.start()
    route = Route(
        "relayhost",
        Deliver.RELAYHOST,
        (NextHop("127.0.0.1", house.sink.address[1]),),
        TlsLevel.NONE,
        login="relayhost",
        allow_plaintext_auth=True,
    )
    listener = Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.REQUIRED, allow_plaintext_auth=True)
    user = User("app1", hash_password(PASSWORD))
    await house.open(
        fallback=route, credentials={"relayhost": Login("relay", SECRET)}, listeners=(listener,), users=(user,)
    )
    commands = ["EHLO x", "AUTH LOGIN", *(base64.b64encode(word.encode()).decode() for word in ("app1", PASSWORD))]
    mail = ["MAIL FROM:<a@example.org>", "RCPT TO:<250@example.net>", "DATA", "Subject: x\r\n\r\nx\r\n."]
    assert (await ask(house, "127.0.0.1", *commands, *mail))[-1].startswith("250 2.0.0 queued as ")
    await house.until(lambda: house.sink.counts.messages == 1)
    said = caplog.text + repr(house.events) + repr(house.config)
    for secret in (PASSWORD, SECRET):
        assert secret not in said and base64.b64encode(secret.encode()).decode() not in said
    assert user.password not in caplog.text + repr(house.events)
