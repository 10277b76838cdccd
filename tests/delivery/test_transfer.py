"""The transfer against a scripted peer: what is written when, and what becomes of each recipient."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from carried import CONTENT, GREETED, GREETED_PLAINLY, ON_WIRE, Lead, make_job, no_file, started
from smtp_peer import smtp_peer, wait_for

from smarthost.delivery.transaction import envelope_commands
from smarthost.delivery.transfer import Terms
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Scope, Stage
from smarthost.policy.classify import NetFault
from smarthost.policy.limits import SiteLimits
from smarthost.wire.extensions import Extensions

ENVELOPE = """
-> MAIL FROM:<a@b.example> SIZE=25
-> RCPT TO:<r1@c.example>
-> DATA
"""
TAKEN = """
<- 250 2.1.0 ok
<- 250 2.1.5 ok
<- 354 go
"""
QUIT = """
-> QUIT
== end
"""


def settled(lead: Lead, count: int) -> Callable[[], bool]:
    """Whether so many jobs are settled."""
    return lambda: len(lead.settled) == count


async def test_one_transaction() -> None:
    """The envelope is one write, the content with its end another; the outcome names peer, reply and status."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n<- 250 2.0.0 queued as 7\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        assert transfer.is_idle
        transfer.close()
    (_, (outcome,), again) = lead.settled[0]
    assert (outcome.action, str(outcome.status), outcome.stage) == (Action.RELAYED, "2.0.0", Stage.CONTENT)
    assert (outcome.reason, outcome.host, outcome.address) == (
        "250 2.0.0 queued as 7",
        "peer.example",
        "127.0.0.1",
    )
    assert again == ()
    assert peer.reads[0][1:] == [
        b"MAIL FROM:<a@b.example> SIZE=25\r\nRCPT TO:<r1@c.example>\r\nDATA\r\n",
        ON_WIRE,
        b"QUIT\r\n",
    ]
    assert lead.ending.reason == "closed by us"


async def test_next_envelope_rides_behind_the_content() -> None:
    """The next MAIL, RCPT and DATA are in the same write as the end of the content before."""
    lead = Lead(make_job("r1"), make_job("r1"), make_job("r1"))
    both = "-> ...\n" + ENVELOPE + "<- 250 2.0.0 ok\n" + TAKEN
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + both + both + "-> ...\n<- 250 2.0.0 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 3))
        transfer.close()
    envelope = b"MAIL FROM:<a@b.example> SIZE=25\r\nRCPT TO:<r1@c.example>\r\nDATA\r\n"
    assert peer.reads[0][1:] == [envelope, ON_WIRE + envelope, ON_WIRE + envelope, ON_WIRE, b"QUIT\r\n"]
    assert lead.verdicts() == [["r1 relayed 2.0.0"]] * 3


