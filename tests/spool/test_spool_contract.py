"""What every spool promises, checked on each kind."""

import asyncio
import copy
import math

import msgspec
import pytest
from spool_samples import NOW, Waiting, accept, done_with, sample, sample_id, sample_message, settle, split_sample

from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Priority
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import format_id
from smarthost.mail.suppression import Origin, Suppression
from smarthost.policy.ledger import LimitState
from smarthost.spool import record
from smarthost.spool.store import Accepted, Change, Content, Filter, QueueHead, Settlement, Spool

pytestmark = pytest.mark.asyncio


async def change(spool: Spool, **what: object) -> None:
    """Change and wait until it is durable."""
    waiting = Waiting()
    spool.change(Change(**what), waiting.more())  # type: ignore[arg-type]
    assert await waiting.all() == [None]


async def test_accepted_comes_back_as_it_was(spool: Spool) -> None:
    """Entry, message and content are read back equal to what was accepted, every field of them."""
    accepted = sample(1)
    entry = accepted.entries[0]
    entry.attempts, entry.warned, entry.last, entry.hosts_tried = 3, 1, "451 4.3.0 later (mx)", ("mx1", "mx2")
    expected = copy.copy(entry)
    await accept(spool, accepted)
    assert await spool.due("relayhost", "2app", NOW + 1, 10) == [expected]
    assert await spool.entries_of(sample_id(1)) == [expected]
    assert await spool.contents([sample_id(1), 5]) == {sample_id(1): accepted.content}
    assert spool.last_id == sample_id(1)


async def test_done_is_never_called_at_once(spool: Spool) -> None:
    """`accept` and `settle` return before they answer, so that the caller's state is settled when the answer comes."""
    waiting = Waiting()
    spool.accept(sample(1), waiting.more())
    assert waiting.faults == []
    assert await waiting.all() == [None]


async def test_what_was_given_is_copied(spool: Spool) -> None:
    """An entry that changes after `accept` or `settle` returned is stored as it was then."""
    accepted = sample(1)
    entry = accepted.entries[0]
    waiting = Waiting()
    spool.accept(accepted, waiting.more())
    entry.attempts = 7
    await waiting.all()
    (stored,) = await spool.entries_of(sample_id(1))
    assert stored.attempts == 0
    spool.settle(Settlement(entry), waiting.more())
    entry.attempts = 9
    await waiting.all()
    (stored,) = await spool.entries_of(sample_id(1))
    assert stored.attempts == 7


async def test_due_gives_the_earliest_first_then_by_arrival(spool: Spool) -> None:
    """Due entries come in the order of due time, then of arrival, strictly before the time and up to the limit."""
    times = {1: NOW + 5, 2: NOW + 3, 3: NOW + 3, 4: NOW + 9, 5: NOW + 10}
    await accept(spool, *(sample(serial, due=due) for serial, due in times.items()), sample(6, queue="other"))

    async def serials(before: float, limit: int) -> list[int]:
        return [(entry.message.id - sample_id(0)) >> 4 for entry in await spool.due("relayhost", "2app", before, limit)]

    assert await serials(NOW + 10, 10) == [2, 3, 1, 4]
    assert await serials(NOW + 10, 2) == [2, 3]
    assert await serials(NOW, 10) == []
    assert await spool.due("nowhere", "2app", NOW + 99, 10) == []


async def test_heads_and_next_due(spool: Spool) -> None:
    """Each queue with a due time has one head; `next_due` includes the time itself and is None behind the last."""
    parked = sample(9, queue="parked")
    parked.entries[0].due = parked.entries[0].deadline = math.inf
    await accept(spool, sample(1, "b", due=NOW + 7), sample(2, "b", due=NOW + 4), sample(3, "a/x.example"), parked)
    assert sorted(await spool.heads(), key=lambda head: head.queue) == [
        QueueHead("a/x.example", "2app", NOW),
        QueueHead("b", "2app", NOW + 4),
    ]
    assert await spool.next_due("b", "2app", NOW + 4) == NOW + 4
    assert await spool.next_due("b", "2app", NOW + 5) == NOW + 7
    assert await spool.next_due("b", "2app", NOW + 8) is None
    assert await spool.next_due("parked", "2app", 0) is None


