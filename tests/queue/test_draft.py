"""A draft becomes a message, its content and its entries, or a reply that says why not."""

import asyncio

import pytest

from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.entry import Why
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, MessageIds, format_id
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.mail.route import Deliver, NextHop, Route
from smarthost.policy.admission import LongLines, Submission
from smarthost.policy.backoff import Retry
from smarthost.policy.rewriting import Rewriter
from smarthost.policy.routing import RoutingTable
from smarthost.queue.draft import Draft
from smarthost.queue.edit import EditRules
from smarthost.queue.intake import Intake
from smarthost.queue.rules import Rules
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed
from smarthost.spool.memory import MemorySpool
from smarthost.spool.store import INLINE_LIMIT, Accepted
from smarthost.wire.data import has_long_line

T0 = 1_790_000_000.0
LATER = "2026-12-01T10:00:00Z"
ONE = (Recipient("b@example.net", "example.net"),)
TWO = (*ONE, Recipient("c@example.com", "example.com"))
PLAIN = b"Subject: x\r\n\r\none.\r\ntwo\r\n"


class Way:
    """An intake whose route delivers in one way, and what came out of it."""

    def __init__(self, deliver: Deliver = Deliver.RELAYHOST, **changes: object) -> None:
        loop = asyncio.get_running_loop()
        submission = Submission(**changes)  # type: ignore[arg-type]
        edit = EditRules("relay.example.org", "example.org", submission, Rewriter(()), {})
        route = Route("r", deliver, (NextHop("up.example"),))
        rules = Rules(edit, RoutingTable((), route), Retry(), Keyring())
        self.intake = Intake(loop, MemorySpool(loop, lambda: T0), rules, MessageIds(), Feed(), Counters())
        self.accepted: list[Accepted] = []
        self.intake.on_accepted = self.accepted.append

    def begin(self, recipients: tuple[Recipient, ...] = ONE) -> Draft:
        """Begin a message."""
        return self.intake.begin(Arrival(at=T0), Envelope("a@example.org", recipients))


async def commit(draft: Draft, *blocks: bytes) -> Reply:
    """Write blocks and give the reply to the commit."""
    for block in blocks:
        draft.write(block)
    done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    draft.commit(done.set_result)
    return await asyncio.wait_for(done, 10)


@pytest.mark.parametrize(
    ("deliver", "queues"), [(Deliver.RELAYHOST, ("r",)), (Deliver.MX, ("r/example.net", "r/example.com"))]
)
async def test_recipients_travel_by_queue(deliver: Deliver, queues: tuple[str, ...]) -> None:
    """One recipient makes one entry; two share the one of a relayhost, and have one a destination by MX."""
    way = Way(deliver)
    assert (await commit(way.begin(), PLAIN)).code == 250
    reply = await commit(way.begin(TWO), PLAIN)
    first, second = way.accepted
    assert reply.text == f"queued as {format_id(second.message.id)}"
    [entry] = first.entries
    assert (entry.number, entry.queue, entry.recipients, entry.due, entry.why) == (1, queues[0], ONE, T0, Why.NEW)
    assert entry.expires == T0 + Retry().lifetime
    assert entry.deadline == T0 + Retry().delay_warning[0]
    assert [each.queue for each in second.entries] == list(queues)
    assert [each.number for each in second.entries] == list(range(1, len(queues) + 1))
    assert [each for entry in second.entries for each in entry.recipients] == list(TWO)


@pytest.mark.parametrize("recipients", [ONE, TWO])
async def test_routes_that_do_not_deliver(recipients: tuple[Recipient, ...]) -> None:
    """A route that holds parks the entry, one that rejects refuses, one that discards accepts and keeps nothing."""
    way = Way(Deliver.HOLD)
    assert (await commit(way.begin(recipients), PLAIN)).code == 250
    [entry] = way.accepted[0].entries
    assert (entry.why, entry.due, entry.deadline) == (Why.HELD, float("inf"), float("inf"))
    assert (await commit(Way(Deliver.REJECT).begin(recipients), PLAIN)).code == 550
    way = Way(Deliver.DISCARD)
    assert "discarded" in (await commit(way.begin(recipients), PLAIN)).text
    assert way.accepted == []


