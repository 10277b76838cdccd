"""What opening a spool finds, and what it does about it."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from spool_samples import NOW, Opener, Waiting, accept, done_with, sample, sample_id, sample_message, settle

from smarthost.mail.entry import Entry, Why
from smarthost.mail.event import accepted_event
from smarthost.mail.message import format_id
from smarthost.spool import schema
from smarthost.spool.record import content_row, entry_row
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content, Settlement, SpoolError


async def accept_file(spool: SqliteSpool, serial: int, octets: int = 100_000) -> Path:
    """Accept a message with a content file and give its path."""
    file = spool.new_file(sample_id(serial))
    await asyncio.to_thread(file.write, b"x" * octets)
    await asyncio.to_thread(file.seal)
    message = sample_message(serial, size=octets)
    entry = Entry(message, 1, "relayhost", message.envelope.recipients, NOW, NOW + 9, NOW + 9)
    await accept(spool, Accepted(message, Content(b"", file.name, octets), (entry,)))
    return spool._folder / "content" / file.name


async def test_everything_is_there_after_a_restart(open_sqlite: Opener) -> None:
    """Entries, contents, counts and the high-water mark survive a clean end, which leaves no log behind."""
    spool = open_sqlite()
    await accept(spool, *(sample(serial) for serial in range(9)))
    (entry,) = await spool.entries_of(sample_id(8))
    await settle(spool, done_with(entry))
    await spool.close()
    assert not (spool._folder / "spool.db-wal").exists()
    spool = open_sqlite()
    assert len(await spool.due("relayhost", "2app", NOW + 1, 99)) == 8
    assert (await spool.count())["total"] == 8
    assert spool.last_id == sample_id(8)
    assert spool.recovered.unclean is False


async def test_close_commits_what_waits(open_sqlite: Opener) -> None:
    """Accepts, settles and records that wait when the spool closes are on disk and answered when it is closed."""
    spool = open_sqlite()
    waiting = Waiting()
    for serial in range(50):
        spool.accept(sample(serial), waiting.more())
    spool.settle(Settlement(sample(0).entries[0]), waiting.more())
    await spool.close()
    assert waiting.faults == [None] * 51
    assert (await open_sqlite().count())["total"] == 50


async def test_folders_and_files_are_private(open_sqlite: Opener) -> None:
    """Folders are 0700 and files 0600, whatever the umask says."""
    before = os.umask(0)
    try:
        spool = open_sqlite()
        await accept_file(spool, 1)
    finally:
        os.umask(before)
    paths = [spool._folder, *spool._folder.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}


async def test_two_processes_cannot_share_a_spool(open_sqlite: Opener) -> None:
    """A second process is told who has the folder; a second spool in this process too."""
    spool = open_sqlite()
    with pytest.raises(SpoolError, match=f"is in use by process {os.getpid()}$"):
        open_sqlite()
    code = (
        "import asyncio, sys, time; from pathlib import Path; from smarthost.spool.sqlite import SqliteSpool\n"
        "SqliteSpool.open(Path(sys.argv[1]), loop=asyncio.new_event_loop(), clock=time.time, on_fatal=print)"
    )
    command = [sys.executable, "-c", code, spool._folder]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert f"is in use by process {os.getpid()}" in told.stderr
    await spool.close()
    await open_sqlite().close()


@pytest.mark.parametrize("damage", ["header", "page", "empty log"])
async def test_a_damaged_database_is_set_aside(open_sqlite: Opener, damage: str) -> None:
    """A database that cannot be read is moved with its contents, never deleted, and a new one serves."""
    spool = open_sqlite()
    file = await accept_file(spool, 1)
    await accept(spool, *(sample(serial) for serial in range(2, 60)))
    await spool.close()
    path = spool._folder / "spool.db"
    if damage == "header":
        path.write_bytes(b"this is not a database" * 1000)
    else:
        with path.open("r+b") as opened:
            opened.seek(schema.PAGE_SIZE * 3)
            opened.write(b"\xff" * schema.PAGE_SIZE * 4)
        if damage == "empty log":
            (spool._folder / "suspect").touch()
        else:
            (spool._folder / "spool.db-wal").write_bytes(b"\0" * 32)  # as after a run that did not close
    damaged = path.read_bytes()
    spool = open_sqlite()
    aside = Path(spool.recovered.set_aside)
    assert aside.name.startswith("corrupt-")
    assert spool.recovered.reason
    assert (aside / "spool.db").read_bytes() == damaged
    assert (aside / "content" / file.name).exists()
    assert spool.recovered.swept == ()
    await accept(spool, sample(99))
    assert (await spool.count())["total"] == 1
    assert not (spool._folder / "suspect").exists()
    await spool.close()
    assert open_sqlite().recovered.set_aside == ""


async def test_a_database_set_aside_twice_in_a_second_keeps_both(open_sqlite: Opener) -> None:
    """What was set aside before is never written over."""
    names = set()
    for _ in range(2):
        spool = open_sqlite()
        await spool.close()
        (spool._folder / "spool.db").write_bytes(b"no database " * 100)
        spool = open_sqlite()
        names.add(spool.recovered.set_aside)
        await spool.close()
    assert len(names) == 2


async def test_damage_that_is_met_while_running_is_fatal(open_sqlite: Opener) -> None:
    """A malformed page ends the program by `on_fatal`, and makes the next start check everything."""
    spool = open_sqlite()
    await accept(spool, *(sample(serial) for serial in range(200)))
    await spool.close()
    path = spool._folder / "spool.db"
    whole = path.stat().st_size
    with path.open("r+b") as opened:
        opened.seek(schema.PAGE_SIZE * 19)  # behind the roots of the tables, which are read at the start
        opened.write(b"\xff" * (whole - opened.tell()))
    fatal: list[str] = []
    spool = open_sqlite(fatal=fatal)
    with pytest.raises(sqlite3.DatabaseError):
        await spool.due("relayhost", "2app", NOW + 1, 500)
    assert "malformed" in fatal[0]
    await spool.close()
    assert "corrupt-" in open_sqlite().recovered.set_aside


async def test_files_without_a_row_are_swept(open_sqlite: Opener) -> None:
    """A content file that no row owns was never answered: it is deleted; files that are not ours are left."""
    spool = open_sqlite()
    kept = await accept_file(spool, 1)
    half = spool.new_file(sample_id(2))
    half.write(b"half")
    stranger = spool._folder / "content" / "README"
    stranger.touch()
    await spool.close()
    spool = open_sqlite()
    assert spool.recovered.swept == (format_id(sample_id(2)),)
    assert kept.exists()
    assert stranger.exists()


@pytest.mark.parametrize("loss", ["gone", "short"])
async def test_a_lost_content_file_parks_its_message(open_sqlite: Opener, loss: str) -> None:
    """A row without its whole file is parked as content lost and reported; what is left of the file is kept."""
    spool = open_sqlite()
    file = await accept_file(spool, 1)
    await accept(spool, sample(2))
    await spool.close()
    if loss == "gone":
        file.unlink()
    else:
        os.truncate(file, 5)
    spool = open_sqlite()
    assert spool.recovered.lost == (sample_id(1),)
    assert spool.recovered.set_aside == "" if loss == "gone" else Path(spool.recovered.set_aside, file.name).exists()
    (entry,) = await spool.entries_of(sample_id(1))
    assert entry.why is Why.CONTENT_LOST
    assert await spool.count() == {"active": 1, "parked": 1, "total": 2}
    assert not await spool.verify_file(sample_id(1))


async def test_a_changed_content_is_noticed(open_sqlite: Opener) -> None:
    """A bit that changed on disk is found by the CRC: of the row when it is read, of a file when it is verified."""
    spool = open_sqlite()
    file = await accept_file(spool, 1)
    await accept(spool, sample(2), sample(3))
    await spool.close()
    path = spool._folder / "spool.db"
    octets = path.read_bytes()
    place = octets.index(b"Subject: 2\r\n") + 500
    path.write_bytes(octets[:place] + b"!" + octets[place + 1 :])
    file.write_bytes(b"x" * 50_000 + b"!" + b"x" * 49_999)
    spool = open_sqlite()
    assert set(await spool.contents([sample_id(2), sample_id(3)])) == {sample_id(3)}
    assert not await spool.verify_file(sample_id(1))
    assert await spool.verify_file(sample_id(3))


async def test_a_newer_database_is_a_clear_error(open_sqlite: Opener) -> None:
    """A database of a newer version, and one of another program, are refused with a sentence and left alone."""
    spool = open_sqlite()
    await spool.close()
    path = spool._folder / "spool.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE meta SET value = 99 WHERE key = 'schema'")
    connection.close()
    with pytest.raises(SpoolError, match="newer smarthost"):
        open_sqlite()
    path.unlink()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE album (title TEXT)")
    connection.close()
    with pytest.raises(SpoolError, match="another program"):
        open_sqlite()
    assert path.exists()


async def test_an_older_database_is_migrated(open_sqlite: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of an older version gets the missing steps in one transaction; a step that fails changes nothing."""
    spool = open_sqlite()
    await accept(spool, sample(1))
    await spool.close()
    step = ("ALTER TABLE entry ADD COLUMN priority INTEGER NOT NULL DEFAULT 0", "CREATE TABLE extra (id INTEGER)")
    today = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*today, (step[0], "CREATE NONSENSE")))
    with pytest.raises(SpoolError, match="cannot be opened"):
        open_sqlite()
    monkeypatch.setattr(schema, "MIGRATIONS", (*today, step))
    connection = schema.connect(spool._folder / "spool.db")
    assert schema.migrate(connection) == len(today)
    assert schema.migrate(connection) == len(today) + 1
    assert connection.execute("SELECT priority FROM entry").fetchall() == [(0,)]
    connection.close()


