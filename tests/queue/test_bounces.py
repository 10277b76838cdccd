"""Notices of bounces: which are believed, and what they change."""

import asyncio
from typing import Any

import pytest

from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus
from smarthost.policy.bounce_terms import BounceTerms
from smarthost.policy.suppression import SuppressionRules
from smarthost.queue.bounces import BounceIntake
from smarthost.queue.return_paths import ReturnPaths
from smarthost.queue.suppression import SuppressionList
from smarthost.report.feed import Feed
from smarthost.spool.memory import MemorySpool
from smarthost.wire.notice import Notice, NoticeKind
from smarthost.wire.verp import make_return_path

NOW, KEY, MAILBOX = 1_800_000_000.0, b"k" * 32, "bounces@example.org"
BOB = "Bob@Example.net"
MESSAGE = int(NOW * 1_000_000) << 4


class Bench:
    """A spool with the history of one message of the tenant "app", and what takes notices."""

    def __init__(self) -> None:
        """Begin."""
        self.told: list[Event] = []
        self.spool = MemorySpool(asyncio.get_running_loop(), lambda: NOW)
        feed = Feed((self.told.append,))
        self.suppression = SuppressionList(self.spool, feed, lambda: NOW)
        self.intake = BounceIntake(self.spool, feed, self.suppression, lambda: NOW)
        self.intake.paths = ReturnPaths(BounceTerms(domain="example.org"), KEY)
        self.sent(MESSAGE)

    def sent(self, *messages: int) -> None:
        """Remember that messages were relayed to Bob and to Carol."""
        for message in messages:
            self.spool.record((Event(NOW - 9, Kind.ACCEPTED, message, "order-7", "app@example.org", user="app"),))
            for recipient in (BOB, "carol@example.net"):
                self.spool.record((Event(NOW - 8, Kind.RELAYED, message, recipient=recipient, user="app"),))

    async def follow(self, **rules: Any) -> None:
        """Enable the list."""
        await self.suppression.follow(SuppressionRules(enabled=True, **rules))

    async def suppressed(self) -> list[tuple[str, str]]:
        """Give whom the list has."""
        return [row.key for row in await self.spool.suppressions.page(("", ""), 9)]


def notice(
    kind: NoticeKind = NoticeKind.PERMANENT,
    status: str = "5.1.1",
    key: bytes = KEY,
    message: int = MESSAGE,
    named: str = BOB,
) -> Notice:
    """Make a notice with a return path of a message to Bob, which names somebody."""
    return Notice(named, kind, status, "550 no", make_return_path(MAILBOX, message, BOB, key))


async def test_a_proven_bounce_is_its_messages_event() -> None:
    """A notice to a return path of ours is an event of that message and tenant, and suppresses its recipient."""
    bench = Bench()
    await bench.follow()
    assert await bench.intake.take([notice()]) == 1
    event = (await bench.spool.events_of(MESSAGE))[-1]
    assert (event.event, event.user, event.envid, event.status) == (Kind.BOUNCED, "app", "order-7", "5.1.1")
    assert [each.event for each in bench.told] == [Kind.BOUNCED, Kind.SUPPRESSED]
    assert await bench.suppressed() == [("", "bob@example.net")]


@pytest.mark.parametrize(
    ("kind", "status", "is_on_list"),
    [
        (NoticeKind.TRANSIENT, "4.2.2", False),
        (NoticeKind.COMPLAINT, "", True),
        (NoticeKind.PERMANENT, "", True),
        (NoticeKind.PERMANENT, "5.7.1", False),
        (NoticeKind.PERMANENT, "5.1.2", True),
        (NoticeKind.PERMANENT, "5.2.2", False),
    ],
)
async def test_what_puts_on_the_list(kind: NoticeKind, status: str, is_on_list: bool) -> None:
    """What is passing or about policy is an event only; what is for good, and a complaint, suppresses at once."""
    bench = Bench()
    await bench.follow()
    assert await bench.intake.take([notice(kind, status)]) == 1
    assert bool(await bench.suppressed()) is is_on_list
    assert bench.told[0].event is (Kind.COMPLAINED if kind is NoticeKind.COMPLAINT else Kind.BOUNCED)