@pytest.mark.parametrize("recipients", [ONE, TWO])
async def test_a_message_that_is_sent_later_waits(recipients: tuple[Recipient, ...]) -> None:
    """A send time makes the entry due then, and its lifetime begins then."""
    way = Way()
    await commit(way.begin(recipients), f"X-Smarthost-Send-At: {LATER}\r\n\r\nx\r\n".encode())
    [entry] = way.accepted[0].entries
    assert (entry.why, entry.due) == (Why.SCHEDULED, 1796119200.0)
    assert entry.expires == entry.due + Retry().lifetime


@pytest.mark.parametrize("size", [10, INLINE_LIMIT])
async def test_content_is_dotted_unless_somebody_knows(size: int) -> None:
    """Small content and large keep what was said of dots at the beginning of lines; re-encoding makes it unknown."""
    for is_dotted in (True, False):
        way = Way()
        draft = way.begin()
        assert draft.is_dotted
        draft.is_dotted = is_dotted
        await commit(draft, PLAIN, b"x\r\n" * (size // 3 + 1))
        content = way.accepted[0].content
        assert content.is_dotted is is_dotted
        assert bool(content.file) is (size == INLINE_LIMIT)
        assert content.size == way.accepted[0].message.size
    draft = way.begin()
    draft.is_dotted = False
    await commit(draft, b"\r\n" + b"." * 1200 + b"\r\n", b"x\r\n" * size)
    assert way.accepted[1].content.is_dotted


@pytest.mark.parametrize("where", ["header", "body"])
async def test_a_long_line_is_found(where: str) -> None:
    """A line of 998 octets stays as it is and one of 999 is re-encoded, however it is cut into blocks."""
    for octets in (998, 999):
        line = b"X-Long: " + b"x" * (octets - 8) + b"\r\n"
        whole = line + b"\r\nbody\r\n" if where == "header" else b"Subject: x\r\n\r\n" + line
        for cut in (len(whole), len(whole) - 3, 600):
            way = Way()
            await commit(way.begin(), whole[:cut], whole[cut:])
            content = way.accepted[0].content.head
            assert not has_long_line(content)
            assert (line in content) is (octets == 998)


async def test_a_long_line_is_refused_where_that_is_wanted() -> None:
    """With long_lines = reject a line of 999 octets is refused, in the body and in the header."""
    for octets, code in ((998, 250), (999, 554)):
        body = b"x" * octets + b"\r\n"
        assert (await commit(Way(long_lines=LongLines.REJECT).begin(), PLAIN, body[:500], body[500:])).code == code
        header = b"X-Long: " + b"x" * (octets - 8) + b"\r\n\r\n"
        assert (await commit(Way(long_lines=LongLines.REJECT).begin(), header, b"short\r\n")).code == code


@pytest.mark.parametrize("size", [40 * 1024, INLINE_LIMIT + 1])
async def test_a_fault_of_ours_is_answered_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks behind the end of data, and in whichever thread: the client gets 451, and one reply."""
    way = Way(long_lines=LongLines.PASS)

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(way.intake, "entries_for", broken)
    draft = way.begin()
    draft.write(PLAIN)
    for _ in range(size // 80 + 1):
        draft.write(b"y" * 78 + b"\r\n")
    replies: list[Reply] = []
    try:
        draft.commit(replies.append)
    except RuntimeError:
        replies.append(Reply(451, EnhancedStatus(4, 3, 0), ("by the session",)))
    async with asyncio.timeout(10):
        while not replies:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert [reply.code for reply in replies] == [451]
    way.intake.close()