async def test_settle_replaces_the_row(spool: Spool) -> None:
    """A settle with recipients left writes the entry as it now stands, in its new place."""
    await accept(spool, split_sample(1, ["a", "b"]))
    first, second = await spool.entries_of(sample_id(1))
    first.due, first.attempts, first.why, first.last = NOW + 300, 1, Why.RETRY, "421 4.3.2 later"
    await settle(spool, Settlement(first))
    assert await spool.entries_of(sample_id(1)) == [first, second]
    assert await spool.heads() == [QueueHead("a", "2app", NOW + 300), QueueHead("b", "2app", NOW + 2)]


async def test_the_message_goes_with_its_last_entry(spool: Spool) -> None:
    """Content stays while an entry is left and goes with the last one, in one batch or in several."""
    await accept(spool, split_sample(1, ["a", "b", "c"]), split_sample(2, ["a", "b"]))
    one = await spool.entries_of(sample_id(1))
    two = await spool.entries_of(sample_id(2))
    await settle(spool, done_with(one[0]))
    assert set(await spool.contents([sample_id(1)])) == {sample_id(1)}
    await settle(spool, done_with(one[1]), done_with(one[2]), done_with(two[0]))
    assert set(await spool.contents([sample_id(1), sample_id(2)])) == {sample_id(2)}
    assert await spool.entries_of(sample_id(1)) == []
    assert await spool.count() == {"active": 1, "parked": 0, "total": 1}
    assert spool.last_id == sample_id(2)


async def test_a_report_comes_with_the_settle(spool: Spool) -> None:
    """Reports and events of a settlement are there when it is answered."""
    await accept(spool, sample(1))
    (entry,) = await spool.entries_of(sample_id(1))
    entry.recipients = ()
    event = Event(time=NOW, event=Kind.FAILED, message=sample_id(1), code=550, recipient="user0@d0.example.net")
    await settle(spool, Settlement(entry, (event,), (sample(2, "report"),)))
    assert await spool.events_of(sample_id(1)) == [event]
    assert [each.key for each in await spool.due("report", "2app", NOW + 1, 9)] == [(sample_id(2), 1)]
    assert spool.last_id == sample_id(2)


async def test_a_settle_does_not_bring_back_what_was_deleted(spool: Spool) -> None:
    """An entry that a person deleted while it was under way stays deleted when its attempt is settled."""
    await accept(spool, sample(1), split_sample(2, ["a", "b"]))
    (entry,) = await spool.entries_of(sample_id(1))
    waiting = Waiting()
    spool.delete([(sample_id(1), 1), (sample_id(2), 1), (12345, 1)], waiting.more())
    await waiting.all()
    await settle(spool, Settlement(entry))
    assert await spool.entries_of(sample_id(1)) == []
    assert await spool.contents([sample_id(1)]) == {}
    assert [each.number for each in await spool.entries_of(sample_id(2))] == [2]
    assert (await spool.count())["total"] == 1


async def test_change_splits_and_updates(spool: Spool) -> None:
    """One change takes entries away, adds their splits and updates others; the message stays for what was added."""
    await accept(spool, split_sample(1, ["a", "b"]))
    first, second = await spool.entries_of(sample_id(1))
    moved = msgspec.structs.replace(first, number=3, queue="c")
    second.due, second.deadline, second.why = math.inf, math.inf, Why.HELD
    await change(spool, removed=(first.key,), added=(moved,), updated=(second,))
    assert await spool.entries_of(sample_id(1)) == [second, moved]
    assert await spool.count() == {"active": 1, "parked": 1, "total": 2}
    assert set(await spool.contents([sample_id(1)])) == {sample_id(1)}


async def test_change_adds_nothing_to_a_message_that_is_gone(spool: Spool) -> None:
    """A split that comes after its message left makes no entry without a message."""
    await accept(spool, sample(1))
    (entry,) = await spool.entries_of(sample_id(1))
    await settle(spool, done_with(copy.copy(entry)))
    await change(spool, removed=(entry.key,), added=(msgspec.structs.replace(entry, number=2),))
    assert await spool.entries_of(sample_id(1)) == []
    assert (await spool.count())["total"] == 0


