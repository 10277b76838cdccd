"""CHUNKING: whole transactions in one write, several in flight, and what is known of each when something goes wrong."""

from collections.abc import Callable

import pytest
from carried import GREETED, Lead, make_job, no_file, started
from smtp_peer import smtp_peer, wait_for

from smarthost.delivery.transfer import Terms
from smarthost.mail.outcome import Stage
from smarthost.policy.depth import DEEPEST, FIRST_PROOF, Depth

CHUNKING = GREETED.replace("<- 250-SIZE", "<- 250-CHUNKING\n<- 250-SIZE")
CONTENT = b"Subject: x\r\n\r\n.dot\r\nend\r\n"
WHOLE = "-> MAIL *\n-> RCPT TO:<r1@c.example>\n-> BDAT 25 LAST\n"
NEXT = "-> RSET\n" + WHOLE
TAKEN = "<- 250 2.1.0 ok\n<- 250 2.1.5 ok\n<- 250 2.6.0 taken\n"
TAKEN_NEXT = "<- 250 2.0.0 reset\n" + TAKEN
ENVELOPE = "-> MAIL *\n-> RCPT TO:<r1@c.example>\n-> DATA\n"
QUIT = "-> QUIT\n== end\n"


def terms(depth: Depth) -> Terms:
    """Share a site's depth."""
    return Terms(no_file, depth=depth)


def proved() -> Depth:
    """Make the depth of a site that has shown that it copes."""
    depth = Depth()
    for _ in range(FIRST_PROOF):
        depth.coped()
    return depth


def settled(lead: Lead, count: int) -> Callable[[], bool]:
    """Whether so many jobs are settled."""
    return lambda: len(lead.settled) == count


async def test_a_transaction_is_one_write() -> None:
    """Envelope and content go out together, without transparency dots; the reply to BDAT is the outcome."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(CHUNKING + WHOLE + TAKEN + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        assert transfer.is_idle
        transfer.close()
    assert peer.contents == [CONTENT]
    assert len(peer.reads[0]) == 3
    assert lead.verdicts() == [["r1 relayed 2.6.0"]]
    assert lead.settled[0][1][0].stage is Stage.CONTENT


async def test_one_at_a_time_until_proved_then_several() -> None:
    """The first contents go one by one; then as many as are allowed are written without waiting."""
    depth = Depth()
    lead = Lead(*[make_job("r1") for _ in range(FIRST_PROOF + DEEPEST + 1)])
    several = WHOLE + NEXT * (DEEPEST - 1) + TAKEN + NEXT + TAKEN_NEXT * DEEPEST
    async with smtp_peer(CHUNKING + (WHOLE + TAKEN) * FIRST_PROOF + several + QUIT) as peer:
        transfer = await started(peer.port, lead, terms(depth))
        await wait_for(settled(lead, FIRST_PROOF + DEEPEST + 1))
        transfer.close()
    assert all(verdicts == ["r1 relayed 2.6.0"] for verdicts in lead.verdicts())
    assert depth.depth == DEEPEST


async def test_work_that_comes_late_joins() -> None:
    """A job that comes while others are in flight is written at once if there is room."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(CHUNKING + WHOLE + NEXT + TAKEN + TAKEN_NEXT + QUIT) as peer:
        transfer = await started(peer.port, lead, terms(proved()))
        await wait_for(lambda: bool(peer.contents))
        assert transfer.is_brisk(lead.clock()) and not transfer.is_idle
        lead.jobs.append(make_job("r1"))
        transfer.wake()
        await wait_for(settled(lead, 2))
        transfer.close()


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("<- 550 5.7.1 not you\n<- 503 5.5.1 need MAIL\n<- 503 5.5.1 need MAIL\n", "r1 failed 5.7.1"),
        ("<- 451 4.7.1 later\n<- 250 2.1.5 ok\n<- 250 2.0.0 ok\n", "r1 delayed 4.7.1"),
        ("<- 250 ok\n<- 550 5.1.1 nobody\n<- 554 5.5.1 no recipients\n", "r1 failed 5.1.1"),
        ("<- 250 ok\n<- 550 5.1.1 nobody\n<- 250 2.0.0 what for\n", "r1 failed 5.1.1"),
        ("<- 250 ok\n<- 250 ok\n<- 554 5.7.1 spam\n", "r1 failed 5.7.1"),
        ("<- 250 ok\n<- 250 ok\n<- 452 4.3.1 full\n", "r1 delayed 4.3.1"),
    ],
)
async def test_a_refusal_touches_its_own_transaction(said: str, verdict: str) -> None:
    """Whatever is refused, and whatever is said of what was written behind it: the next one begins anew, by RSET."""
    lead = Lead(make_job("r1"), make_job("r1"), make_job("r1"))
    dialog = CHUNKING + WHOLE + NEXT * 2 + said + TAKEN_NEXT * 2
    async with smtp_peer(dialog + QUIT) as peer:
        transfer = await started(peer.port, lead, terms(proved()))
        await wait_for(settled(lead, 3))
        transfer.close()
    assert lead.verdicts() == [[verdict], ["r1 relayed 2.6.0"], ["r1 relayed 2.6.0"]]


