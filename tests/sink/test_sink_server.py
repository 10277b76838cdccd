"""The sink over real sockets: smtplib and raw lines against each way to misbehave."""

import asyncio
import contextlib
import json
import smtplib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from smarthost.sink.desk import SinkSettings
from smarthost.sink.main import serve
from smarthost.sink.server import Sink
from smarthost.wire.extensions import Extensions

CONTENT = b"From: a@example.org\r\nMessage-ID: <1@example.org>\r\n\r\n.dot\r\nbare\nend\r\n"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Run a sink with HTTP on free ports."""
    running = Sink(SinkSettings(http="127.0.0.1:0", keep=3))
    await running.start()
    yield running
    await running.stop()


class Lines:
    """A raw client: writes octets, reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self) -> str:
        """Read one reply, b"" becomes "closed"."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 5)
            lines.append(line)
            if line[3:4] != b"-":
                return b"".join(lines).decode("latin-1").strip() or "closed"

    async def ask(self, text: bytes, replies: int = 1) -> list[str]:
        """Write at once, then read so many replies."""
        self.writer.write(text)
        return [await self.read() for _ in range(replies)]

    async def send(self, *recipients: str) -> list[str]:
        """Send one message, pipelined up to DATA; give the codes of all replies until one shows the end."""
        self.writer.write(b"MAIL FROM:<a@example.org>\r\n")
        for address in recipients:
            self.writer.write(b"RCPT TO:<%b>\r\n" % address.encode())
        codes = [(await self.read())[:3] for _ in range(1 + len(recipients))]
        codes += [code[:3] for code in await self.ask(b"DATA\r\n")]
        if codes[-1] == "354":
            codes += [code[:3] for code in await self.ask(CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n")]
        return codes


@contextlib.asynccontextmanager
async def connected(sink: Sink) -> AsyncIterator[Lines]:
    """Open a raw connection and read the greeting."""
    reader, writer = await asyncio.open_connection(*sink.address)
    lines = Lines(reader, writer)
    assert (await lines.read()).startswith("220 sink.test")
    try:
        yield lines
    finally:
        writer.close()


async def in_thread(sink: Sink, work: Callable[[smtplib.SMTP], Any]) -> Any:
    """Run a blocking smtplib dialog beside the loop."""

    def run() -> Any:
        with smtplib.SMTP(*sink.address, timeout=5) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def fetch(sink: Sink, path: str) -> tuple[str, bytes]:
    """GET a path; give the status line and the text."""
    reader, writer = await asyncio.open_connection(*sink.http_address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, text = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    return head.split(b"\r\n")[0].decode(), text


async def test_smtplib_delivers(sink: Sink) -> None:
    """smtplib sends a message to two recipients, one of which is refused; the sink holds it octet for octet."""

    def work(client: smtplib.SMTP) -> Any:
        client.ehlo()
        assert {"pipelining", "8bitmime", "smtputf8", "dsn", "enhancedstatuscodes", "size"} <= set(
            client.esmtp_features
        )
        assert "starttls" not in client.esmtp_features and "auth" not in client.esmtp_features
        return client.sendmail("a@example.org", ["ok@x.test", "550-1@x.test"], CONTENT, ["BODY=8BITMIME"])

    refused = await in_thread(sink, work)
    assert {address: code for address, (code, _) in refused.items()} == {"550-1@x.test": 550}
    await sink.wait_for(1, 5)
    (mail,) = sink.messages
    assert (mail.number, mail.reverse_path, mail.recipients) == (1, "a@example.org", ("ok@x.test",))
    assert "BODY=8BITMIME" in mail.mail.upper()
    assert mail.content == CONTENT
    assert (sink.counts.recipients_accepted, sink.counts.recipients_refused) == (1, {550: 1})


async def test_content_is_not_changed(sink: Sink) -> None:
    """Raw content with a bare line end is held as it was sent."""
    async with connected(sink) as lines:
        assert await lines.send("250@x.test") == ["250", "250", "354", "250"]
    assert sink.messages[0].content == CONTENT
    assert sink.counts.octets == len(CONTENT)
    assert sink.counts.ids == {"<1@example.org>": 1}


@pytest.mark.parametrize(
    ("local", "codes"),
    [
        ("451", ["250", "451", "554"]),
        ("550.5.7.1-4", ["250", "550", "554"]),
        ("data-451", ["250", "250", "354", "451"]),
        ("data-554-2", ["250", "250", "354", "554"]),
        ("data-421", ["250", "250", "354", "421"]),
        ("drop-data", ["250", "250", "clo"]),
        ("drop-dot-1", ["250", "250", "354", "clo"]),
    ],
)
async def test_misbehaviour_by_recipient(sink: Sink, local: str, codes: list[str]) -> None:
    """Refusals come at their place, and connections close where the address says; no message is counted."""
    async with connected(sink) as lines:
        assert await lines.send(f"{local}@x.test") == codes
        if codes[-1] in ("clo", "421"):
            assert await lines.read() == "closed"
        else:
            assert (await lines.ask(b"NOOP\r\n"))[0].startswith("250")
    assert sink.counts.messages == 0


async def test_drop_mail_answers_nothing(sink: Sink) -> None:
    """A pipelined MAIL and RCPT of drop-mail@ get no reply at all, and neither does a MAIL from it."""
    for text in (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<drop-mail@x.test>\r\n", b"MAIL FROM:<drop-mail-1@b.test>\r\n"):
        async with connected(sink) as lines:
            assert await lines.ask(text) == ["closed"]
    assert sink.counts.dropped == {"drop-mail": 2}


async def test_421_closes(sink: Sink) -> None:
    """421 to RCPT is answered, and then the connection ends."""
    async with connected(sink) as lines:
        replies = await lines.ask(b"MAIL FROM:<>\r\nRCPT TO:<421@x.test>\r\nNOOP\r\n", 3)
        assert [reply[:3] for reply in replies] == ["250", "421", "clo"]


@pytest.mark.parametrize(
    ("local", "first"),
    [("451.once", "451"), ("data-451.once-7", "451"), ("drop-dot.once", "clo")],
)
async def test_once_then_good(sink: Sink, local: str, first: str) -> None:
    """An address with once misbehaves the first time only, and each address for itself."""
    for number in (1, 2):
        address = f"{local}@x{number}.test"
        async with connected(sink) as lines:
            assert first in await lines.send(address)
        async with connected(sink) as lines:
            assert (await lines.send(address))[-1] == "250"
    assert sink.counts.messages == 2


async def test_some_recipients_are_refused_and_the_rest_get_it(sink: Sink) -> None:
    """A transaction goes on with the recipients that were accepted."""
    async with connected(sink) as lines:
        codes = await lines.send("550@x.test", "ok@x.test", "452.4.2.2@x.test")
        assert codes == ["250", "550", "250", "452", "354", "250"]
    assert sink.messages[0].recipients == ("ok@x.test",)
    assert sink.counts.recipients_refused == {550: 1, 452: 1}


async def test_slow_waits_before_each_reply(sink: Sink) -> None:
    """Each reply from RCPT to the end of data comes so much later, pipelined ones too; then it is fast again."""
    async with connected(sink) as lines:
        begin = time.monotonic()
        await lines.ask(b"MAIL FROM:<>\r\nRCPT TO:<slow-60@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n", 4)
        assert 0.17 < time.monotonic() - begin < 2
        begin = time.monotonic()
        assert (await lines.ask(b"x\r\n.\r\nNOOP\r\nQUIT\r\n", 4))[-1] == "closed"
        assert 0.05 < time.monotonic() - begin < 2
    assert sink.counts.messages == 1


async def test_slow_last_reply_is_written_before_closing(sink: Sink) -> None:
    """A slow QUIT gets its reply before the connection ends."""
    async with connected(sink) as lines:
        text = b"MAIL FROM:<>\r\nRCPT TO:<slow-20@x.test>\r\nQUIT\r\n"
        assert [reply[:3] for reply in await lines.ask(text, 4)] == ["250", "250", "221", "clo"]


async def test_hang_answers_no_more(sink: Sink) -> None:
    """After hang@ nothing is answered, and the connection stays open."""
    async with connected(sink) as lines:
        assert (await lines.ask(b"MAIL FROM:<>\r\nRCPT TO:<hang@x.test>\r\nNOOP\r\n"))[0].startswith("250")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lines.reader.read(1), 0.2)
    assert sink.counts.dropped == {"hang": 1}


async def test_garbage_and_huge_replies(sink: Sink) -> None:
    """garbage@ answers with no reply at all, huge@ with one of 100 KB."""
    async with connected(sink) as lines:
        replies = await lines.ask(b"MAIL FROM:<>\r\nRCPT TO:<garbage@x.test>\r\nRCPT TO:<huge@x.test>\r\n", 3)
        assert not replies[1][:3].isdigit()
        assert 90_000 < len(replies[2]) < 110_000


async def test_commands_out_of_order(sink: Sink) -> None:
    """RCPT and DATA without MAIL, MAIL twice, unknown verbs and a line without end are refused."""
    async with connected(sink) as lines:
        text = b"DATA\r\nRCPT TO:<a@b.test>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRSET\r\nXYZZY 3\r\nMAIL x\r\n"
        codes = [reply[:3] for reply in await lines.ask(text, 8)]
        assert codes == ["503", "503", "250", "503", "554", "250", "500", "501"]
        assert [reply[:3] for reply in await lines.ask(b"x" * 40_000, 2)] == ["500", "clo"]


async def test_chunks(sink: Sink) -> None:
    """BDAT takes content as it is, in one chunk or several; what is refused is read all the same (RFC 3030 2)."""
    async with connected(sink) as lines:
        begin = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@b.test>\r\n"
        text = begin + b"BDAT 10 LAST\r\n.\r\n..\r\nx\r\n" + begin + b"BDAT 4\r\nab\r\nBDAT 0 LAST\r\n"
        assert [reply[:3] for reply in await lines.ask(text, 7)] == ["250"] * 7
        assert [mail.content for mail in sink.messages] == [b".\r\n..\r\nx\r\n", b"ab\r\n"]
        text = b"BDAT 6 LAST\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<550@b.test>\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\n"
        assert [reply[:3] for reply in await lines.ask(text, 5)] == ["503", "250", "550", "554", "250"]
        assert [reply[:3] for reply in await lines.ask(begin + b"BDAT 6 LAST\r\nQU", 2)] == ["250", "250"]
        assert [reply[:3] for reply in await lines.ask(b"IT\r\n", 1)] == ["250"]
        assert [reply[:3] for reply in await lines.ask(b"BDAT x\r\n", 2)] == ["555", "clo"]


async def test_what_is_not_offered_is_refused() -> None:
    """Without 8BITMIME, SMTPUTF8, DSN and SIZE their parameters get 555, and replies have no enhanced status."""
    sink = Sink(SinkSettings(offers=Extensions(), max_recipients=1))
    await sink.start()
    try:
        async with connected(sink) as lines:
            assert await lines.ask(b"EHLO x\r\n") == ["250 sink.test"]
            for parameter in (b"BODY=8BITMIME", b"SMTPUTF8", b"RET=HDRS", b"SIZE=10"):
                assert (await lines.ask(b"MAIL FROM:<a@b.test> %b\r\n" % parameter))[0].startswith("555 MAIL")
            text = b"MAIL FROM:<>\r\nRCPT TO:<a@b.test> NOTIFY=NEVER\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\n"
            assert [reply[:3] for reply in await lines.ask(text, 4)] == ["250", "555", "250", "452"]
            assert (await lines.ask(b"BDAT 1 LAST\r\n", 1))[0].startswith("502")
    finally:
        await sink.stop()


async def test_too_big_is_refused() -> None:
    """A size that is announced too big gets 552 at MAIL, one that turns out too big gets it after the dot."""
    sink = Sink(SinkSettings(largest=50))
    await sink.start()
    try:
        async with connected(sink) as lines:
            assert (await lines.ask(b"MAIL FROM:<> SIZE=51\r\n"))[0].startswith("552 5.3.4")
            assert (await lines.send("a@x.test"))[-1] == "552"
    finally:
        await sink.stop()


async def test_too_many_connections_are_sent_away() -> None:
    """Above max_connections the greeting is 421."""
    sink = Sink(SinkSettings(max_connections=1))
    await sink.start()
    try:
        async with connected(sink):
            reader, writer = await asyncio.open_connection(*sink.address)
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"421 4.7.0")
            writer.close()
        assert (sink.counts.connections, sink.counts.connections_refused) == (2, 1)
    finally:
        await sink.stop()


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a server's and a client's TLS context."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_starttls_and_auth(mechanism: str) -> None:
    """smtplib upgrades to TLS and logs in by each mechanism; without login MAIL is refused 530."""
    server, trusted = contexts()
    settings = SinkSettings(username="u", password="p", auth_needs_tls=True, require_auth=True, mechanisms=(mechanism,))
    sink = Sink(settings, server)
    await sink.start()

    def work(client: smtplib.SMTP) -> None:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        client.starttls(context=trusted)
        assert client.mail("a@b.test")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("u", "wrong")
        client.login("u", "p")
        client.sendmail("a@b.test", ["x@y.test"], CONTENT)

    try:
        await in_thread(sink, work)
        (mail,) = sink.messages
        assert (mail.identity, mail.tls[:4]) == ("u", "TLSv")
        assert (sink.counts.tls_sessions, sink.counts.logins) == (1, 1)
        assert "p" not in repr(settings).split("(")[1].split("=")
    finally:
        await sink.stop()


def test_starttls_on_uvloop() -> None:
    """The same dialog works on uvloop, whose TLS is its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_starttls_and_auth("PLAIN"))


