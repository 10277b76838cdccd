"""What bounds a session: lines, mistakes, idle talk, idle time, connections; none of it hurts others."""

import asyncio
import socket

import pytest
from doorstep import ADA, doorstep, on_both_loops

from smarthost.mail.event import Kind
from smarthost.mail.reply import SHUTTING_DOWN
from smarthost.policy.admission import Tls
from smarthost.reception.connection import INPUT_LIMIT

ENVELOPE = ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA")


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"NOOP " + b"x" * 505, "250"),
        (b"NOOP " + b"x" * 506, "500 5.5.6"),
        (b"MAIL FROM:<a@x.example> ENVID=" + b"x" * 600, "501"),
        (b"MAIL FROM:<a@x.example> ENVID=" + b"x" * 2050, "500 5.5.6"),
        (b"AUTH PLAIN " + b"A" * 12_200, "501 5.5.2"),
        (b"AUTH PLAIN " + b"A" * 12_400, "500 5.5.6"),
        (b"x" * 900_000, "500 5.5.6"),
        (b"x" * 2_000_000, "421 4.7.0"),
    ],
    ids=["short", "long", "parameters", "too many", "login", "long login", "huge", "endless"],
)
@on_both_loops
async def test_a_line_that_is_too_long_is_skipped(tmp_path, line, reply):
    """500 5.5.6 behind its end, and the next command is understood; memory holds no more than a line may have."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        (session,) = step.door.sessions
        sending = asyncio.ensure_future(client.send(line + b"\r\nNOOP\r\n"))
        answer = await client.reply()
        assert answer.startswith(reply)
        assert len(session._input) <= INPUT_LIMIT
        if not reply.startswith("421"):
            assert (await client.reply()).startswith("250")
            await sending
        else:
            assert await client.rest() == b""
            sending.cancel()


@on_both_loops
async def test_a_hundred_thousand_commands_are_answered_within_bounds(tmp_path):
    """Unread replies stop the door from taking more commands, so that no buffer grows; all are answered at last."""
    count = 100_000
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say("MAIL FROM:<a@x.example>")
        (session,) = step.door.sessions
        # The kernel's own buffers would hold it all.
        session._channel.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        command = b"RCPT TO:<b@y.example>\r\n"
        largest = 0

        async def send():
            for _ in range(count // 1000):
                await client.send(command * 1000)

        sending = asyncio.ensure_future(send())
        client.reader._transport.pause_reading()
        await asyncio.sleep(0.2)
        for _ in range(20):
            waiting = len(session._input) + session._channel.get_write_buffer_size()
            largest = max(largest, waiting)
            await asyncio.sleep(0.005)
        assert session._is_read_paused
        assert largest < 600_000
        client.reader._transport.resume_reading()
        for _ in range(count):
            line = await client.reader.readline()
            assert line == b"250 2.1.5 Recipient ok\r\n"
        await sending


@on_both_loops
async def test_one_flood_does_not_keep_others_waiting(tmp_path):
    """Another session is answered while 20,000 pipelined commands are worked off."""
    async with doorstep(tmp_path) as step:
        flood, other = await step.greeted(), await step.greeted()
        flood.writer.write(b"MAIL FROM:<a@x.example>\r\n" + b"RCPT TO:<b@y.example>\r\n" * 20_000)
        assert (await asyncio.wait_for(other.say("NOOP"), 1)).startswith("250")
        for _ in range(20_001):
            assert (await flood.reader.readline()).startswith(b"250")


@on_both_loops
async def test_twenty_mistakes_end_a_session_and_a_message_forgives(tmp_path):
    """421 4.7.0 behind the twentieth; an accepted message starts the count again."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for _ in range(19):
            assert (await client.say("FOO")).startswith("500")
        await client.say(*ENVELOPE)
        assert (await client.say(".")).startswith("250")
        await client.send(b"FOO\r\n" * 25)
        said = (await client.rest()).decode().splitlines()
        assert [line[:3] for line in said] == ["500"] * 20 + ["421"]


@on_both_loops
async def test_what_was_pipelined_behind_a_refused_mail_is_no_mistake(tmp_path):
    """A hundred RCPT behind a refused MAIL get their 503 and the session goes on."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        assert (await client.say("MAIL FROM:<>>", *["RCPT TO:<b@y.example>"] * 100, "DATA")).startswith("503")
        assert (await client.say("MAIL FROM:<>")).startswith("250")


@on_both_loops
async def test_a_thousand_refused_recipients_end_a_session(tmp_path):
    """A client may be wrong about many recipients, not about any number."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say("MAIL FROM:<a@x.example>")
        await client.send(b"RCPT TO:<>\r\n" * 1500)
        said = (await client.rest()).decode().splitlines()
        assert len(said) == 1001
        assert said[-1].startswith("421 4.7.0")


@pytest.mark.parametrize("verb", ["NOOP", "RSET", "VRFY x", "HELP", "EHLO x"])
async def test_idle_talk_ends_after_a_hundred(tmp_path, verb):
    """Commands that bring no mail are answered 100 times, then 421."""
    async with doorstep(tmp_path) as step:
        client = await step.connect()
        await client.say("HELO x")
        for _ in range(99):
            assert (await client.say(verb)).startswith("25")
        assert (await client.say(verb)).startswith("421 4.7.0")
        assert await client.rest() == b""