async def test_deadlines_leave_parked_entries_out(spool: Spool) -> None:
    """Deadlines come earliest first, strictly before the time; a parked entry has none and does not count as active."""
    parked, late, early = sample(1), sample(2), sample(3)
    parked.entries[0].due = parked.entries[0].deadline = math.inf
    late.entries[0].deadline, early.entries[0].deadline = NOW + 20, NOW + 10
    await accept(spool, parked, late, early)
    found = await spool.deadlines(NOW + 21, 10)
    assert [entry.key[0] for entry in found] == [sample_id(3), sample_id(2)]
    assert await spool.deadlines(NOW + 10, 10) == []
    assert len(await spool.deadlines(NOW + 21, 1)) == 1
    assert await spool.count() == {"active": 2, "parked": 1, "total": 3}


async def test_select_tests_each_field(spool: Spool) -> None:
    """Each test of a filter finds its entry, globs ignore case, and one recipient must pass both recipient tests."""
    accepted = split_sample(1, ["mx/d0.example.net", "fallback"])
    accepted.entries[1].why = Why.SITE_THROTTLED
    other = sample(2)
    other.message = msgspec.structs.replace(other.message, tag="news")
    other.entries[0].message = other.message
    await accept(spool, accepted, other)
    first, second, third = (sample_id(1), 1), (sample_id(1), 2), (sample_id(2), 1)
    for wanted, keys in (
        (Filter(), [first, second, third]),
        (Filter(sender="APP@*"), [first, second, third]),
        (Filter(sender="x*"), []),
        (Filter(recipient="user1@*"), [second]),
        (Filter(destination="D0.*"), [first, third]),
        (Filter(recipient="user1@*", destination="d0.*"), []),
        (Filter(route="mx"), [first]),
        (Filter(user="app"), [first, second, third]),
        (Filter(tag="n?ws"), [third]),
        (Filter(why="site_throttled"), [second]),
        (Filter(ids=(sample_id(2), 99)), [third]),
        (Filter(older=3600.0), []),
        (Filter(older=-3600.0), [first, second, third]),
    ):
        assert [entry.key for entry in await spool.select(wanted, 10)] == keys, wanted
    assert [entry.key for entry in await spool.select(Filter(), 1, first)] == [second]
    assert [entry.key for entry in await spool.select(Filter(ids=(sample_id(1),)), 9, first)] == [second]


async def test_select_goes_through_a_long_queue(spool: Spool) -> None:
    """A search finds its few among many and goes on behind a key."""
    await accept(spool, *(sample(serial, queue="rare" if serial % 500 == 3 else "many") for serial in range(1200)))
    found = await spool.select(Filter(route="rare"), 2)
    assert [entry.key[0] for entry in found] == [sample_id(3), sample_id(503)]
    found = await spool.select(Filter(route="rare"), 2, found[-1].key)
    assert [entry.key[0] for entry in found] == [sample_id(1003)]