async def test_implicit_tls() -> None:
    """TLS on connect works, and needs a context."""
    server, trusted = contexts()
    with pytest.raises(ValueError, match="context"):
        Sink(SinkSettings(implicit_tls=True))
    sink = Sink(SinkSettings(implicit_tls=True), server)
    host, port = await sink.start()

    def work() -> None:
        with smtplib.SMTP_SSL(host, port, timeout=5, context=trusted) as client:
            client.sendmail("a@b.test", ["x@y.test"], CONTENT)

    try:
        await asyncio.to_thread(work)
        assert sink.messages[0].tls
    finally:
        await sink.stop()


async def test_starttls_injection_and_failed_handshake() -> None:
    """Text behind STARTTLS is refused and never answered as a command; a client that speaks no TLS is dropped."""
    server, _ = contexts()
    sink = Sink(SinkSettings(), server)
    await sink.start()
    try:
        async with connected(sink) as lines:
            assert [r[:3] for r in await lines.ask(b"STARTTLS\r\nMAIL FROM:<>\r\n", 2)] == ["554", "clo"]
        async with connected(sink) as lines:
            assert (await lines.ask(b"STARTTLS\r\n"))[0].startswith("220")
            lines.writer.write(b"no tls at all\r\n")
            await asyncio.wait_for(lines.reader.read(), 5)
        for _ in range(50):
            if not sink.counts.connections_open:
                break
            await asyncio.sleep(0.02)
        assert sink.counts.connections_open == 0
    finally:
        await sink.stop()