@on_both_loops
async def test_the_last_reply_reaches_a_client_that_still_sends(tmp_path):
    """Closing with unread input would make the kernel reset the connection and the reply be lost."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for _ in range(30):
            await client.send(b"FOO\r\n" * 1000)
            await asyncio.sleep(0.001)
        assert (await client.rest()).decode().splitlines()[-1].startswith("421 4.7.0")


@on_both_loops
async def test_an_idle_session_is_told_and_closed(tmp_path):
    """421 4.4.2 after 300 ticks without a word; a word starts the count again; so it is within content."""
    async with doorstep(tmp_path) as step:
        quiet, talker, sender = await step.greeted(), await step.greeted(), await step.greeted()
        await sender.say(*ENVELOPE)
        await sender.send(b"half")
        await step.until(lambda: bool(step.intake.drafts[0].blocks))
        for _ in range(299):
            step.door.tick()
        await talker.say("NOOP")
        assert len(step.door.sessions) == 3
        step.door.tick()
        for client in (quiet, sender):
            assert (await client.rest()).decode() == "421 4.4.2 Timeout, closing\r\n"
        assert step.intake.drafts[0].fate == "abandoned"
        assert (await talker.say("NOOP")).startswith("250")


@on_both_loops
async def test_slow_content_is_not_idle(tmp_path):
    """A long upload goes on as long as something comes; aiosmtpd cut it after 300 s."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say(*ENVELOPE)
        for number in range(1, 5):
            await client.send(b"line\r\n")
            await step.until(lambda wanted=number: len(step.intake.drafts[0].blocks) == wanted)
            for _ in range(200):
                step.door.tick()
        assert (await client.say(".")).startswith("250")


@on_both_loops
async def test_a_client_that_does_not_go_is_cut_off(tmp_path):
    """After the last reply a session lingers for ten ticks at most, even if the client keeps talking."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.send(b"FOO\r\n" * 20)
        await step.until(lambda: next(iter(step.door.sessions))._mode.value == "closing")
        for _ in range(10):
            await client.send(b"NOOP\r\n")
            step.door.tick()
        await step.until(lambda: not step.door.sessions)


@on_both_loops
async def test_connections_are_limited_in_all_and_per_address(tmp_path):
    """421 4.3.2 when the house is full, 421 4.7.0 for too many of one address; trusted ones are exempt from that."""
    async with doorstep(tmp_path, trusted=(), max_connections=3, max_connections_per_ip=2) as step:
        first, _ = await step.connect(), await step.connect()
        refused = await step.connect(greeting=False)
        assert (await refused.rest()).startswith(b"421 4.7.0 ")
        assert step.events[-1].event is Kind.REJECTED
        assert await first.say("QUIT")
        await step.until(lambda: len(step.door.sessions) == 1)
        await step.connect()
    async with doorstep(tmp_path, max_connections=3, max_connections_per_ip=1) as step:
        for _ in range(3):
            await step.connect()
        refused = await step.connect(greeting=False)
        assert (await refused.rest()).startswith(b"421 4.3.2 ")
        counters = step.door.parts.counters
        assert dict(counters.sessions) == {"127.0.0.1:0": 3}
        assert dict(counters.open_sessions) == {"127.0.0.1:0": 3}


@on_both_loops
async def test_a_house_that_closes_lets_content_finish(tmp_path):
    """Paused: new connections and commands are 421 4.3.2; content that is coming in is still accepted, then 421."""
    async with doorstep(tmp_path) as step:
        idle, sender, between = await step.greeted(), await step.greeted(), await step.greeted()
        await sender.say(*ENVELOPE)
        await between.say(ENVELOPE[0])
        step.door.paused = SHUTTING_DOWN
        refused = await step.connect(greeting=False)
        assert (await refused.rest()).startswith(b"421 4.3.2")
        assert (await between.say(ENVELOPE[1])).startswith("421 4.3.2")
        draining = asyncio.ensure_future(step.door.drain(5))
        assert (await idle.rest()).startswith(b"421 4.3.2")
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", step.port)
        await sender.send(b"x\r\n.\r\n")
        said = (await sender.rest()).decode().splitlines()
        assert [line[:9] for line in said] == ["250 2.0.0", "421 4.3.2"]
        assert await draining == 0
        assert len(step.intake.accepted) == 1


@on_both_loops
async def test_a_drain_cuts_off_who_does_not_finish(tmp_path):
    """At the deadline the rest is cut off and counted; its content is abandoned."""
    async with doorstep(tmp_path, users=(ADA,)) as step:
        sender = await step.greeted()
        await sender.say(*ENVELOPE)
        assert await step.door.drain(0.05) == 1
        await step.until(lambda: step.intake.drafts[0].fate == "abandoned")


async def test_an_idle_session_is_small(tmp_path):
    """A connection that says nothing holds a few KiB, so that two thousand of them are no attack."""
    import tracemalloc

    async with doorstep(tmp_path, tls=Tls.NONE, max_connections=500) as step:
        make = step.door._make_session
        listener = (await step.greeted()) and next(iter(step.door.sessions))._listener
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = [make(listener) for _ in range(200)]
        used = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
        tracemalloc.stop()
        assert used < 4096
