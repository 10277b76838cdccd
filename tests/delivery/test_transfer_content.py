"""What a transfer says in MAIL and RCPT, what it refuses by itself, and contents that come from files."""

import asyncio
import ssl

import pytest
import trustme
from carried import GREETED, GREETED_PLAINLY, Lead, make_job, no_file, started
from smtp_peer import smtp_peer, wait_for

from smarthost.delivery.transfer import Terms, Transfer
from smarthost.mail.envelope import Notify, Recipient, Ret
from smarthost.mail.outcome import Action, Stage
from smarthost.mail.route import Host, TlsLevel
from smarthost.network.session import Session, SessionSettings, Timeouts, open_session
from smarthost.policy.classify import NetFault

GREETED_FULLY = """
<- 220 peer ESMTP
-> EHLO relay.example
<- 250-peer
<- 250-PIPELINING
<- 250-SIZE
<- 250-DSN
<- 250-8BITMIME
<- 250 SMTPUTF8
"""
TAKEN = "<- 250 ok\n<- 250 ok\n<- 354 go\n"
REST = TAKEN + "-> ...\n<- 250 ok\n-> QUIT\n== end\n"
MIB = 1024 * 1024


class Files:
    """A content file in memory; may be short or unreadable."""

    def __init__(self, octets: bytes, *, fails_at: int = 1 << 60) -> None:
        """Take what the file holds, and the offset from which on reading fails."""
        self.octets = octets
        self.fails_at = fails_at
        self.read = 0

    async def __call__(self, file: str, offset: int, count: int) -> bytes:
        """Read a block."""
        assert file == "content-7"
        await asyncio.sleep(0)
        if offset >= self.fails_at:
            raise OSError(5, "Input/output error")
        block = self.octets[offset : offset + count]
        self.read += len(block)
        return block


async def test_dsn_parameters() -> None:
    """A peer that offers DSN gets RET, ENVID, NOTIFY and ORCPT."""
    recipient = Recipient("r1@c.example", "c.example", Notify.FAILURE | Notify.DELAY, "rfc822;old+r@c.example")
    lead = Lead(make_job(recipients=[recipient], ret=Ret.HDRS, envid="id 7"))
    dialog = """
    -> MAIL FROM:<a@b.example> SIZE=25 RET=HDRS ENVID=id+207
    -> RCPT TO:<r1@c.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;old+2Br@c.example
    -> DATA
    """
    async with smtp_peer(GREETED_FULLY + dialog + REST) as peer:
        transfer = await started(peer.port, lead)
        assert transfer.offers_dsn
        await wait_for(lambda: bool(lead.settled))
        transfer.close()


async def test_no_parameters_for_a_plain_peer() -> None:
    """A peer that offers nothing gets bare commands."""
    recipient = Recipient("r1@c.example", "c.example", Notify.NEVER, "rfc822;x@y")
    lead = Lead(make_job(recipients=[recipient], ret=Ret.FULL, envid="id", reverse_path=""))
    dialog = "-> MAIL FROM:<>\n<- 250 ok\n-> RCPT TO:<r1@c.example>\n<- 250 ok\n-> DATA\n<- 354 go\n"
    async with smtp_peer(GREETED_PLAINLY + dialog + "-> ...\n<- 250 ok\n-> QUIT\n== end\n") as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: bool(lead.settled))
        transfer.close()


@pytest.mark.parametrize(
    ("job", "mail"),
    [
        (make_job("r1", eight_bit=True), "MAIL FROM:<a@b.example> SIZE=25 BODY=8BITMIME"),
        (make_job("r1", utf8_header=True), "MAIL FROM:<a@b.example> SIZE=25 BODY=8BITMIME SMTPUTF8"),
        (make_job("r1", reverse_path="ä@b.example"), "MAIL FROM:<ä@b.example> SIZE=25 SMTPUTF8"),
        (make_job("ü"), "MAIL FROM:<a@b.example> SIZE=25 SMTPUTF8"),
    ],
)
async def test_what_the_message_needs_is_said(job, mail: str) -> None:  # type: ignore[no-untyped-def]
    """BODY and SMTPUTF8 are said when the message needs them."""
    lead = Lead(job)
    async with smtp_peer(GREETED_FULLY + f"-> {mail}\n-> RCPT *\n-> DATA\n" + REST) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: bool(lead.settled))
        transfer.close()
    assert lead.settled[0][1][0].action is Action.RELAYED


