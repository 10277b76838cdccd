"""Content at the door: its end, its faults, its size, and what becomes of it when the client goes."""

import asyncio
import socket
import struct

import pytest
from doorstep import doorstep, on_both_loops

from smarthost.mail.event import Kind
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import DISK_FULL, HEADER_TOO_BIG, make_reply
from smarthost.policy.admission import BareNewlines

ENVELOPE = ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA")
SMUGGLED = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nsmuggled\r\n"
ENDINGS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r.\r",
    b"\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\0\r\n.\0\n",
    b"\r\n.\r\0\n",
    b"\r\n\0.\0\r\n",
    b"\r\n. \r\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
]


def reset(client):
    """Make the client's kernel send a reset instead of an orderly end."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


@pytest.mark.parametrize("bare", list(BareNewlines))
@pytest.mark.parametrize("ending", ENDINGS, ids=[repr(ending) for ending in ENDINGS])
async def test_no_other_ending_smuggles_a_second_message(tmp_path, ending, bare):
    """Only CRLF . CRLF ends content; whatever looks like it, there is one transaction and one reply at most."""
    async with doorstep(tmp_path, bare_newlines=bare) as step:
        client = await step.greeted()
        await client.say(*ENVELOPE)
        await client.send(b"Subject: x\r\n\r\none" + ending + SMUGGLED + b".\r\nQUIT\r\n")
        codes = [line[:3] for line in (await client.rest()).decode().splitlines()]
        assert len(codes) == 2
        assert codes[0] in ("250", "554")
        assert codes[1] == "221"
        assert len(step.intake.drafts) == 1
        accepted = step.intake.accepted
        assert len(accepted) == (codes[0] == "250")
        for draft in accepted:
            assert draft.content.endswith(b"smuggled\r\n")
            assert draft.content.count(b"\n") == draft.content.count(b"\r") == draft.content.count(b"\r\n")


@on_both_loops
async def test_bare_newlines_are_normalised_or_refused(tmp_path):
    """By default a bare CR or LF becomes CRLF; with reject it is 554 5.6.0, once, behind the end of data."""
    for bare, reply in ((BareNewlines.NORMALIZE, "250"), (BareNewlines.REJECT, "554 5.6.0 Bare")):
        async with doorstep(tmp_path, bare_newlines=bare) as step:
            client = await step.greeted()
            await client.say(*ENVELOPE)
            await client.send(b"a\nb\rc\r\n.\r\n")
            assert (await client.reply()).startswith(reply)
            if bare is BareNewlines.NORMALIZE:
                assert step.intake.accepted[0].content == b"a\r\nb\r\nc\r\n"
            else:
                assert step.intake.drafts[0].fate == "abandoned"
                assert step.events[-1].stage is Stage.CONTENT
            assert (await client.say("MAIL FROM:<>")).startswith("250")


@on_both_loops
async def test_a_draft_is_told_whether_lines_begin_with_a_dot(tmp_path):
    """Before its commit a draft learns it of the whole content: doubled dots, and what a bare newline makes of one."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for content, is_dotted in ((b"a.\r\nb\r\n", False), (b"..a\r\nb\r\n", True), (b"a\n.b\r\n", True)):
            await client.say(*ENVELOPE)
            await client.send(content + b".\r\n")
            assert (await client.reply()).startswith("250")
            assert step.intake.accepted[-1].is_dotted is is_dotted


@on_both_loops
async def test_nul_is_refused_behind_the_end_of_data(tmp_path):
    """554 5.6.0 once; the draft is dropped at the NUL and the rest is drained."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say(*ENVELOPE)
        await client.send(b"a\0b\r\n")
        await step.until(lambda: step.intake.drafts[0].fate == "abandoned")
        await client.send(b"more\r\n" * 10_000)
        await client.send(b".\r\nNOOP\r\n")
        assert (await client.reply()).startswith("554 5.6.0 NUL")
        assert (await client.reply()).startswith("250")


@on_both_loops
async def test_content_over_the_limit_is_dropped_at_once_and_refused_once(tmp_path):
    """552 5.3.4 behind the end of data; exactly the limit passes, dots of transparency do not count."""
    async with doorstep(tmp_path, max_message_size=1000) as step:
        client = await step.greeted()
        await client.say(*ENVELOPE)
        await client.send(b"x" * 1500)
        await step.until(lambda: step.intake.drafts[0].fate == "abandoned")
        await client.send(b"x" * 100_000 + b"\r\n.\r\n")
        assert (await client.reply()).startswith("552 5.3.4")
        for size, reply in ((998, "250"), (999, "552")):
            await client.say(*ENVELOPE)
            await client.send(b".." + b"x" * (size - 1) + b"\r\n.\r\n")
            assert (await client.reply()).startswith(reply)


@on_both_loops
async def test_a_refusal_of_the_draft_is_answered_once(tmp_path):
    """Known at the beginning it is told at DATA; known while content comes, behind the end of data."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        step.intake.refuses_at_once = DISK_FULL
        assert (await client.say(*ENVELOPE)).startswith("452 4.3.1")
        assert step.intake.drafts[0].fate == "abandoned"
        step.intake.refuses_at_once = None

        def refuse(draft):
            draft.refused = HEADER_TOO_BIG

        step.intake.on_write = refuse
        assert (await client.say(*ENVELOPE)).startswith("354")
        await client.send(b"x\r\n" * 10)
        await step.until(lambda: step.intake.drafts[1].fate == "abandoned")
        await client.send(b"y\r\n" * 10 + b".\r\nNOOP\r\n")
        assert (await client.reply()).startswith("552 5.3.4 Header")
        assert (await client.reply()).startswith("250")
        assert not step.intake.accepted


