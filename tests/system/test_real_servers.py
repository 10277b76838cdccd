"""Postfix, Exim and OpenSMTPD as upstreams: what they store is what was handed to us, whatever they offer."""

import itertools
import re
import shutil
import smtplib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from exim_process import Exim
from opensmtpd_process import OpenSmtpd
from outside import need_command, need_root
from postfix_process import Postfix
from private_root import need_unpacked
from relay_process import PASSWORD, USER, Relay, wait_until
from sending import submit, transact
from sink_process import Sink

KINDS = ("postfix", "postfix-data", "exim", "exim-data", "opensmtpd")
CHUNKING = ("postfix", "exim")
# What a server's log says of a connection, and of content that came by BDAT.
TRACES = {
    "postfix": (r" connect from ", r" bdat=\d"),
    "exim": (r" SMTP connection from .*count", r" P=esmtp L\. K "),
    "opensmtpd": (r" smtp connected ", "-"),
}
LONG = b"x" * 990
BODIES = {
    "dots": b".\r\n..\r\n...\r\n.x\r\n \r\n.\r\n\r\n.\r\n",
    "eight bit": "Größe, 大きさ\r\n.é\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "long lines": b"." + LONG + b"\r\n." + LONG[:-1] + b"\r\n" + b" ".join([b"word"] * 190) + b"\r\n",
    "empty lines": b"\r\n\r\n\r\n\r\n",
    "controls": b"\x01\x02\x7f\ttab \x1b[0m\x0c\r\n" + b"trailing space \t \r\n",
    "commands": b"RSET\r\nQUIT\r\nBDAT 5 LAST\r\nMAIL FROM:<>\r\n",
    "froms": b"From here\r\n>From there\r\n",
    "megabytes": b"".join(b".%07d %s\r\n" % (number, LONG[:80]) for number in range(45_000)),
    "at the border of a row": b"".join(b".%07d\r\n" % number for number in range(26_400)),
}


class Server(Protocol):
    """What the servers have in common."""

    port: int

    def start(self) -> None:
        """Start it."""

    def log(self) -> str:
        """Give what it wrote of its work."""

    def stored(self) -> list[bytes]:
        """Give what it kept."""

    def close(self) -> None:
        """End it."""


@pytest.fixture
def make_server(sink: Sink) -> Iterator[Callable[..., Server]]:
    """Makes servers that keep mail for example.com and relay the rest to the sink; they end with the test."""
    need_root()
    folder = Path(tempfile.mkdtemp(prefix="smarthost-servers-"))
    folder.chmod(0o755)
    made: list[Server] = []

    def make(kind: str, certificates: dict[str, str] | None = None) -> Server:
        home = folder / str(len(made))
        home.mkdir(mode=0o755)
        name, _, without = kind.partition("-")
        server: Server
        if name == "postfix":
            need_command("postfix")
            server = Postfix(home, sink.port, "smtpd_discard_ehlo_keywords = chunking\n" if without else "")
            server.keep()
        elif name == "exim":
            need_command("chroot")
            need_unpacked("usr/sbin/exim4", "exim4-daemon-light")
            server = Exim(home, sink.port, certificates, "chunking_advertise_hosts =" if without else "")
        else:
            need_command("chroot")
            need_unpacked("usr/sbin/smtpd", "opensmtpd")
            server = OpenSmtpd(home, sink.port)
        made.append(server)
        server.start()
        return server

    try:
        yield make
    finally:
        for server in made:
            server.close()
        shutil.rmtree(folder, ignore_errors=True)


def body_of(stored: bytes) -> tuple[str, bytes]:
    """Give the Subject and the body of a message that stands in a folder, with the line ends of the wire."""
    header, _, body = stored.partition(b"\n\n")
    found = re.search(rb"^Subject: (.*)$", header, re.MULTILINE)
    assert found is not None, header
    return found.group(1).decode(), body.replace(b"\n", b"\r\n")


def wait_for_stored(server: Server, count: int, relay: Relay) -> list[tuple[str, bytes]]:
    """Wait until a server has kept so many messages, and give subjects and bodies."""
    try:
        wait_until(lambda: len(server.stored()) >= count, f"{count} messages are stored", 30, 0.1)
    except AssertionError:
        raise AssertionError(
            f"{len(server.stored())} of {count} are stored\n{relay.events()[-5:]}\n{server.log()[-3000:]}"
        ) from None
    return [body_of(stored) for stored in server.stored()]


