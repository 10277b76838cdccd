"""The group commit: what shares a transaction and when it starts; reading and writing do not wait for each other."""

import asyncio
import sqlite3
import threading
import time

import pytest
from spool_samples import NOW, Opener, Waiting, accept, done_with, sample, sample_id, settle

from smarthost.mail.event import Event, Kind
from smarthost.spool import database, reader, schema, writer
from smarthost.spool.sqlite import Tuning
from smarthost.spool.store import Fault, Settlement


async def test_accepts_that_wait_share_a_commit(open_sqlite: Opener) -> None:
    """Many accepts of one turn of the loop take few commits, and the histograms add up."""
    spool = open_sqlite()
    await accept(spool, *(sample(serial) for serial in range(300)))
    assert spool.stats.commits < 60
    assert spool.stats.batch_sizes_sum == 300
    assert sum(spool.stats.batch_sizes) == sum(spool.stats.commit_seconds) == spool.stats.commits
    assert spool.stats.wal > 0


async def test_settles_alone_wait_a_moment_for_company(open_sqlite: Opener) -> None:
    """Settles that come within ten milliseconds share a commit, and a lone one does not wait for another."""
    spool = open_sqlite()
    await accept(spool, *(sample(serial) for serial in range(20)))
    before = spool.stats.commits
    await settle(spool, *(done_with(sample(serial).entries[0]) for serial in range(10)))
    assert spool.stats.commits - before <= 2
    started = time.monotonic()
    await settle(spool, done_with(sample(10).entries[0]))
    assert time.monotonic() - started < 0.5


async def test_gathering_makes_larger_batches(open_sqlite: Opener) -> None:
    """With `gather`, accepts that trickle in share commits after a batch that had company."""
    spool = open_sqlite(tuning=Tuning(gather=0.05))
    await accept(spool, sample(1), sample(2), sample(3))
    before = spool.stats.commits
    waiting = Waiting()
    for serial in range(10, 20):
        spool.accept(sample(serial), waiting.more())
        await asyncio.sleep(0.001)
    assert set(await waiting.all()) == {None}
    assert spool.stats.commits - before <= 5


async def test_many_threads_may_accept(open_sqlite: Opener) -> None:
    """Accepts from several threads are all answered on the loop."""
    spool = open_sqlite()
    waiting = Waiting().more(400)
    here = threading.get_ident()
    threads_seen = set()

    def done(fault: Fault | None) -> None:
        threads_seen.add(threading.get_ident())
        waiting(fault)

    def work(first: int) -> None:
        for serial in range(first, first + 100):
            spool.accept(sample(serial), done)

    await asyncio.gather(*(asyncio.to_thread(work, first) for first in (0, 100, 200, 300)))
    assert set(await waiting.all()) == {None}
    assert threads_seen == {here}
    assert (await spool.count())["total"] == 400


async def test_a_callback_that_raises_does_not_silence_others(open_sqlite: Opener) -> None:
    """A bug in one callback is reported to the loop; its neighbours in the batch are answered."""
    spool = open_sqlite()
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    waiting = Waiting()

    def broken(_: Fault | None) -> None:
        raise LookupError("a bug")

    spool.accept(sample(1), broken)
    spool.accept(sample(2), waiting.more())
    assert await waiting.all() == [None]
    assert isinstance(reported[0]["exception"], LookupError)


async def test_what_cannot_be_written_fails_in_the_caller(open_sqlite: Opener) -> None:
    """Text that has no octets is refused where it comes in, and hurts no batch."""
    spool = open_sqlite()
    with pytest.raises(UnicodeEncodeError):
        spool.accept(sample(1, queue="mx/\udcff"), Waiting())
    await accept(spool, sample(2))
    assert (await spool.count())["total"] == 1


async def test_history_takes_any_text(open_sqlite: Opener) -> None:
    """An event with text that has no octets is kept with "?" in it, and those beside it as they are."""
    spool = open_sqlite()
    await accept(spool, sample(1))
    for reply in ("odd \udcff", "good"):
        spool.record([Event(time=NOW, event=Kind.HELD, message=sample_id(1), reply=reply)])
    await settle(spool, done_with(sample(1).entries[0]))
    assert [event.reply for event in await spool.events_of(sample_id(1))] == ["odd ?", "good"]


async def test_reading_does_not_wait_for_writing(open_sqlite: Opener) -> None:
    """While somebody holds the write lock, questions are answered; when it is let go, the commit goes through."""
    spool = open_sqlite()
    await accept(spool, sample(1))
    other = sqlite3.connect(spool._folder / schema.DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = Waiting()
    spool.accept(sample(2), waiting.more())
    async with asyncio.timeout(2):
        assert len(await spool.due("relayhost", "2app", NOW + 1, 10)) == 1
        assert await spool.oldest() is not None
    assert waiting.faults == []
    other.execute("ROLLBACK")
    other.close()
    assert await waiting.all() == [None]


async def test_no_question_reads_a_queue_through(open_sqlite: Opener) -> None:
    """The plan of every question that is asked while running is a search by an index, with no sort."""
    spool = open_sqlite()
    await accept(spool, sample(1))
    connection = spool._database.connection
    asked = {
        reader._NEXT_LANE: ("", ""),
        reader._NEXT_QUEUE: ("",),
        reader._DUE: ("q", "2", NOW, 10),
        reader._NEXT_DUE: ("q", "2", NOW),
        reader._DEADLINES: (NOW, 10),
        reader._BEHIND: (0, 0, 10),
        reader._OF: (1,),
        reader._CONTENT: (1,),
        schema.UPDATE_ENTRY: ("q", NOW, NOW, "new", b"", 1, 1),
        schema.DELETE_ENTRY: (1, 1),
        schema.DELETE_MESSAGE: (1,),
        schema.DELETE_CONTENT: (1,),
        schema.DELETE_EVENTS: (1, 1),
    }
    for sql, arguments in asked.items():
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", arguments)]
        assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], (sql, plan)


async def test_a_drained_queue_gives_its_space_back(open_sqlite: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """In idle moments the log is emptied into the database, and unused pages go back to the file system."""
    monkeypatch.setattr(writer, "IDLE_PATIENCE", 0.05)
    monkeypatch.setattr(database, "_FREE_PAGES", 50)
    spool = open_sqlite()
    await accept(spool, *(sample(serial, content=b"x" * 20_000) for serial in range(300)))
    path = spool._folder / schema.DATABASE
    async with asyncio.timeout(5):
        while path.stat().st_size < 6_000_000:
            await asyncio.sleep(0.02)
        waiting = Waiting()
        spool.delete([(sample_id(serial), 1) for serial in range(300)], waiting.more())
        await waiting.all()
        while path.stat().st_size > 1_500_000:
            await asyncio.sleep(0.02)
    await accept(spool, sample(999))
    assert (await spool.count())["total"] == 1


async def test_events_keep_their_order_within_one_moment(open_sqlite: Opener) -> None:
    """Events of the same microsecond, and of a clock that went back, are kept in the order in which they came."""
    spool = open_sqlite()
    accepted = sample(1)
    await accept(spool, accepted)
    events = [
        Event(time=NOW - number // 3, event=Kind.ATTEMPTED, message=sample_id(1), attempt=number) for number in range(9)
    ]
    spool.record(events[:4])
    await settle(spool, Settlement(accepted.entries[0], tuple(events[4:])))
    assert await spool.events_of(sample_id(1)) == events
