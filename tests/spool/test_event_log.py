"""The event log: what reads on from a cursor misses nothing, on each kind of spool, over restarts and crashes."""

import asyncio
from pathlib import Path

import pytest
from spool_samples import NOW, Opener, Waiting, accept, done_with, sample, sample_id, settle

from smarthost.mail.event import Event, Kind
from smarthost.spool.cursor import PLACES, cursor_at
from smarthost.spool.store import Accepted, Fault, LoggedEvent, Settlement, Spool

pytestmark = pytest.mark.asyncio


def event(serial: int, kind: Kind = Kind.ACCEPTED, tenant: str = "app", at: float = NOW) -> Event:
    """Make an event of a sample."""
    return Event(at, kind, sample_id(serial), user=tenant)


def told(serial: int, tenant: str = "app") -> Accepted:
    """Make a sample with its event."""
    accepted = sample(serial)
    accepted.events = (event(serial, tenant=tenant),)
    return accepted


async def read(spool: Spool, cursor: int = 0, limit: int = 100, tenant: str | None = None) -> list[LoggedEvent]:
    """Read on until the end, page by page."""
    found: list[LoggedEvent] = []
    while True:
        page = await spool.event_log.after(cursor, limit, tenant)
        found += page.events
        if page.end <= cursor or page.end >= spool.event_log.head:
            return found
        cursor = page.end


def kinds(events: list[LoggedEvent]) -> list[tuple[int, str]]:
    """Give serial number and kind of each."""
    return [((each.event.message >> 4) - (sample_id(0) >> 4), each.event.event.value) for each in events]


async def test_events_come_in_the_order_of_commits(spool: Spool) -> None:
    """Cursors grow with the commits, whatever the events' own times say; pages of any size give the same."""
    head = spool.event_log.head
    await accept(spool, told(1))
    between = spool.event_log.head
    await accept(spool, told(2), told(3))
    entry = sample(1).entries[0]
    await settle(spool, Settlement(done_with(entry).entry, (event(1, Kind.RELAYED, at=NOW - 500),)))
    everything = await read(spool, head)
    assert kinds(everything) == [(1, "accepted"), (2, "accepted"), (3, "accepted"), (1, "relayed")]
    cursors = [each.cursor for each in everything]
    assert cursors == sorted(set(cursors)) and cursors[0] > head
    assert kinds(await read(spool, between)) == kinds(everything)[1:]
    for size in (1, 2, 3):
        assert await read(spool, head, size) == everything
    assert (await spool.event_log.after(spool.event_log.head, 9)).events == []


async def test_a_tenant_sees_its_own_events_only(spool: Spool) -> None:
    """A tenant's pages have nothing of others, and their end goes on also where it found nothing."""
    await accept(spool, *(told(serial, "app" if serial % 3 else "shop") for serial in range(1, 10)))
    assert [serial for serial, _ in kinds(await read(spool, tenant="shop"))] == [3, 6, 9]
    assert len(await read(spool, tenant="app", limit=1)) == 6
    page = await spool.event_log.after(0, 5, "nobody")
    assert page.events == [] and page.end >= spool.event_log.head


async def test_a_settle_brings_the_events_of_its_reports(spool: Spool) -> None:
    """Events that travel with a report, and those that nobody waits for, are in the log."""
    await accept(spool, told(1))
    entry = sample(1).entries[0]
    await settle(spool, Settlement(done_with(entry).entry, (event(1, Kind.FAILED),), (told(2),)))
    spool.record((event(1, Kind.REPORTED),))
    await accept(spool, told(3))
    assert set(kinds(await read(spool))) >= {(1, "failed"), (2, "accepted"), (1, "reported"), (3, "accepted")}


async def test_whoever_waits_is_told_after_the_commit(spool: Spool) -> None:
    """A reader that waits behind the head goes on when an event is committed, and no listener stays behind."""
    heard: list[int] = []
    stop = spool.event_log.listen(lambda: heard.append(spool.event_log.head))
    head = spool.event_log.head
    waiting = asyncio.ensure_future(spool.event_log.beyond(head))
    await asyncio.sleep(0)
    assert not waiting.done()
    await accept(spool, told(1))
    async with asyncio.timeout(10):
        await waiting
        await spool.event_log.beyond(head)
    assert heard and heard[-1] > head and len(await read(spool, head)) == 1
    stop()
    count = len(heard)
    await accept(spool, told(2))
    assert len(heard) == count