@pytest.mark.parametrize("kind", KINDS)
def test_content_is_stored_octet_for_octet(
    kind: str, make_server: Callable[..., Server], make_relay: Callable[..., Relay]
) -> None:
    """Dots, long lines, 8-bit text and megabytes arrive as they were handed in, each sent twice over one connection."""
    server = make_server(kind)
    relay = make_relay(relayhost=f"[127.0.0.1]:{server.port}", limit=[{"match": {}, "max_connections": 1}])
    relay.start()
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        for number, (name, body) in itertools.product(range(2), BODIES.items()):
            header = f"From: <ann@example.org>\r\nTo: <bob@example.com>\r\nSubject: {name} {number}\r\n\r\n"
            # smtplib doubles the dots itself.
            transact(client, header.encode() + body, ("bob@example.com",), sender="ann@example.org")
    stored = wait_for_stored(server, 2 * len(BODIES), relay)
    expected = {f"{name} {number}": body for number, (name, body) in itertools.product(range(2), BODIES.items())}
    assert sorted(subject for subject, _ in stored) == sorted(expected)
    for subject, body in stored:
        assert body == expected[subject], f"{subject}: {find_difference(body, expected[subject])}"
    assert relay.metric("smarthost_recipients_total", action="relayed") == len(expected)


def find_difference(one: bytes, other: bytes) -> str:
    """Say where two contents begin to differ."""
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"at {place}: {one[place - 20 : place + 20]!r} and {other[place - 20 : place + 20]!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_many_messages_share_a_connection(
    kind: str, make_server: Callable[..., Server], make_relay: Callable[..., Relay]
) -> None:
    """A hundred messages, some with a recipient that is refused, go over few connections; each is stored once."""
    server = make_server(kind)
    relay = make_relay(relayhost=f"[127.0.0.1]:{server.port}", limit=[{"match": {}, "max_connections": 2}])
    relay.start()
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        for number in range(100):
            content = f"From: <ann@example.org>\r\nSubject: m{number}\r\n\r\n.{number}\r\n".encode()
            recipients = (f"a{number}@example.com", "nobody@example.com", f"b{number}@example.com")
            if number % 10 == 5:
                recipients = ("nobody@example.com",)
            transact(client, content, recipients if number % 5 == 0 else recipients[:1], sender="ann@example.org")
    wait_until(lambda: not relay.queue(), "the queue is empty", 40, 0.2)
    wait_for_stored(server, 100, relay)
    failed = relay.events("failed")
    assert len(failed) == 20
    assert {(event["recipient"], event["code"]) for event in failed} == {("nobody@example.com", 550)}
    relayed = [event["recipient"] for event in relay.events("relayed") if event["recipient"].endswith("@example.com")]
    assert len(relayed) == len(set(relayed)) == 80 + 2 * 10
    assert not relay.events("delayed"), relay.events("delayed")[0]
    assert relay.stop() == 0
    connected, chunked = TRACES[kind.partition("-")[0]]
    # The first is only a look whether it is up.
    assert 1 < len(re.findall(connected, server.log())) <= 1 + 2
    if kind in CHUNKING:
        wait_until(lambda: re.search(chunked, server.log()), f"{kind} took BDAT")
    subjects = [subject for subject, _ in wait_for_stored(server, 100, relay)]
    assert sorted(set(subjects)) == sorted(f"m{number}" for number in range(100) if number % 10 != 5)


def test_exim_is_logged_in_to_over_tls(
    make_server: Callable[..., Server], make_relay: Callable[..., Relay], certificates: dict[str, str]
) -> None:
    """Exim's certificate is verified, and its PLAIN is used behind STARTTLS."""
    server = make_server("exim", certificates)
    relay = make_relay(
        relayhost=f"[127.0.0.1]:{server.port}",
        relayhost_tls="verify",
        relayhost_ca=certificates["ca"],
        relayhost_auth={"username": USER, "password": PASSWORD},
    )
    relay.start()
    submit(relay.port, "by TLS", "bob@example.com")
    wait_for_stored(server, 1, relay)
    assert f"A=plain:{USER}" in server.log() and "X=TLS" in server.log()
    relayed = wait_until(lambda: relay.events("relayed"), "the mail log says so")
    assert relayed[0]["tls"].startswith("TLSv")


@pytest.mark.parametrize("kind", ("postfix", "exim", "opensmtpd"))
def test_dsn_parameters_pass(
    kind: str, make_server: Callable[..., Server], make_relay: Callable[..., Relay], sink: Sink
) -> None:
    """NOTIFY, ORCPT, RET and ENVID reach whom the server relays to."""
    server = make_server(kind)
    relay = make_relay(relayhost=f"[127.0.0.1]:{server.port}")
    relay.start()
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        client.ehlo()
        assert client.docmd("MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ+2B314159")[0] == 250
        command = "RCPT TO:<bob@onward.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;Bob+2Bx@example.net"
        assert client.docmd(command)[0] == 250
        assert client.data(b"From: <ann@example.org>\r\nSubject: with parameters\r\n\r\nx\r\n")[0] == 250
    sink.wait_for("with parameters", 30)
    taken = sink.transactions()[-1]
    assert "RET=HDRS" in taken["mail"] and "ENVID=QQ+2B314159" in taken["mail"], taken
    assert "NOTIFY=FAILURE,DELAY" in taken["rcpts"][0], taken
    assert "ORCPT=rfc822;Bob+2Bx@example.net" in taken["rcpts"][0], taken