@on_both_loops
async def test_a_refused_commit_ends_the_transaction(tmp_path):
    """The draft's own reply goes to the client and to the feed; the next transaction starts clean."""
    async with doorstep(tmp_path) as step:
        step.intake.reply = make_reply(554, "5.4.6", "Too many hops")
        client = await step.greeted()
        await client.say(*ENVELOPE)
        assert (await client.say("x\r\n.")) == "554 5.4.6 Too many hops\r\n"
        (event,) = step.events
        assert event.event is Kind.REJECTED
        assert (event.code, event.status, event.sender) == (554, "5.4.6", "a@x.example")
        assert (await client.say("RCPT TO:<b@y.example>")).startswith("503")


@on_both_loops
async def test_reading_stops_while_the_disk_is_behind(tmp_path):
    """Above 1 MiB that is not on disk the door reads no more, and goes on when the draft says so."""
    async with doorstep(tmp_path) as step:
        step.intake.counts_backlog = True
        client = await step.greeted()
        await client.say(*ENVELOPE)
        sending = asyncio.ensure_future(client.send((b"x" * 998 + b"\r\n") * 16_000 + b".\r\n"))
        await step.until(lambda: bool(step.intake.drafts[0].on_drained))
        draft = step.intake.drafts[0]
        await asyncio.sleep(0.05)
        seen = len(draft.content)
        assert 1024 * 1024 < seen < 2 * 1024 * 1024
        assert not sending.done()
        (session,) = step.door.sessions
        for _ in range(400):
            step.door.tick()
        assert session in step.door.sessions, "waiting for our disk is not the client's idleness"
        while draft.fate == "open":
            draft.backlog = 0
            if draft.on_drained is not None:
                draft.on_drained()
            await asyncio.sleep(0)
        assert (await client.reply()).startswith("250")
        assert len(draft.content) == 16_000_000
        await sending


@on_both_loops
async def test_a_half_close_behind_the_end_of_data_still_gets_the_reply(tmp_path):
    """aiosmtpd cancels the session there; ours commits, answers and then closes."""
    for delay in (0, 0.05):
        async with doorstep(tmp_path) as step:
            step.intake.delay = delay
            client = await step.greeted()
            await client.say(*ENVELOPE)
            client.writer.write(b"x\r\n.\r\nNOOP\r\n")
            client.writer.write_eof()
            assert (await client.rest()).decode().splitlines() == ["250 2.0.0 queued as TEST", "250 2.0.0 Ok"]
            assert len(step.intake.accepted) == 1


@on_both_loops
async def test_a_disconnect_during_the_commit_does_not_undo_it(tmp_path):
    """What was asked to commit is never abandoned, whoever goes; the door waits for it at a drain."""
    async with doorstep(tmp_path) as step:
        step.intake.delay = None
        client = await step.greeted()
        await client.say(*ENVELOPE)
        await client.send(b"x\r\n.\r\n")
        await step.until(lambda: step.intake.drafts[0].fate == "committing")
        reset(client)
        await step.until(lambda: not step.door.sessions)
        assert step.door.commits == 1
        draining = asyncio.ensure_future(step.door.drain(5))
        await asyncio.sleep(0.02)
        assert not draining.done()
        step.intake.drafts[0].finish()
        assert await draining == 0
        assert step.intake.drafts[0].fate == "committed"
        assert step.door.commits == 0


@pytest.mark.parametrize("way", ["close", "half-close", "reset"])
@on_both_loops
async def test_content_without_its_end_is_never_a_message(tmp_path, way):
    """A client that goes before the end of data leaves nothing behind, however it goes."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say(*ENVELOPE)
        await client.send(b"Subject: x\r\n\r\nhalf\r\n.")
        await step.until(lambda: bool(step.intake.drafts[0].blocks))
        if way == "half-close":
            client.writer.write_eof()
        elif way == "close":
            client.writer.close()
        else:
            reset(client)
        await step.until(lambda: step.intake.drafts[0].fate == "abandoned")
        await step.until(lambda: not step.door.sessions)


@on_both_loops
async def test_an_error_of_our_own_is_temporary_and_says_nothing_of_the_mail(tmp_path, caplog):
    """421 4.3.0 and close, never a 5xx that would make the client give the mail up; the log has no content."""
    async with doorstep(tmp_path) as step:

        def fail(draft):
            raise ValueError("the secret content")

        step.intake.on_write = fail
        client = await step.greeted()
        await client.say(*ENVELOPE)
        await client.send(b"the secret content\r\n.\r\n")
        assert (await client.rest()).decode() == "421 4.3.0 Local error, closing\r\n"
        assert step.intake.drafts[0].fate == "abandoned"
        assert "ValueError" in caplog.text
        assert "secret" not in caplog.text.replace('raise ValueError("the secret content")', "")
        assert step.door.parts.counters.internal_errors["reception"] == 1


@on_both_loops
async def test_replies_are_not_held_back_by_the_kernel(tmp_path):
    """TCP_NODELAY is set on accepted connections: without it a reply could wait 40 ms."""
    async with doorstep(tmp_path) as step:
        await step.greeted()
        (session,) = step.door.sessions
        accepted = session._channel.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