async def test_select_of_the_parked_reads_nothing_else(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for a person are found among many that do not, page by page, and only they are read."""
    samples = [sample(serial) for serial in range(1200)]
    for serial, why in ((3, Why.DEAD_LETTER), (7, Why.HELD), (1003, Why.DEAD_LETTER), (1190, Why.DEAD_LETTER)):
        entry = samples[serial].entries[0]
        entry.why, entry.due, entry.deadline = why, math.inf, math.inf
    await accept(spool, *samples)
    read: list[object] = []
    decode = record.read_entry
    monkeypatch.setattr(record, "read_entry", lambda *asked: read.append(asked) or decode(*asked))
    found = await spool.select(Filter(why="dead_letter"), 2)
    assert [entry.key[0] for entry in found] == [sample_id(3), sample_id(1003)]
    found = await spool.select(Filter(why="dead_letter", user="app"), 2, found[-1].key)
    assert [(entry.key[0], entry.why) for entry in found] == [(sample_id(1190), Why.DEAD_LETTER)]
    assert [entry.key[0] for entry in await spool.select(Filter(why="held"), 9)] == [sample_id(7)]
    assert await spool.select(Filter(why="held", sender="x*"), 9) == []
    assert len(read) <= 6


async def test_history_is_kept_in_order_and_forgotten(spool: Spool) -> None:
    """Events come oldest first; those of settled messages and of rejections are forgotten, others kept."""
    await accept(spool, sample(1), sample(2), sample(3))
    late = NOW + 100
    spool.record([Event(time=NOW + 1, event=Kind.ACCEPTED, message=sample_id(n)) for n in (1, 2, 3)])
    spool.record([Event(time=NOW + 1, event=Kind.ATTEMPTED, message=sample_id(1))])
    spool.record([Event(time=NOW + 1, event=Kind.REJECTED), Event(time=late, event=Kind.REJECTED)])
    spool.record([Event(time=late, event=Kind.RELAYED, message=sample_id(3))])
    for serial in (1, 3):
        (entry,) = await spool.entries_of(sample_id(serial))
        await settle(spool, done_with(entry))
    assert [event.event for event in await spool.events_of(sample_id(1))] == [Kind.ACCEPTED, Kind.ATTEMPTED]
    assert await spool.forget_history(late - 1) == 3
    assert await spool.events_of(sample_id(1)) == []
    assert len(await spool.events_of(sample_id(2))) == 1
    assert len(await spool.events_of(sample_id(3))) == 2
    assert len(await spool.events_of(0)) == 1
    assert spool.last_id == sample_id(3)


async def test_oldest_is_the_first_arrival(spool: Spool) -> None:
    """The oldest message's arrival is given, None when the queue is empty; what is parked counts apart."""
    assert await spool.oldest() is None
    await accept(spool, sample(5), sample(3))
    assert await spool.oldest() == sample_message(3).arrival.at
    assert await spool.oldest(parked=True) is None
    (entry,) = await spool.entries_of(sample_id(3))
    entry.why, entry.due, entry.deadline = Why.HELD, math.inf, math.inf
    await change(spool, updated=(entry,))
    assert await spool.oldest() == sample_message(5).arrival.at
    assert await spool.oldest(parked=True) == sample_message(3).arrival.at


async def test_a_content_file_lives_as_long_as_its_message(spool: Spool) -> None:
    """A large content is written by blocks, read at any offset, verified, and gone with its message."""
    file = spool.new_file(sample_id(1))
    for letter in (b"a", b"b", b"c"):
        await asyncio.to_thread(file.write, letter * 70_000)
    await asyncio.to_thread(file.seal)
    assert (file.size, file.name) == (210_000, format_id(sample_id(1)))
    message = sample_message(1, size=210_010)
    entry = Entry(message, 1, "relayhost", message.envelope.recipients, NOW, NOW + 9, NOW + 9)
    content = Content(b"DKIM: x\r\n\n", file.name, 210_010)
    await accept(spool, Accepted(message, content, (entry,)))
    assert await spool.contents([sample_id(1)]) == {sample_id(1): content}
    assert await spool.read_file(file.name, 69_999, 3) == b"abb"
    assert await spool.read_file(file.name, 210_000, 3) == b""
    assert await spool.verify_file(sample_id(1))
    await settle(spool, done_with(entry))
    with pytest.raises(FileNotFoundError):
        await spool.read_file(file.name, 0, 1)


async def test_a_file_that_was_not_sealed_is_refused(spool: Spool) -> None:
    """Accepting a content file that is not on disk is a bug that is told at once; discarding twice is harmless."""
    file = spool.new_file(sample_id(1))
    await asyncio.to_thread(file.write, b"half")
    accepted = sample(1)
    accepted.content = Content(b"", file.name, 4)
    with pytest.raises(ValueError, match="not sealed"):
        spool.accept(accepted, Waiting())
    file.discard()
    file.discard()
    assert (await spool.count())["total"] == 0


async def test_free_space_is_measured(spool: Spool) -> None:
    """Free space is given as parts and octets."""
    ratio, octets, inodes = spool.free_space()
    assert 0 < ratio <= 1
    assert octets > 0
    assert 0 < inodes <= 1


async def test_null_reverse_path_and_unicode(spool: Spool) -> None:
    """The null reverse-path and addresses beyond ASCII survive."""
    message = msgspec.structs.replace(sample_message(1, sender=""), tag="größer")
    entry = Entry(message, 1, "mx/übung.example", message.envelope.recipients, NOW, NOW + 9, NOW + 9, last="не сейчас")
    await accept(spool, Accepted(message, Content(b"x"), (entry,)))
    assert await spool.due("mx/übung.example", "2app", NOW + 1, 1) == [entry]


async def test_lanes_are_read_apart(spool: Spool) -> None:
    """Each lane of a queue has a head of its own, and only its own entries are due; a settle leaves an entry there."""
    low, urgent = sample(1), sample(2)
    envelope = msgspec.structs.replace(low.message.envelope, priority=Priority.LOW)
    low.message = low.entries[0].message = msgspec.structs.replace(low.message, envelope=envelope)
    await accept(spool, low, urgent, sample(3))
    assert await spool.heads() == [QueueHead("relayhost", "2app", NOW), QueueHead("relayhost", "3app", NOW)]
    assert [each.key for each in await spool.due("relayhost", "3app", NOW + 1, 9)] == [low.entries[0].key]
    assert len(await spool.due("relayhost", "2app", NOW + 1, 9)) == 2
    (entry,) = await spool.entries_of(low.message.id)
    entry.due = NOW + 300
    await settle(spool, Settlement(entry))
    assert await spool.next_due("relayhost", "3app", 0.0) == NOW + 300
    assert await spool.next_due("relayhost", "0", 0.0) is None


async def test_suppressions_come_back_as_they_were(spool: Spool) -> None:
    """Rows are kept by owner and address, a later word on a key counts, pages go by key, odd text harms nobody."""
    store = spool.suppressions
    first = Suppression("", "a@example.net", 1, 0.0, NOW + 5, reason="550 5.2.1 off")
    second = Suppression("app1", "a@example.net", 0, NOW, math.inf, Origin.MANUAL, "asked for")
    waiting = Waiting()
    store.write([first])
    store.write([msgspec.structs.replace(first, failures=2), second], (), waiting.more())
    store.write([Suppression("", "gone@example.net", 3, NOW, NOW + 9, reason="\udc80")])
    store.write((), [("", "gone@example.net"), ("", "\udc80")], waiting.more())
    assert await waiting.all() == [None, None]
    assert await store.page(("", ""), 9) == [msgspec.structs.replace(first, failures=2), second]
    assert await store.page(("", ""), 1) == [msgspec.structs.replace(first, failures=2)]
    assert await store.page(first.key, 9) == [second]
    assert await store.find([second.key, ("app2", "a@example.net")]) == {second.key: second}
    assert [row.key for row in await store.expired(NOW + 5, 9)] == [first.key]
    assert await store.expired(NOW + 4, 9) == []


async def test_limit_states_are_kept(spool: Spool) -> None:
    """The latest state of a limit is read back, by name; one without a state is gone; others stay as they are."""
    waiting = Waiting()
    spool.keep_limits([LimitState("b", b"1"), LimitState("a", b"2"), LimitState("c", b"3")], waiting.more())
    spool.keep_limits([LimitState("b", b"4"), LimitState("c", b"")], waiting.more())
    assert await waiting.all() == [None, None]
    assert await spool.limit_states() == [LimitState("a", b"2"), LimitState("b", b"4")]


async def test_several_lanes_are_pulled_at_once(spool: Spool) -> None:
    """For each lane what is due comes up to its limit; when more will be is said where all that is due has come."""
    await accept(spool, sample(1), sample(2), sample(3, due=NOW + 60), sample(4, "other"))
    asked = (("2app", 9), ("2app", 1), ("2app", 2), ("0", 5))
    pulled = await spool.pull("relayhost", asked, NOW + 1)
    assert [([entry.message.id for entry in entries], later) for entries, later in pulled] == [
        ([sample_id(1), sample_id(2)], NOW + 60),
        ([sample_id(1)], None),
        ([sample_id(1), sample_id(2)], None),
        ([], None),
    ]