async def test_a_refusal_that_leaves_mail_open_alone() -> None:
    """With nothing in flight behind it, RSET goes before the next one all the same."""
    lead = Lead(make_job("r1"))
    dialog = WHOLE + "<- 250 ok\n<- 550 5.1.1 no\n<- 554 5.5.1 none\n-> RSET\n<- 250 ok\n" + WHOLE + TAKEN
    async with smtp_peer(CHUNKING + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        await wait_for(lambda: transfer.is_idle)
        lead.jobs.append(make_job("r1"))
        transfer.wake()
        await wait_for(settled(lead, 2))
        transfer.close()
    assert lead.verdicts() == [["r1 failed 5.1.1"], ["r1 relayed 2.6.0"]]


async def test_partial_recipients() -> None:
    """Each recipient gets what was said of it."""
    lead = Lead(make_job("r1", "r2", "r3"))
    said = "<- 250 ok\n<- 550 5.1.1 no\n<- 250 ok\n<- 450 4.2.1 busy\n<- 250 2.6.0 taken\n"
    dialog = "-> MAIL *\n-> RCPT *\n-> RCPT *\n-> RCPT *\n-> BDAT 25 LAST\n" + said
    async with smtp_peer(CHUNKING + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        transfer.close()
    assert lead.verdicts() == [["r1 failed 5.1.1", "r3 delayed 4.2.1", "r2 relayed 2.6.0"]]


@pytest.mark.parametrize("end", ["== close", "== reset"])
async def test_what_was_in_flight_is_ambiguous(end: str) -> None:
    """The connection dies behind the first reply: the others may have arrived, so they are delayed and marked."""
    depth = proved()
    lead = Lead(*[make_job("r1") for _ in range(DEEPEST)])
    dialog = CHUNKING + WHOLE + NEXT * (DEEPEST - 1) + TAKEN + "== stall 100\n" + end
    async with smtp_peer(dialog) as peer:
        await started(peer.port, lead, terms(depth))
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 relayed 2.6.0"], *[["r1 delayed 4.4.2"]] * (DEEPEST - 1)]
    assert [job[1][0].ambiguous for job in lead.settled] == [False, *[True] * (DEEPEST - 1)]
    assert lead.ending.untouched == ()
    assert depth.depth == 1


async def test_a_dismissal_takes_nothing() -> None:
    """421 instead of an answer to the second: it is delayed as told, and what stood behind it goes elsewhere."""
    lead = Lead(*[make_job("r1") for _ in range(3)])
    dialog = CHUNKING + WHOLE + NEXT * 2 + TAKEN + "<- 250 reset\n<- 421 4.3.2 leaving\n== close"
    async with smtp_peer(dialog) as peer:
        await started(peer.port, lead, terms(proved()))
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 relayed 2.6.0"]]
    assert len(lead.ending.untouched) == 2


async def test_a_verdict_on_the_host_leaves_the_rest_ambiguous() -> None:
    """We end the session because of the first one's reply: the others were sent whole, and nobody has refused them."""
    lead = Lead(*[make_job("r1") for _ in range(3)])
    said = "<- 530 5.7.0 log in\n<- 503 5.5.1 need MAIL\n<- 503 5.5.1 need MAIL\n== hang"
    async with smtp_peer(CHUNKING + WHOLE + NEXT * 2 + said) as peer:
        await started(peer.port, lead, terms(proved()))
        await wait_for(lambda: bool(lead.endings))
    assert [len(job[1]) for job in lead.settled] == [1, 1, 1]
    assert [(o.ambiguous, str(o.action), o.reply is None) for _, (o,), _ in lead.settled] == [
        (False, "delayed", False),
        (True, "delayed", True),
        (True, "delayed", True),
    ]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("<- 250 ok\n<- 250 ok\n<- 502 5.5.1 what\n", "r1 again"),
        ("<- 550 5.7.1 not you\n<- 503 5.5.1 need MAIL\n<- 502 5.5.1 what\n", "r1 failed 5.7.1"),
    ],
    ids=["accepted", "refused"],
)
async def test_bdat_that_is_not_known_after_all(said: str, verdict: str) -> None:
    """A peer that offers CHUNKING and knows no BDAT takes the content for commands: none of its replies is believed."""
    depth = Depth()
    lead = Lead(make_job("r1"), make_job("r1"))
    async with smtp_peer(CHUNKING + WHOLE + said + "<- 500 what\n" * 5 + "== hang") as peer:
        await started(peer.port, lead, terms(depth))
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [[verdict]]
    assert not lead.ending.untouched and len(lead.jobs) == 1
    assert not depth.is_usable