async def test_what_the_history_forgets_leaves_the_log(spool: Spool) -> None:
    """Old events go, those of a time that is kept stay, and what comes later has higher cursors than all before."""
    early, late = told(1), told(2)
    late.events = (event(2, at=NOW + 100),)
    await accept(spool, early)
    await settle(spool, Settlement(done_with(early.entries[0]).entry, (event(1, Kind.RELAYED),)))
    await accept(spool, late)
    highest = (await read(spool))[-1].cursor
    await spool.forget_history(NOW + 50)
    assert kinds(await read(spool)) == [(2, "accepted")]
    await spool.forget_history(NOW + 5000)
    await accept(spool, told(3))
    assert [each.cursor > highest for each in await read(spool, highest)] == [True]


async def test_a_cursor_of_a_time_lies_before_what_came_then(spool: Spool) -> None:
    """Reading from the cursor of a time gives what came then and later."""
    late = told(2)
    late.events = (event(2, at=NOW + 100),)
    await accept(spool, told(1))
    await accept(spool, late)
    assert kinds(await read(spool, cursor_at(NOW + 100))) == [(2, "accepted")]
    assert len(await read(spool, cursor_at(NOW))) == 2


async def test_cursors_grow_over_restarts_and_lost_databases(open_sqlite: Opener, tmp_path: Path) -> None:
    """Neither a restart after everything was forgotten nor a damaged database, set aside, uses a cursor again."""
    spool = open_sqlite()
    await accept(spool, told(1))
    await settle(spool, done_with(told(1).entries[0]))
    cursor = (await read(spool))[-1].cursor
    await spool.forget_history(NOW + 900)
    await spool.close()
    spool = open_sqlite()
    assert spool.event_log.head >= cursor
    await accept(spool, told(2))
    (second,) = await read(spool, cursor)
    await spool.close()
    (tmp_path / "spool" / "spool.db").write_bytes(b"nothing" * 3000)
    (tmp_path / "spool" / "suspect").touch()
    spool = open_sqlite()
    assert spool.recovered.set_aside
    later = told(3)
    later.events = (event(3, at=NOW + 1),)
    await accept(spool, later)
    assert (await read(spool, second.cursor))[-1].cursor > second.cursor


async def test_a_transaction_of_very_many_events_has_several_rows(open_sqlite: Opener) -> None:
    """More events than a row has places for are all there, once and in order."""
    spool = open_sqlite()
    many = sample(1)
    many.events = tuple(event(1, at=NOW + place / 1000) for place in range(PLACES + 5))
    await accept(spool, many)
    found = await read(spool, limit=1000)
    assert [each.event.time for each in found] == [each.time for each in many.events]
    assert len({each.cursor for each in found}) == PLACES + 5


async def test_a_full_disk_leaves_nothing_in_the_log(open_sqlite: Opener) -> None:
    """What was rolled back is not in the log, and what is written afterwards is there once."""
    spool = open_sqlite()
    await accept(spool, told(1))
    connection = spool._database.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    waiting = Waiting()
    for serial in range(2, 9):
        refused = sample(serial, content=b"x" * 30_000)
        refused.events = (event(serial),)
        spool.accept(refused, waiting.more())
    assert set(await waiting.all()) == {Fault.DISK_FULL}
    assert kinds(await read(spool)) == [(1, "accepted")]
    connection.execute(f"PRAGMA max_page_count = {pages + 100_000}")
    async with asyncio.timeout(10):
        while True:
            again = Waiting()
            spool.accept(told(10), again.more())
            if await again.all() == [None]:
                break
    assert kinds(await read(spool)) == [(1, "accepted"), (10, "accepted")]


async def test_an_empty_log_has_no_end_to_wait_for(spool: Spool) -> None:
    """Whoever reads a log in which nothing is stands at its head at once."""
    assert spool.event_log.head == 0
    page = await spool.event_log.after(0, 9)
    assert page.events == [] and page.end >= spool.event_log.head