async def test_work_that_comes_late_rides_too() -> None:
    """A job that comes while the final reply is awaited is written at once, not after it."""
    lead = Lead(make_job("r1"))
    dialog = GREETED + ENVELOPE + TAKEN + "-> ...\n" + ENVELOPE + "<- 250 2.0.0 ok\n" + TAKEN
    async with smtp_peer(dialog + "-> ...\n<- 250 2.0.0 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: bool(peer.contents))
        lead.jobs.append(make_job("r1"))
        transfer.wake()
        transfer.wake()
        await wait_for(settled(lead, 2))
        transfer.close()


async def test_idle_session_takes_work_at_once() -> None:
    """An idle session begins as soon as it is woken."""
    lead = Lead()
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n<- 250 2.0.0 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        assert transfer.is_idle
        lead.jobs.append(make_job("r1"))
        transfer.wake()
        assert not transfer.is_idle
        await wait_for(settled(lead, 1))
        transfer.close()


async def test_replies_octet_by_octet() -> None:
    """Replies that come one octet at a time mean the same."""
    lead = Lead(make_job("r1"), make_job("r1"))
    dialog = GREETED + "== drip\n" + ENVELOPE + TAKEN + "-> ...\n" + ENVELOPE + "<- 250-2.0.0 a\n<- 250 2.0.0 b\n"
    async with smtp_peer(dialog + TAKEN + "-> ...\n<- 250 2.0.0 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert lead.verdicts() == [["r1 relayed 2.0.0"]] * 2
    assert lead.settled[0][1][0].reason == "250 2.0.0 a b"


async def test_partial_recipients() -> None:
    """Each recipient gets what the peer said about it; those that were accepted get the final reply."""
    lead = Lead(make_job("r1", "r2", "r3"))
    dialog = """
    -> MAIL *
    -> RCPT TO:<r1@c.example>
    -> RCPT TO:<r2@c.example>
    -> RCPT TO:<r3@c.example>
    -> DATA
    <- 250 2.1.0 ok
    <- 550 5.1.1 no such user
    <- 250 2.1.5 ok
    <- 450 4.2.1 busy
    <- 354 go
    -> ...
    <- 250 2.6.0 fine
    """
    async with smtp_peer(GREETED + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        transfer.close()
    assert lead.verdicts() == [["r1 failed 5.1.1", "r3 delayed 4.2.1", "r2 relayed 2.6.0"]]
    assert [outcome.stage for outcome in lead.settled[0][1]] == [Stage.RCPT, Stage.RCPT, Stage.CONTENT]


async def test_too_many_recipients_travel_again() -> None:
    """452 4.5.3 behind an accepted recipient is no attempt: those recipients go into the next transaction."""
    lead = Lead(make_job("r1", "r2", "r3"))
    dialog = """
    -> MAIL *
    -> RCPT *
    -> RCPT *
    -> RCPT *
    -> DATA
    <- 250 ok
    <- 250 ok
    <- 452 4.5.3 too many
    <- 452 4.2.2 mailbox full
    <- 354 go
    -> ...
    <- 250 ok
    """
    async with smtp_peer(GREETED + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        transfer.close()
    assert lead.verdicts() == [["r3 delayed 4.2.2", "r1 relayed 2.0.0", "r2 again"]]


async def test_the_domains_of_one_transaction_are_limited() -> None:
    """RCPTDOMAINMAX=1: the recipients of the first domain go, those of others travel again (RFC 9422 4.3)."""
    addresses = ("r1@c.example", "r2@d.example", "r3@c.example")
    recipients = tuple(Recipient(address, address.rpartition("@")[2]) for address in addresses)
    lead = Lead(make_job(recipients=recipients))
    greeted = GREETED.replace("<- 250 ENHANCED", "<- 250-LIMITS RCPTMAX=10 RCPTDOMAINMAX=1\n<- 250 ENHANCED")
    dialog = """
    -> MAIL *
    -> RCPT TO:<r1@c.example>
    -> RCPT TO:<r3@c.example>
    -> DATA
    <- 250 ok
    <- 250 ok
    <- 250 ok
    <- 354 go
    -> ...
    <- 250 ok
    """
    async with smtp_peer(greeted + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        transfer.close()
    assert lead.verdicts() == [["r1 relayed 2.0.0", "r3 relayed 2.0.0", "r2 again"]]


@pytest.mark.parametrize("reply", ["550 5.7.1 not you", "451 4.7.1 later", "552 5.3.4 too big"])
async def test_refused_mail(reply: str) -> None:
    """A refused MAIL is every recipient's outcome; what is said about the pipelined rest is no verdict."""
    lead = Lead(make_job("r1", "r2"), make_job("r1"))
    dialog = f"""
    -> MAIL *
    -> RCPT *
    -> RCPT *
    -> DATA
    <- {reply}
    <- 503 5.5.1 need MAIL
    <- 250 2.1.5 what ever
    <- 503 5.5.1 need RCPT
    """
    async with smtp_peer(GREETED + dialog + ENVELOPE + TAKEN + "-> ...\n<- 250 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    action, status = ("failed" if reply[0] == "5" else "delayed"), reply.split()[1]
    assert lead.verdicts() == [[f"r1 {action} {status}", f"r2 {action} {status}"], ["r1 relayed 2.0.0"]]
    assert str(lead.settled[0][1][0].reply) == reply


async def test_all_recipients_refused_and_data_too() -> None:
    """With no recipient and no DATA there is nothing to send; RSET goes before the next envelope, in one write."""
    lead = Lead(make_job("r1"), make_job("r1"))
    dialog = ENVELOPE + "<- 250 ok\n<- 550 5.1.1 no\n<- 554 5.5.1 no valid recipients\n"
    then = "-> RSET\n" + ENVELOPE + "<- 250 ok\n" + TAKEN + "-> ...\n<- 250 ok\n"
    async with smtp_peer(GREETED + dialog + then + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert lead.verdicts() == [["r1 failed 5.1.1"], ["r1 relayed 2.0.0"]]
    assert peer.reads[0][2].startswith(b"RSET\r\nMAIL FROM:")


async def test_all_recipients_refused_but_data_taken() -> None:
    """A peer that wants content without a recipient gets an empty one, whose reply says nothing."""
    lead = Lead(make_job("r1"), make_job("r1"))
    dialog = ENVELOPE + "<- 250 ok\n<- 550 5.1.1 no\n<- 354 go\n-> .\n<- 250 2.0.0 thanks for nothing\n"
    async with smtp_peer(GREETED + dialog + ENVELOPE + TAKEN + "-> ...\n<- 250 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert lead.verdicts() == [["r1 failed 5.1.1"], ["r1 relayed 2.0.0"]]
    assert peer.reads[0][2] == b".\r\n"


async def test_refused_data() -> None:
    """A refused DATA is the outcome of the accepted recipients; RSET closes the transaction."""
    lead = Lead(make_job("r1", "r2"))
    dialog = """
    -> MAIL *
    -> RCPT *
    -> RCPT *
    -> DATA
    <- 250 ok
    <- 250 ok
    <- 550 5.1.1 no
    <- 451 4.3.2 not now
    -> RSET
    <- 250 ok
    """
    async with smtp_peer(GREETED + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: transfer.is_idle)
        transfer.close()
    assert lead.verdicts() == [["r2 failed 5.1.1", "r1 delayed 4.3.2"]]


async def test_refused_content() -> None:
    """A refused content is its recipients' outcome; the envelope behind it goes on."""
    lead = Lead(make_job("r1"), make_job("r1"))
    dialog = ENVELOPE + TAKEN + "-> ...\n" + ENVELOPE + "<- 554 5.6.0 bad words\n" + TAKEN + "-> ...\n<- 250 ok\n"
    async with smtp_peer(GREETED + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert lead.verdicts() == [["r1 failed 5.6.0"], ["r1 relayed 2.0.0"]]


async def test_soft_bounce_delays_what_would_fail() -> None:
    """With soft_bounce a 5yz delays."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n<- 554 5.6.0 no\n" + QUIT) as peer:
        transfer = await started(peer.port, lead, Terms(no_file, soft_bounce=True))
        await wait_for(settled(lead, 1))
        transfer.close()
    assert lead.verdicts() == [["r1 delayed 4.6.0"]]


async def test_authentication_required_ends_the_session() -> None:
    """530 at MAIL delays, touches the host and ends the session; the job behind it is untouched."""
    lead = Lead(make_job("r1"), make_job("r2"))
    dialog = ENVELOPE + TAKEN + "-> ...\n-> MAIL *\n-> RCPT *\n-> DATA\n<- 530 5.7.0 log in\n== hang\n"
    async with smtp_peer(GREETED + dialog) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 delayed 4.7.0"]]
    assert lead.ending.scope is Scope.HOST
    assert lead.ending.pause > 0
    assert [job.recipients[0].address for job in lead.ending.untouched] == ["r2@c.example"]


STEPS = {
    Stage.MAIL: "-> MAIL *\n",
    Stage.RCPT: ENVELOPE + "<- 250 ok\n",
    Stage.DATA: ENVELOPE + "<- 250 ok\n<- 250 ok\n",
    Stage.CONTENT: ENVELOPE + TAKEN + "-> ...\n",
}
LOSSES = {"== close": NetFault.CLOSED, "== reset": NetFault.RESET, "<- hello": NetFault.PROTOCOL_ERROR}


@pytest.mark.parametrize("stage", STEPS)
@pytest.mark.parametrize("loss", LOSSES)
async def test_lost_at_each_stage_of_a_fresh_session(stage: Stage, loss: str) -> None:
    """A session that is lost over its first job delays it; only behind the final dot is that ambiguous."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + STEPS[stage] + loss + "\n", complete=False) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    ((outcome,),) = [outcomes for _, outcomes, _ in lead.settled]
    assert (outcome.action, outcome.reply, outcome.stage) == (Action.DELAYED, None, stage)
    assert outcome.ambiguous is (stage is Stage.CONTENT)
    assert lead.ending.untouched == ()
    # A reset may show as an end of the stream, as the system sees fit.
    assert lead.ending.fault in (LOSSES[loss], NetFault.CLOSED)


@pytest.mark.parametrize("stage", STEPS)
@pytest.mark.parametrize("loss", LOSSES)
async def test_lost_at_each_stage_of_a_used_session(stage: Stage, loss: str) -> None:
    """On a session that has carried mail, a job whose final dot was not written is given back untouched."""
    lead = Lead(make_job("r1"))
    used = ENVELOPE + TAKEN + "-> ...\n<- 250 2.0.0 ok\n"
    async with smtp_peer(GREETED + used + STEPS[stage] + loss + "\n", complete=False) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        job = make_job("r1")
        lead.jobs.append(job)
        transfer.wake()
        await wait_for(lambda: bool(lead.endings))
    if stage is Stage.CONTENT:
        assert lead.ending.untouched == ()
        assert lead.settled[1][1][0].ambiguous
    else:
        assert lead.ending.untouched == (job,)
        assert len(lead.settled) == 1


async def test_lost_behind_the_dot_with_an_envelope_riding() -> None:
    """The content's recipients are ambiguous; the job whose envelope rode behind is untouched."""
    lead = Lead(make_job("r1"), make_job("r2"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n== close\n") as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 delayed 4.4.2"]]
    assert lead.settled[0][1][0].ambiguous
    assert [job.recipients[0].address for job in lead.ending.untouched] == ["r2@c.example"]


async def test_partly_decided_job_is_not_given_back_whole() -> None:
    """When a used session is lost behind a refused RCPT, that verdict stands and the others travel again."""
    lead = Lead(make_job("r1"))
    used = ENVELOPE + TAKEN + "-> ...\n<- 250 2.0.0 ok\n"
    dialog = "-> MAIL *\n-> RCPT *\n-> RCPT *\n-> RCPT *\n-> DATA\n<- 250 ok\n<- 550 5.1.1 no\n<- 250 ok\n== close\n"
    async with smtp_peer(GREETED + used + dialog) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 1))
        lead.jobs.append(make_job("r1", "r2", "r3"))
        transfer.wake()
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts()[1] == ["r1 failed 5.1.1", "r2 again", "r3 again"]
    assert lead.ending.untouched == ()


@pytest.mark.parametrize("stage", STEPS)
async def test_dismissed_at_each_stage(stage: Stage) -> None:
    """421 ends the session wherever it comes; behind the dot it is a clear answer, not an ambiguous one."""
    lead = Lead(make_job("r1"), make_job("r2"))
    async with smtp_peer(GREETED + STEPS[stage] + "<- 421 4.3.2 going down\n== hang\n") as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 delayed 4.3.2"]]
    (outcome,) = lead.settled[0][1]
    assert (str(outcome.reply), outcome.ambiguous, outcome.stage) == ("421 4.3.2 going down", False, stage)
    assert lead.ending.fault is None
    assert str(lead.ending.reply) == "421 4.3.2 going down"
    waiting = [*lead.jobs, *lead.ending.untouched]
    assert [job.recipients[0].address for job in waiting] == ["r2@c.example"]


@pytest.mark.parametrize("farewell", ["<- 421 4.4.2 idle too long\n== close", "== close", "== reset"])
async def test_closed_while_idle_is_normal(farewell: str) -> None:
    """A peer may close an idle session, with or without 421."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n<- 250 ok\n== stall 20\n" + farewell) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert (lead.ending.fault, lead.ending.scope, lead.ending.untouched) == (None, Scope.SESSION, ())
    assert lead.ending.reason in ("closed while idle", "421 4.4.2 idle too long")


async def test_closed_between_opening_and_start() -> None:
    """A peer that closes right behind EHLO costs a job an attempt, so that it is not asked for ever."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + "<- 421 4.7.0 not today\n== close\n") as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 delayed 4.7.0"]] or lead.settled[0][1][0].reason.startswith("the peer closed")


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        ("<- garbage", "not a reply"),
        ("<- 250 2.0.0 ok\n<- 250 2.0.0 ok", "a reply to nothing"),
        (f"<- 250 {'x' * 100_000}", "too long"),
        ("\n".join(f"<- 250-{'x' * 500}" for _ in range(200)), "too long"),
        ("<- 354 more", "was answered"),
        ("<~ b'250-a\\r\\n550 b\\r\\n'", "changes its code"),
    ],
)
async def test_noise_ends_the_session(noise: str, reason: str) -> None:
    """Garbage, huge replies and replies to nothing end the session; replies that came whole before them count."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n" + noise + "\n== hang\n", complete=False) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.ending.fault is NetFault.PROTOCOL_ERROR
    assert reason in lead.ending.reason
    (outcome,) = lead.settled[0][1]
    assert outcome.action is (Action.RELAYED if noise.startswith("<- 250 2.0.0") else Action.DELAYED)


async def test_reply_before_garbage_counts() -> None:
    """The reply to the dot counts though garbage comes in the same octets."""
    lead = Lead(make_job("r1"))
    noise = "<~ b'250 2.0.0 ok\\r\\nwhat?\\r\\n'\n== hang\n"
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n" + noise, complete=False) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 relayed 2.0.0"]]


@pytest.mark.parametrize(
    ("stage", "seconds"), [(Stage.MAIL, 300), (Stage.RCPT, 300), (Stage.DATA, 120), (Stage.CONTENT, 600)]
)
async def test_hung_at_each_stage(stage: Stage, seconds: int) -> None:
    """A peer that says nothing is given its time by the coarse check, and no more."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + STEPS[stage] + "== hang\n") as peer:
        transfer = await started(peer.port, lead)
        step = {Stage.MAIL: 1, Stage.RCPT: 1, Stage.DATA: 1, Stage.CONTENT: 2}[stage]
        await wait_for(lambda: len(peer.reads[0]) > step)
        await asyncio.sleep(0.02)
        transfer.check(lead.clock() + seconds - 1)
        assert not lead.endings
        transfer.check(lead.clock() + seconds + 1)
        assert lead.ending.fault is NetFault.TIMEOUT
    (outcome,) = lead.settled[0][1]
    assert (outcome.stage, outcome.ambiguous) == (stage, stage is Stage.CONTENT)
    assert str(outcome.status) == "4.4.2"


async def test_idle_time_and_age_end_a_session() -> None:
    """An idle session is left after its idle time, or its age, with QUIT."""
    for limits, later in ((SiteLimits(idle_timeout=5.0), 6.0), (SiteLimits(idle_timeout=900.0), 301.0)):
        lead = Lead()
        async with smtp_peer(GREETED + QUIT) as peer:
            transfer = await started(peer.port, lead, Terms(no_file, limits=limits))
            transfer.check(lead.clock() + 4.0)
            assert not lead.endings
            transfer.check(lead.clock() + later)
            assert lead.ending.reason == "idle"


async def test_messages_per_connection() -> None:
    """Behind the last message that a connection may carry comes QUIT; further jobs stay with the lead."""
    lead = Lead(make_job("r1"), make_job("r1"), make_job("r1"))
    dialog = ENVELOPE + TAKEN + "-> ...\n" + ENVELOPE + "<- 250 ok\n" + TAKEN + "-> ...\n<- 250 ok\n" + QUIT
    async with smtp_peer(GREETED + dialog) as peer:
        await started(peer.port, lead, Terms(no_file, limits=SiteLimits(max_messages_per_connection=2)))
        await wait_for(lambda: bool(lead.endings))
    assert len(lead.settled) == 2
    assert len(lead.jobs) == 1
    assert lead.ending.fault is None


async def test_age_ends_a_busy_session() -> None:
    """A session that has reached its age takes no further job and leaves when it has none in flight."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n== stall 50\n<- 250 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: bool(peer.contents))
        lead.now = 301.0
        lead.jobs.append(make_job("r1"))
        transfer.wake()
        await wait_for(lambda: bool(lead.endings))
    assert len(lead.jobs) == 1
    assert lead.verdicts() == [["r1 relayed 2.0.0"]]


async def test_announced_limits_are_kept() -> None:
    """LIMITS RCPTMAX splits a job, MAILMAX ends the session (RFC 9422)."""
    lead = Lead(make_job("r1", "r2"), make_job("r3"))
    greeted = GREETED_PLAINLY.replace(
        "<- 250 peer\n", "<- 250-peer\n<- 250-PIPELINING\n<- 250 LIMITS RCPTMAX=1 MAILMAX=1"
    )
    dialog = "-> MAIL FROM:<a@b.example>\n-> RCPT *\n-> DATA\n" + TAKEN + "-> ...\n<- 250 ok\n"
    async with smtp_peer(greeted + "\n" + dialog + QUIT) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 relayed 2.0.0", "r2 again"]]
    assert len(lead.jobs) == 1


async def test_close_waits_for_what_is_in_flight() -> None:
    """close() lets the running transaction end, then leaves; nothing is taken any more."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n== stall 30\n<- 250 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: bool(peer.contents))
        transfer.close()
        lead.jobs.append(make_job("r1"))
        transfer.wake()
        assert not lead.endings
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 relayed 2.0.0"]]
    assert len(lead.jobs) == 1


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_reply_that_waits_for_its_round_is_heard_before_the_end(is_cut: bool) -> None:
    """A session that is cut off or timed out takes what its peer has said first: the message is not sent again."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + ENVELOPE + TAKEN + "-> ...\n== hang\n") as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: bool(peer.contents))
        transfer.data_received(b"250 2.0.0 queued as 7\r\n")
        if is_cut:
            transfer.abort()
        else:
            transfer.check(lead.clock() + 100_000.0)
        await wait_for(lambda: bool(lead.endings))
    assert lead.verdicts() == [["r1 relayed 2.0.0"]]


async def test_abort_gives_back_what_was_not_sent() -> None:
    """abort() is our own doing: a job whose dot was not written is untouched even on a fresh session."""
    lead = Lead(make_job("r1"))
    async with smtp_peer(GREETED + STEPS[Stage.RCPT] + "== hang\n") as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: len(peer.reads[0]) > 1)
        transfer.abort()
        transfer.abort()
        assert len(lead.ending.untouched) == 1
        assert not lead.settled


async def test_without_pipelining_one_command_at_a_time() -> None:
    """Without PIPELINING each command waits for its reply, and nothing rides behind the content."""
    lead = Lead(make_job("r1", "r2"), make_job("r1"))
    mail = "-> MAIL FROM:<a@b.example>\n<- 250 ok\n-> RCPT *\n<- 250 ok\n"
    first = mail + "-> RCPT *\n<- 550 5.1.1 no\n-> DATA\n<- 354 go\n-> ...\n<- 250 ok\n"
    async with smtp_peer(GREETED_PLAINLY + first + mail + "-> DATA\n<- 354 go\n-> ...\n<- 250 ok\n" + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert all(read.count(b"\r\n") == 1 or b"Subject" in read for read in peer.reads[0])
    assert lead.verdicts() == [["r2 failed 5.1.1", "r1 relayed 2.0.0"], ["r1 relayed 2.0.0"]]


async def test_without_pipelining_refusals() -> None:
    """Without PIPELINING a refused MAIL ends the transaction; with no recipient left DATA is not sent, but RSET is."""
    lead = Lead(make_job("r1"), make_job("r1", "r2"), make_job("r1"))
    dialog = """
    -> MAIL *
    <- 550 5.7.1 no
    -> MAIL *
    <- 250 ok
    -> RCPT *
    <- 550 5.1.1 no
    -> RCPT *
    <- 451 4.2.0 later
    -> RSET
    <- 250 ok
    -> MAIL *
    <- 250 ok
    -> RCPT *
    <- 250 ok
    -> DATA
    <- 451 4.3.0 no
    -> RSET
    <- 250 ok
    """
    async with smtp_peer(GREETED_PLAINLY + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(lambda: transfer.is_idle)
        transfer.close()
    assert lead.verdicts() == [
        ["r1 failed 5.7.1"],
        ["r1 failed 5.1.1", "r2 delayed 4.2.0"],
        ["r1 delayed 4.3.0"],
    ]


async def test_refused_reset_ends_the_session() -> None:
    """A peer that refuses RSET has an unclear state: the session ends, the next job is untouched."""
    lead = Lead(make_job("r1"), make_job("r2"))
    dialog = ENVELOPE + "<- 250 ok\n<- 250 ok\n<- 451 4.3.0 no\n-> RSET\n<- 500 5.5.1 what?\n== hang\n"
    async with smtp_peer(GREETED + dialog) as peer:
        await started(peer.port, lead)
        await wait_for(lambda: bool(lead.endings))
    assert lead.ending.fault is NetFault.PROTOCOL_ERROR
    assert [job.recipients[0].address for job in lead.ending.untouched] == ["r2@c.example"]


async def test_empty_content_and_missing_line_end() -> None:
    """Content that is empty, or does not end in CRLF, is ended properly."""
    lead = Lead(make_job("r1", content=b"", size=25), make_job("r1", content=b"a\r\n.", size=25))
    dialog = ENVELOPE + TAKEN + "-> ...\n" + ENVELOPE + "<- 250 ok\n" + TAKEN + "-> ...\n<- 250 ok\n"
    async with smtp_peer(GREETED + dialog + QUIT) as peer:
        transfer = await started(peer.port, lead)
        await wait_for(settled(lead, 2))
        transfer.close()
    assert peer.contents == [b".\r\n", b"a\r\n..\r\n.\r\n"]
    assert CONTENT


def test_a_priority_is_passed_on_where_it_is_offered() -> None:
    """MT-PRIORITY goes, as it came, to a peer that offers it, and to no other (RFC 6710 6)."""
    for keyword, parameter in (("MT-PRIORITY MIXER", b" MT-PRIORITY=-3"), ("XNONE", b"")):
        job = make_job("r1")
        message = job.entry.message
        message = msgspec.structs.replace(message, envelope=msgspec.structs.replace(message.envelope, mt_priority=-3))
        job.entry.message = message
        commands = envelope_commands(job, job.recipients, Extensions.parse(["peer.example", keyword]))
        assert commands[0] == b"MAIL FROM:<a@b.example>" + parameter + b"\r\n"