async def test_what_the_peer_cannot_take_fails_here() -> None:
    """Without 8BITMIME, SMTPUTF8 or enough SIZE the message fails by our own decision, and the next job is taken."""
    lead = Lead(
        make_job("r1", "r2", eight_bit=True),
        make_job("r1", utf8_header=True),
        make_job("r1", reverse_path="ä@b.example"),
        make_job("ü"),
        make_job("r1", size=1001),
        make_job("r1", size=1000),
    )
    greeted = GREETED_PLAINLY.replace("<- 250 peer", "<- 250-peer\n<- 250-PIPELINING\n<- 250 SIZE 1000")
    async with smtp_peer(greeted + "-> MAIL *\n-> RCPT *\n-> DATA\n" + REST) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: len(lead.settled) == 6)
        transfer.close()
    assert lead.verdicts() == [
        ["r1 failed 5.6.3", "r2 failed 5.6.3"],
        ["r1 failed 5.6.7"],
        ["r1 failed 5.6.7"],
        ["ü failed 5.6.7"],
        ["r1 failed 5.3.4"],
        ["r1 relayed 2.0.0"],
    ]
    assert all(outcome.reply is None for _, outcomes, _ in lead.settled[:5] for outcome in outcomes)


async def test_an_address_with_a_line_end_is_never_sent() -> None:
    """An address that would inject a command fails alone; the session goes on."""
    evil = Recipient("a@c.example>\r\nRCPT TO:<x@y", "c.example")
    lead = Lead(make_job(recipients=[evil]), make_job("r1"))
    async with smtp_peer(GREETED + "-> MAIL *\n-> RCPT TO:<r1@c.example>\n-> DATA\n" + REST) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: len(lead.settled) == 2)
        transfer.close()
    assert str(lead.settled[0][1][0].status) == "5.1.3"