async def test_nobody_forges() -> None:
    """A return path that was not made by our key, or another tenant's word on a message, is not believed."""
    bench = Bench()
    await bench.follow()
    assert await bench.intake.take([notice(key=b"x" * 32)]) == 0
    assert await bench.intake.take([notice(message=MESSAGE + 16)]) == 0
    assert await bench.intake.take([notice()], tenant="shop") == 0
    assert await bench.intake.take([Notice("nonsense", NoticeKind.PERMANENT)], tenant="app") == 0
    assert await bench.intake.take([notice(NoticeKind.RELAYED, "2.0.0")]) == 0
    assert bench.told == [] and await bench.suppressed() == []


async def test_a_tenants_word_counts_for_the_tenant() -> None:
    """What a tenant claims without a proof suppresses for it alone; what the operator vouches for counts for all."""
    bench = Bench()
    await bench.follow()
    claimed = Notice("bob@example.net", NoticeKind.COMPLAINT)
    assert await bench.intake.take([claimed], tenant="shop") == 1
    assert await bench.suppressed() == [("shop", "bob@example.net")]
    assert await bench.intake.take([claimed], otherwise="default") == 1
    assert ("", "bob@example.net") in await bench.suppressed()
    assert [each.user for each in bench.told if each.event is Kind.COMPLAINED] == ["shop", "default"]


async def test_without_a_list_there_are_events_alone() -> None:
    """While suppression is off, bounces are told and nobody is suppressed."""
    bench = Bench()
    assert await bench.intake.take([notice()]) == 1
    assert [each.event for each in bench.told] == [Kind.BOUNCED] and await bench.suppressed() == []


async def test_a_notice_counts_once() -> None:
    """What is said again of one recipient and in one sense is counted as a duplicate, also when both come together."""
    bench = Bench()
    await bench.follow()
    taken = await asyncio.gather(*(bench.intake.take([notice(), notice()]) for _ in range(3)))
    assert sum(taken) == 1 and bench.intake.tally == {"hard": 1, "duplicate": 5}
    assert [each.event for each in bench.told] == [Kind.BOUNCED, Kind.SUPPRESSED]
    assert await bench.intake.take([notice(NoticeKind.TRANSIENT, "4.2.2")]) == 1


async def test_the_recipient_is_who_was_sent_to() -> None:
    """A report names an address to which mail was forwarded; the event and the list have the one that we sent to."""
    bench = Bench()
    await bench.follow()
    assert await bench.intake.take([notice(named="victim@example.net")]) == 1
    assert bench.told[0].recipient == BOB
    assert await bench.suppressed() == [("", "bob@example.net")]


async def test_three_in_a_row_suppress() -> None:
    """Hard bounces of three messages suppress, although each of them had been relayed, and stay when one more is."""
    bench = Bench()
    await bench.follow()
    messages = [MESSAGE + 16 * number for number in range(3)]
    bench.sent(*messages[1:])
    for message in messages:
        assert await bench.suppressed() == []
        for _ in range(2):
            await bench.intake.take([notice(status="5.2.2", message=message)])
    assert await bench.suppressed() == [("", "bob@example.net")]
    recipient = Recipient(BOB, "example.net")
    late = Message(MESSAGE + 99, Arrival(NOW, identity="app"), Envelope("a@example.org", (recipient,)), 9)
    relayed = Outcome(recipient, Action.RELAYED, Scope.RECIPIENT, Stage.CONTENT, EnhancedStatus(2, 0, 0), "ok")
    bench.suppression.observe(late, [relayed])
    assert bench.suppression.is_suppressed("app", recipient)
    # A person's word ends it, and what was counted.
    removed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    bench.suppression.remove([("", "bob@example.net")], removed.set_result)
    await removed
    bench.sent(MESSAGE + 16 * 9)
    await bench.intake.take([notice(status="5.2.2", message=MESSAGE + 16 * 9)])
    assert await bench.suppressed() == []


async def test_mail_that_is_no_report_is_counted() -> None:
    """What somebody answers to a return path, and what cannot be read, is counted and makes no event."""
    bench = Bench()
    path = make_return_path(MAILBOX, MESSAGE, BOB, KEY)
    assert await bench.intake.take_mail(b"Subject: Re: hello\r\n\r\nI am on holiday.\r\n", path) == 0
    assert await bench.intake.take_mail(b"\xff\x00", path) == 0
    assert bench.told == [] and bench.intake.tally == {"unparsed": 2}