async def test_http_shows_counts_and_messages(sink: Sink) -> None:
    """Counts, ids and kept messages can be fetched; what is gone or unknown is 404; only the last few are kept."""
    for number in range(5):
        async with connected(sink) as lines:
            assert (await lines.send(f"250-{number}@x.test"))[-1] == "250"
    status, text = await fetch(sink, "/counts")
    counts = json.loads(text)
    assert status.endswith("200 OK")
    assert (counts["messages"], counts["connections"], counts["transactions"]) == (5, 5, 5)
    assert counts["ids"] == {"different": 1, "repeated": 1, "left_out": 0}
    assert json.loads((await fetch(sink, "/ids"))[1]) == {"<1@example.org>": 5}
    assert [mail["number"] for mail in json.loads((await fetch(sink, "/messages"))[1])] == [3, 4, 5]
    assert (await fetch(sink, "/messages/5"))[1] == CONTENT
    for missing in ("/messages/1", "/messages/x", "/nothing"):
        assert (await fetch(sink, missing))[0].endswith("404 Not Found")


async def test_wait_for_tells_what_came(sink: Sink) -> None:
    """Waiting ends when the message comes, and otherwise says how many did."""
    waiting = asyncio.ensure_future(sink.wait_for(1, 5))
    await asyncio.sleep(0)
    async with connected(sink) as lines:
        await lines.send("a@x.test")
    await waiting
    with pytest.raises(TimeoutError, match="1 of 2"):
        await sink.wait_for(2, 0.05)