def large(size: int) -> bytes:
    """Make content with dots at line starts."""
    line = b".line with a dot " + b"x" * 60 + b"\r\n"
    return line * (size // len(line))


async def test_content_from_a_file() -> None:
    """Signatures in front, then the file block by block, dots doubled; the next envelope rides behind the end."""
    head, octets = b"DKIM-Signature: x\r\n", b"Subject: x\r\n\r\n" + large(12 * MIB)
    files = Files(octets)
    job = make_job("r1", content=head, size=len(head) + len(octets), file="content-7")
    lead = Lead(job, make_job("r1"))
    greeted = GREETED.replace("100000", "0")
    dialog = f"-> MAIL FROM:<a@b.example> SIZE={len(head) + len(octets)}\n-> RCPT *\n-> DATA\n" + TAKEN
    dialog += "== stall 50\n-> ...\n-> MAIL *\n-> RCPT *\n-> DATA\n<- 250 2.0.0 ok\n" + REST
    async with smtp_peer(greeted + dialog) as peer:
        transfer = await started(peer.port, lead, Terms(files))
        await asyncio.sleep(0.03)
        # The peer does not read yet: what is in memory is bounded.
        assert files.read <= 8 * MIB
        await wait_for(lambda: len(lead.settled) == 2)
        transfer.close()
    assert peer.contents[0] == (head + octets).replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert lead.verdicts() == [["r1 relayed 2.0.0"], ["r1 relayed 2.0.0"]]
    assert any(b"\r\n.\r\nMAIL FROM:" in read for read in peer.reads[0])


@pytest.mark.parametrize("files", [Files(large(MIB), fails_at=400_000), Files(large(MIB))])
async def test_content_that_cannot_be_read(files: Files) -> None:
    """A file that fails or is too short never gets an end of data: the connection is cut, the message delayed."""
    job = make_job("r1", content=b"", size=MIB, file="content-7")
    lead = Lead(job)
    dialog = "-> MAIL *\n-> RCPT *\n-> DATA\n" + TAKEN + "-> ...\n<- 250 wrong\n"
    async with smtp_peer(GREETED.replace("100000", "0") + dialog, complete=False) as peer:
        await started(peer.port, lead, Terms(files))
        await wait_for(lambda: bool(lead.endings))
        await asyncio.sleep(0.02)
        assert not peer.contents
    (outcome,) = lead.settled[0][1]
    assert (outcome.action, outcome.stage, outcome.reply) == (Action.DELAYED, Stage.QUEUE, None)
    assert "cannot be read" in outcome.reason
    assert not outcome.ambiguous


async def test_refusal_within_a_content() -> None:
    """A refusal before the content's end counts, and the session ends."""
    octets = large(4 * MIB)
    lead = Lead(make_job("r1", content=b"", size=len(octets), file="content-7"), make_job("r2"))
    dialog = "-> MAIL *\n-> RCPT *\n-> DATA\n" + TAKEN + "<- 552 5.3.4 enough\n== hang\n"
    async with smtp_peer(GREETED.replace("100000", "0") + dialog, complete=False) as peer:
        await started(peer.port, lead, Terms(Files(octets)))
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 failed 5.3.4"]]
    assert len(lead.jobs) == 1


async def test_content_that_does_not_move_times_out() -> None:
    """A peer that stops reading within a content is given 180 s without progress; that is not ambiguous."""
    octets = large(8 * MIB)
    lead = Lead(make_job("r1", content=b"", size=len(octets), file="content-7"))
    dialog = "-> MAIL *\n-> RCPT *\n-> DATA\n" + TAKEN + "== stall 3000\n"
    async with smtp_peer(GREETED.replace("100000", "0") + dialog, complete=False) as peer:
        transfer = await started(peer.port, lead, Terms(Files(octets)))
        await asyncio.sleep(0.2)
        now = lead.clock()
        transfer.check(now)
        transfer.check(now + 170)
        assert not lead.endings
        transfer.check(now + 190)
    assert lead.ending.fault is NetFault.TIMEOUT
    (outcome,) = lead.settled[0][1]
    assert (outcome.stage, outcome.ambiguous) == (Stage.CONTENT, False)


async def test_lost_within_a_content() -> None:
    """A connection that is lost within a content ends its reading; nothing is ambiguous."""
    octets = large(8 * MIB)
    lead = Lead(make_job("r1", content=b"", size=len(octets), file="content-7"))
    files = Files(octets)
    dialog = "-> MAIL *\n-> RCPT *\n-> DATA\n" + TAKEN + "== stall 20\n== reset\n"
    async with smtp_peer(GREETED.replace("100000", "0") + dialog) as peer:
        await started(peer.port, lead, Terms(files))
        await wait_for(lambda: bool(lead.endings))
        read = files.read
        await asyncio.sleep(0.02)
    assert files.read == read < len(octets)
    assert not lead.settled[0][1][0].ambiguous


async def test_no_file_for_small_content() -> None:
    """Content in memory asks for no file."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + "-> MAIL *\n-> RCPT *\n-> DATA\n" + REST) as peer:
        transfer = await started(peer.port, lead, Terms(no_file))
        await wait_for(lambda: bool(lead.settled))
        transfer.close()


async def test_transfer_over_tls() -> None:
    """Under TLS small and large contents go the same way, and the end is a QUIT."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("peer.example").configure_cert(server)
    authority.configure_trust(client)
    octets = large(2 * MIB)
    lead = Lead(make_job("r1"), make_job("r1", content=b"", size=len(octets), file="content-7"))
    dialog = "-> MAIL *\n-> RCPT *\n-> DATA\n" + TAKEN + "-> ...\n-> MAIL *\n-> RCPT *\n-> DATA\n<- 250 ok\n" + REST
    greeted = "<- 220 peer\n-> EHLO *\n<- 250-peer\n<- 250 STARTTLS\n-> STARTTLS\n<- 220 go\n== tls\n"
    again = "-> EHLO *\n<- 250-peer\n<- 250 PIPELINING\n"
    async with smtp_peer(greeted + again + dialog, context=server) as peer:
        host = Host("peer.example", ("127.0.0.1",), peer.port)
        settings = SessionSettings("relay.example", TlsLevel.VERIFY)
        session = await open_session(host, "127.0.0.1", settings, OneContext(client), Timeouts(), lead.clock)
        assert isinstance(session, Session), session
        transfer = Transfer(session, lead.next_job, lead.finished, lead.lost, Terms(Files(octets)), lead.clock)
        transfer.start()
        transfer.check(lead.clock())
        await wait_for(lambda: len(lead.settled) == 2)
        transfer.check(lead.clock())
        transfer.close()
    assert transfer.tls.startswith("TLSv1.3")
    assert peer.contents[1] == octets.replace(b"\r\n.", b"\r\n..").replace(b".", b"..", 1) + b".\r\n"
    assert lead.verdicts() == [["r1 relayed 2.0.0"]] * 2


class OneContext:
    """Gives the same client context for every level."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """Take the context."""
        self.context = context

    def for_level(self, level: TlsLevel, ca_file: str = "", client: tuple[str, str] = ("", "")) -> ssl.SSLContext:
        """Give it."""
        return self.context
