"""Records, the objects of the HTTP door, checked on each kind of spool."""

import math

import msgspec
import pytest
from spool_samples import NOW, Opener, Waiting, accept, sample

from smarthost.mail.event import Event, Kind
from smarthost.mail.record import Record
from smarthost.queue.burial import forget_records
from smarthost.spool.store import Group, Spool

pytestmark = pytest.mark.asyncio


async def write(spool: Spool, *kept: Record, removed: tuple[tuple[str, str, str], ...] = ()) -> None:
    """Write records and wait until they are durable."""
    waiting = Waiting()
    spool.records.write(kept, removed, waiting.more())
    assert await waiting.all() == [None]


async def test_records_come_back_as_they_were(spool: Spool) -> None:
    """A record is found by its key alone, a later word on it counts, and a removed one is gone."""
    first = Record("template", "acme", "t1", b"{}", due=NOW + 5, expires=NOW + 9)
    other = Record("template", "other", "t1", b"[]")
    await write(spool, first, other)
    found = await spool.records.find([first.key, ("template", "acme", "t2"), ("key", "acme", "t1")])
    assert found == {first.key: first}
    changed = msgspec.structs.replace(first, data=b"{1}", due=math.inf)
    await write(spool, changed, removed=(other.key,))
    assert await spool.records.find([first.key, other.key]) == {first.key: changed}


async def test_pages_stay_with_a_tenant_and_a_kind(spool: Spool) -> None:
    """Pages go by id, forwards and back, and hold nothing of another tenant or kind; all tenants' come apart."""
    mine = [Record("batch", "acme", name, b"") for name in ("a", "b", "c")]
    await write(spool, *mine, Record("batch", "acme2", "b", b""), Record("batches", "acme", "b", b""))
    records = spool.records
    assert await records.page("batch", "acme", limit=2) == mine[:2]
    assert await records.page("batch", "acme", "b") == mine[2:]
    assert await records.page("batch", "acme", newest=True, limit=2) == [mine[2], mine[1]]
    assert await records.page("batch", "acme", "b", newest=True) == [mine[0]]
    assert [row.key[1:] for row in await records.all("batch", limit=4)] == [
        ("acme", "a"),
        ("acme", "b"),
        ("acme", "c"),
        ("acme2", "b"),
    ]
    assert [row.tenant for row in await records.all("batch", ("acme", "c"))] == ["acme2"]
    assert [await records.count("batch", tenant) for tenant in ("acme", "acme2", "acm")] == [3, 1, 0]


async def test_due_records_come_earliest_first(spool: Spool) -> None:
    """Records that are due come by time, over all tenants; one without a time never does."""
    await write(
        spool,
        Record("delivery", "b", "1", b"", due=NOW + 2),
        Record("delivery", "a", "2", b"", due=NOW + 1),
        Record("delivery", "a", "3", b"", due=NOW + 3),
        Record("delivery", "a", "4", b""),
        Record("other", "a", "5", b"", due=NOW),
    )
    assert [row.id for row in await spool.records.due("delivery", NOW + 3, 9)] == ["2", "1"]
    assert [row.id for row in await spool.records.due("delivery", NOW + 3, 1)] == ["2"]
    assert await spool.records.next_due("delivery") == NOW + 1
    assert await spool.records.next_due("nothing") is None


async def test_what_expired_is_forgotten(spool: Spool) -> None:
    """Only records whose time has come go, and they stay readable until then."""
    await write(
        spool,
        Record("idempotency", "a", "1", b"", expires=NOW),
        Record("idempotency", "a", "2", b"", expires=NOW + 1),
        Record("idempotency", "a", "3", b""),
    )
    assert not await spool.records.has_expired(NOW - 1)
    assert await spool.records.has_expired(NOW)
    waiting = Waiting()
    spool.records.forget_expired(NOW, waiting.more())
    assert await waiting.all() == [None]
    assert [row.id for row in await spool.records.page("idempotency", "a")] == ["2", "3"]
    assert not await spool.records.has_expired(NOW)


async def test_a_record_travels_with_its_message(spool: Spool) -> None:
    """A record of an accept is there when the accept is answered."""
    accepted = sample(1)
    accepted.records = (Record("message", "acme", "x", b"{}"),)
    await accept(spool, accepted)
    assert await spool.records.count("message", "acme") == 1


async def test_odd_text_harms_nobody(open_sqlite: Opener) -> None:
    """A record whose id is no UTF-8 is refused to its writer, before it can spoil a transaction of others."""
    with pytest.raises(UnicodeEncodeError):
        open_sqlite().records.write([Record("message", "acme", "\udc80", b"")])


async def test_a_group_is_there_as_a_whole(spool: Spool) -> None:
    """Messages, records that stay and go, and events of a group are there together, and everybody is told."""
    old, part = Record("batch_part", "acme", "b-0", b"[]"), Record("batch_sent", "acme", "b-0", b"[1]")
    await write(spool, old)
    messages, waiting = (sample(1), sample(2)), Waiting()
    event = Event(NOW, Kind.REJECTED, envid="b.7", recipient="x@example.net", user="acme")
    before = spool.event_log.head
    told = tuple((message, waiting.more()) for message in messages)
    spool.accept_group(Group(told, (part,), (old.key,), (event,)), waiting.more())
    assert await waiting.all() == [None] * 3
    assert await spool.records.find([old.key, part.key]) == {part.key: part}
    for message in messages:
        assert await spool.entries_of(message.message.id) == list(message.entries)
    page = await spool.event_log.after(before, 10)
    assert [each.event for each in page.events][-1:] == [event]


async def test_many_that_expired_are_forgotten(spool: Spool) -> None:
    """However many records are over, all of them go, and no other."""
    over = [Record("batch_sent", "acme", f"{number:05d}", b"", expires=NOW - 1) for number in range(1100)]
    stays = Record("batch_sent", "acme", "x", b"", expires=NOW + 1)
    await write(spool, *over, stays)
    await forget_records(spool.records, NOW)
    assert await spool.records.page("batch_sent", "acme", limit=2000) == [stays]
