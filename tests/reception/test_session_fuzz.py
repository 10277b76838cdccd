"""Random octets over a live connection: the session answers or closes, keeps its invariants, and hurts nobody."""

import asyncio
import re
import tempfile
from pathlib import Path

from doorstep import doorstep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LINES = st.sampled_from(
    [
        b"EHLO x\r\n",
        b"HELO y\n",
        b"MAIL FROM:<a@x.example>\r\n",
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<b@y.example>\r\n",
        b"RCPT TO:<>\r\n",
        b"DATA\r\n",
        b"x\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"\n.\n",
        b"RSET\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH PLAIN AGFkYQBjb3JyZWN0IGhvcnNl\r\n",
        b"*\r\n",
        b"YWRh\r\n",
        b"HELP\r\n",
        b"VRFY x\r\n",
        b"NOOP\r\n",
        b"\0\r\n",
        b"x" * 600 + b"\r\n",
    ]
)
PIECES = st.lists(st.one_of(LINES, LINES, LINES, st.binary(max_size=40)), max_size=25)
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=8)
REPLY = re.compile(rb"(?:[2-5]\d\d-[^\r\n]*\r\n)*[2-5]\d\d [^\r\n]*\r\n")


async def talk(step, pieces, cuts):
    """Send pieces cut anew, read what comes back."""
    said = b"".join(pieces)
    before = len(step.intake.drafts)
    client = await step.connect()
    start = turn = 0
    while start < len(said):
        cut = cuts[turn % len(cuts)]
        client.writer.write(said[start : start + cut])
        start, turn = start + cut, turn + 1
        await asyncio.sleep(0)
    try:
        client.writer.write_eof()
        answer = await client.rest()
    except OSError:  # the door closed behind a QUIT, maybe before the rest was said
        answer = b""
    client.close()
    assert REPLY.sub(b"", answer) == b""
    drafts = step.intake.drafts[before:]
    await step.until(lambda: all(draft.fate in ("committed", "abandoned") for draft in drafts))
    committed = sum(draft.fate == "committed" for draft in drafts)
    assert answer.count(b"queued as TEST") == committed
    for draft in drafts:
        assert draft.envelope.recipients
        assert b"\0" not in draft.content
        assert draft.content.count(b"\n") == draft.content.count(b"\r") == draft.content.count(b"\r\n")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sessions=st.lists(st.tuples(PIECES, CUTS), min_size=1, max_size=4))
def test_any_octets_leave_the_door_in_order(sessions):
    """Several clients at once say anything, cut anywhere; every reply is well formed, each draft has one fate."""

    async def run():
        with tempfile.TemporaryDirectory() as folder:
            async with doorstep(Path(folder)) as step:
                await asyncio.gather(*(talk(step, pieces, cuts) for pieces, cuts in sessions))
                await step.until(lambda: not step.door.sessions)
                assert step.door.parts.counters.internal_errors == {}
                assert step.door.commits == 0
                assert step.door._crowds == {}
                step.door.parts.credentials.failures._times.clear()
                assert (await (await step.greeted()).say("NOOP")).startswith("250")

    asyncio.run(run())