async def test_a_spool_of_the_first_schema_is_read(
    open_sqlite: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a relay of the first schema left is read by this one: in its user's lane, and with its history."""
    old = sample(1)
    message = msgspec.structs.replace(old.message, arrival=msgspec.structs.replace(old.message.arrival, identity="bob"))
    entry = msgspec.structs.replace(old.entries[0], message=message)
    event = accepted_event(message)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "spool.db").touch()
    with monkeypatch.context() as past:
        past.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        connection = schema.connect(tmp_path / "spool" / "spool.db")
        assert schema.migrate(connection) == 0
    pack = msgspec.msgpack.encode
    connection.execute(schema.INSERT_MESSAGE, (message.id, pack(message), "", old.content.size, 0, 0))
    connection.execute(schema.INSERT_CONTENT, content_row(message.id, old.content.head))
    connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", entry_row(entry)[:7])
    connection.execute(schema.INSERT_EVENT, (message.id, 1, pack(msgspec.structs.astuple(event))))
    connection.close()
    spool = open_sqlite()
    assert [(head.queue, head.lane) for head in await spool.heads()] == [(entry.queue, "2bob")]
    (found,) = await spool.due(entry.queue, "2bob", NOW + 1e9, 10)
    assert (found.lane, found.message) == ("2bob", message)
    assert await spool.events_of(message.id) == [event]
    assert await spool.contents([message.id]) == {message.id: old.content}


async def test_ids_are_never_given_twice(open_sqlite: Opener) -> None:
    """The high-water mark stays when message and history are gone."""
    spool = open_sqlite()
    accepted = sample(5)
    await accept(spool, accepted)
    await settle(spool, done_with(accepted.entries[0]))
    await spool.forget_history(NOW + 1e6)
    await spool.close()
    assert open_sqlite().last_id == sample_id(5)
