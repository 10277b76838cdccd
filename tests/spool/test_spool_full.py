"""A full disk: accepts are refused, settles wait and are not lost, and all goes on when there is space."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from spool_samples import NOW, Opener, Waiting, accept, done_with, sample, sample_id

from smarthost.mail.entry import Why
from smarthost.spool import reserve, schema, writer
from smarthost.spool.memory import MemorySpool
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Fault, Settlement


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner than in production."""
    monkeypatch.setattr(writer, "FULL_PATIENCE", 0.05)


def limit_pages(spool: SqliteSpool, more: int) -> None:
    """Let the database grow by some pages only."""
    connection = spool._database.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + more}")


async def fill(spool: SqliteSpool, first: int, octets: int = 20_000, most: int = 2000) -> int:
    """Accept until the disk is full; gives the first serial that was refused."""
    for serial in range(first, first + most):
        waiting = Waiting()
        spool.accept(sample(serial, content=os.urandom(octets)), waiting.more())
        if await waiting.all() != [None]:
            assert waiting.faults == [Fault.DISK_FULL]
            return serial
    raise AssertionError("the disk was never full")


async def test_accepts_are_refused_and_settles_go_through(open_sqlite: Opener) -> None:
    """When a batch does not fit, its accepts hear DISK_FULL, nothing of them is there, and its settles are done."""
    spool = open_sqlite()
    await accept(spool, *(sample(serial) for serial in range(20)))
    limit_pages(spool, 1)
    waiting, settled = Waiting(), Waiting()
    for entry in await spool.due("relayhost", "2app", NOW + 1, 5):
        spool.settle(done_with(entry), settled.more())
    for serial in range(100, 130):
        spool.accept(sample(serial, content=b"x" * 30_000), waiting.more())
    assert set(await waiting.all()) == {Fault.DISK_FULL}
    assert await settled.all() == [None] * 5
    assert (await spool.count())["total"] == 15
    assert spool.last_id == sample_id(19)
    assert spool.stats.disk_full >= 1
    limit_pages(spool, 100_000)
    await asyncio.sleep(0.1)
    await accept(spool, sample(200))
    assert not spool.settles_stuck


async def test_settles_that_do_not_fit_wait_in_order(open_sqlite: Opener) -> None:
    """Settles that grow the database stay in memory, are not answered, and are committed in order when they fit."""
    spool = open_sqlite()
    await accept(spool, sample(1), sample(2))
    limit_pages(spool, 0)
    (entry,) = await spool.entries_of(sample_id(1))
    waiting = Waiting()
    for attempt in range(1, 4):
        entry.attempts, entry.why, entry.last = attempt, Why.RETRY, "x" * 40_000 * attempt
        spool.settle(Settlement(entry), waiting.more())
    async with asyncio.timeout(5):
        while not spool.settles_stuck:
            await asyncio.sleep(0.01)
    refused = Waiting()
    spool.accept(sample(3), refused.more())
    assert await refused.all() == [Fault.DISK_FULL]
    assert waiting.faults == []
    limit_pages(spool, 1000)
    assert await waiting.all() == [None] * 3
    assert not spool.settles_stuck
    (entry,) = await spool.entries_of(sample_id(1))
    assert (entry.attempts, len(entry.last)) == (3, 120_000)


async def test_closing_on_a_full_disk_ends(open_sqlite: Opener) -> None:
    """A spool that closes while settles are stuck tries once more and ends; what was not written is not answered."""
    spool = open_sqlite()
    await accept(spool, sample(1))
    limit_pages(spool, 0)
    (entry,) = await spool.entries_of(sample_id(1))
    entry.last = "x" * 40_000
    waiting = Waiting()
    spool.settle(Settlement(entry), waiting.more())
    async with asyncio.timeout(5):
        while not spool.settles_stuck:
            await asyncio.sleep(0.01)
        await spool.close()
    assert waiting.faults == []
    (entry,) = await open_sqlite().entries_of(sample_id(1))
    assert entry.last == ""


async def test_the_memory_spool_can_play_a_full_disk() -> None:
    """The stand-in refuses accepts and keeps settles while it is full."""
    spool = MemorySpool(asyncio.get_running_loop(), lambda: NOW)
    await accept(spool, sample(1))
    spool.full = True
    refused, waiting = Waiting(), Waiting()
    spool.accept(sample(2), refused.more())
    spool.settle(done_with(sample(1).entries[0]), waiting.more())
    assert await refused.all() == [Fault.DISK_FULL]
    assert spool.settles_stuck
    assert waiting.faults == []
    spool.full = False
    assert await waiting.all() == [None]
    assert await spool.count() == {"active": 0, "parked": 0, "total": 0}


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Mount a file system of 8 MiB."""
    monkeypatch.setattr(schema, "WAL_OCTETS", 1024 * 1024)
    monkeypatch.setattr(reserve, "RESERVE_OCTETS", 1280 * 1024)
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_file_system_that_is_really_full(open_sqlite: Opener, small_disk: Path) -> None:
    """On a full file system mail is refused, what is there can be struck off, and then mail comes in again."""
    spool = open_sqlite(small_disk / "spool")
    serial = await fill(spool, 1)
    assert serial > 50
    total = serial - 1
    assert (await spool.count())["total"] == total
    file = spool.new_file(sample_id(90_000))
    with pytest.raises(OSError, match="No space left"):
        for _ in range(100):
            file.write(b"x" * 65_536)
    waiting = Waiting()
    entries = await spool.due("relayhost", "2app", NOW + 1, 5000)
    for entry in entries[: total // 2]:
        entry.why, entry.last = Why.RETRY, "451 4.3.0 later"
        spool.settle(Settlement(entry), waiting.more())
    assert set(await waiting.all()) == {None}, "the reserve was not enough to defer"
    file.discard()
    for entry in entries:
        spool.settle(done_with(entry), waiting.more())
    await waiting.all()
    async with asyncio.timeout(10):
        while True:
            waiting = Waiting()
            spool.accept(sample(95_000), waiting.more())
            if await waiting.all() == [None]:
                break
            await asyncio.sleep(0.05)
    assert (await spool.count())["total"] == 1
    await spool.close()
    spool = open_sqlite(small_disk / "spool")
    assert (await spool.count())["total"] == 1
    await spool.close()