async def test_large_content_goes_by_data() -> None:
    """What is large is not sent before its recipients are accepted; behind it, small ones are written as envelopes."""
    lead = Lead(make_job("r1", content=b"x" * 70 * 1024 + b"\r\n", size=25), make_job("r1"))
    large = ENVELOPE + "<- 250 ok\n<- 250 ok\n<- 354 go\n-> ...\n"
    dialog = CHUNKING + large + ENVELOPE + "<- 250 ok\n<- 250 ok\n<- 250 ok\n<- 354 go\n-> ...\n<- 250 2.6.0 taken\n"
    async with smtp_peer(dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert lead.verdicts() == [["r1 relayed 2.0.0"], ["r1 relayed 2.6.0"]]


async def test_large_content_among_small_ones() -> None:
    """Behind a chunk, a large one's envelope waits for its 354; behind its dot, chunks follow."""
    big = make_job("r1", content=b"x" * 70 * 1024 + b"\r\n", size=25)
    lead = Lead(make_job("r1"), big, make_job("r1"))
    dialog = (
        WHOLE + "-> RSET\n" + ENVELOPE + TAKEN + "<- 250 reset\n<- 250 ok\n<- 250 ok\n<- 354 go\n-> ...\n" + NEXT
        + "<- 250 2.0.0 big\n" + TAKEN_NEXT
    )  # fmt: skip
    async with smtp_peer(CHUNKING + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead, terms(proved()))
        await wait_for(settled(lead, 3))
        transfer.close()
    assert lead.verdicts() == [["r1 relayed 2.6.0"], ["r1 relayed 2.0.0"], ["r1 relayed 2.6.0"]]


async def test_a_retry_goes_by_data() -> None:
    """What was tried before may have arrived, so its content waits for its recipients."""
    job = make_job("r1")
    job.entry.attempts = 1
    lead = Lead(job)
    dialog = ENVELOPE + "<- 250 ok\n<- 250 ok\n<- 354 go\n-> ...\n<- 250 2.6.0 taken\n"
    async with smtp_peer(CHUNKING + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        transfer.close()


async def test_chunking_needs_pipelining() -> None:
    """Without PIPELINING there is nothing to gain: DATA, command by command."""
    greeted = CHUNKING.replace("<- 250-PIPELINING\n", "")
    dialog = "-> MAIL *\n<- 250 ok\n-> RCPT *\n<- 250 ok\n-> DATA\n<- 354 go\n-> ...\n<- 250 2.0.0 ok\n"
    lead = Lead(make_job("r1"))
    async with smtp_peer(greeted + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        transfer.close()


def test_depth() -> None:
    """A surprise makes it careful, for twice as many proofs each time."""
    depth = proved()
    assert depth.depth == DEEPEST
    depth.surprised()
    for _ in range(2 * FIRST_PROOF - 1):
        depth.coped()
    assert depth.depth == 1
    depth.coped()
    assert depth.depth == DEEPEST