async def test_maildir_holds_each_message(tmp_path: Path) -> None:
    """Each message is one file in new/, envelope first; a folder that cannot be written is 452 4.3.1."""
    folder = tmp_path / "mail"
    sink = Sink(SinkSettings(maildir=folder))
    await sink.start()
    try:
        for _ in range(2):
            async with connected(sink) as lines:
                await lines.send("a@x.test", "b@x.test")
        files = list((folder / "new").iterdir())
        head = b"Return-Path: <a@example.org>\r\nDelivered-To: a@x.test\r\nDelivered-To: b@x.test\r\n"
        assert [path.read_bytes() for path in files] == [head + CONTENT] * 2
        assert not list((folder / "tmp").iterdir())
        (folder / "tmp").rmdir()
        async with connected(sink) as lines:
            assert (await lines.send("a@x.test"))[-1] == "452"
    finally:
        await sink.stop()


async def test_serve_runs_until_cancelled() -> None:
    """The command's body announces its addresses, takes mail, and sums up at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said: list[str] = []
    settings = SinkSettings(listen=f"127.0.0.1:{port}", http="127.0.0.1:0")
    running = asyncio.ensure_future(serve(settings, announce=said.append))
    while len(said) < 2:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = Lines(reader, writer)
    await lines.read()
    assert (await lines.send("a@x.test"))[-1] == "250"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert str(port) in said[0] and "/counts" in said[1] and said[-1].startswith("sink: 1 messages")
    writer.close()
